/** What a user installs. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, patience, run, watchServer } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;

test("the package holds the scripts and their parts, and chats in an empty folder", async () => {
  const folder = mkdtempSync(join(tmpdir(), "pipechat-package-"));
  const packed = await run([bun, "pm", "pack", "--destination", folder]);
  expect(packed.code).toBe(0);
  const files = Array.from(packed.stdout.matchAll(/^packed \S+ (\S+)$/gm), ([, file]) => file!);
  const others = files.filter(
    (file) => !/^(parts\/[\w-]+\.ts|(server|worker|client)\.ts)$/.test(file),
  );
  expect(others.sort()).toEqual(["LICENSE", "README.md", "package.json"]);

  const [archive] = new Bun.Glob("*.tgz").scanSync(folder);
  await Bun.write(join(folder, "package.json"), "{}");
  const added = await run([bun, "add", "--silent", join(folder, archive!)], { cwd: folder });
  expect([added.code, added.stderr]).toEqual([0, ""]);
  const bin = (name: string) => join(folder, "node_modules", ".bin", name);
  const child = Bun.spawn([bun, bin("pipechat-server"), "--port", "0"], {
    cwd: folder,
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await watchServer(child);
  using ann = await Client.connect(server, "ann");
  const bot = await run([bun, bin("pipechat"), `:${server.port}`, "bot"], { stdin: "hello\n" });
  expect(bot.code).toBe(0);
  await ann.line("bot: hello");
  rmSync(folder, { recursive: true });
});
