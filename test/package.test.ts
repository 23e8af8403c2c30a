/** What a user installs. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { Client, patience, root, run, temporaryFolder, testWith } from "./helpers.ts";
import { watchServer } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;
const folder = temporaryFolder();

/** Checks that these files are the scripts, their parts, and what one has to know about them. */
function expectPackage(files: string[]): void {
  const parts = Array.from(new Bun.Glob("parts/**/*.{ts,c}").scanSync(root));
  const scripts = ["server.ts", "worker.ts", "client.ts", "start.sh"];
  const others = ["LICENSE", "README.md", "package.json"];
  expect(files.toSorted()).toEqual([...parts, ...scripts, ...others].sort());
}

test("the package holds the scripts and their parts, and chats in an empty folder", async () => {
  const packed = await run([bun, "pm", "pack", "--destination", folder]);
  expect(packed.code).toBe(0);
  expectPackage(Array.from(packed.stdout.matchAll(/^packed \S+ (\S+)$/gm), ([, file]) => file!));

  const [archive] = new Bun.Glob("*.tgz").scanSync(folder);
  await Bun.write(join(folder, "package.json"), "{}");
  const added = await run([bun, "add", "--silent", join(folder, archive!)], { cwd: folder });
  expect([added.code, added.stderr]).toEqual([0, ""]);
  // --bun: the scripts ask for a bun in PATH, which may have none.
  const bunx = [bun, "x", "--bun", "--no-install"];
  const child = Bun.spawn([...bunx, "pipechat-server", "--port", "0"], {
    cwd: folder,
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await watchServer(child);
  using ann = await Client.connect(server, "ann");
  const bot = await run([...bunx, "pipechat", `:${server.port}`, "bot"], {
    cwd: folder,
    stdin: "hello\n",
  });
  expect([bot.code, bot.stderr]).toEqual([0, ""]);
  await ann.line("bot: hello");
  for (const command of ["pipechat", "pipechat-server"]) {
    const { stdout } = await run([...bunx, command, "--help"], { cwd: folder });
    expect(stdout).toContain(`usage: bunx ${command} [options]`);
    expect(stdout).not.toMatch(/bun \w+\.ts/);
    const installed = join(folder, "node_modules/.bin", command);
    const lacking = await run(["env", "PATH=", "/bin/sh", installed]);
    const script = command === "pipechat" ? "client.ts" : "server.ts";
    expect([lacking.code, lacking.stdout]).toEqual([127, ""]);
    expect(lacking.stderr).toMatch(new RegExp(`^${script}: it runs on Bun, [^\n]*\n$`));
  }
  expect(await server.stop()).toBe(0);
});

testWith("npm", "what npm packs")("npm packs the same files as Bun", async () => {
  const { code, stdout } = await run(["npm", "pack", "--dry-run", "--json"]);
  expect(code).toBe(0);
  const [{ files }] = JSON.parse(stdout);
  expectPackage(files.map((file: { path: string }) => file.path));
});
