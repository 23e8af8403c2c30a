/** What a user installs. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { Client, root, run, Server, temporaryFolder } from "./helpers.ts";

const bun = process.execPath;
const folder = temporaryFolder();

test("the package holds the scripts and their parts, and chats in an empty folder", async () => {
  const pack = [bun, "pm", "pack", "--quiet", "--destination", folder];
  expect((await run(pack)).code).toBe(0);
  const [archive] = new Bun.Glob("*.tgz").scanSync(folder);
  await Bun.write(join(folder, "package.json"), "{}");
  const added = await run([bun, "add", "--silent", join(folder, archive!)], { cwd: folder });
  expect([added.code, added.stderr]).toEqual([0, ""]);
  const installed = new Bun.Glob("**/*").scanSync(join(folder, "node_modules/pipechat"));
  const parts = new Bun.Glob("parts/**/*.{ts,c}").scanSync(root);
  const others = ["server.ts", "worker.ts", "client.ts", "start.sh", "LICENSE", "README.md"];
  expect([...installed].sort()).toEqual([...parts, ...others, "package.json"].sort());

  // --bun: the scripts ask for a bun in PATH, which may have none.
  const bunx = [bun, "x", "--bun", "--no-install"];
  const child = Bun.spawn([...bunx, "pipechat-server", "--port", "0"], {
    cwd: folder,
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await new Server(child).listens();
  using ann = await Client.connect(server, "ann");
  const readme = await Bun.file(join(root, "README.md")).text();
  const bot = [...bunx, "pipechat", `:${server.port}`, "bot"];
  const { code, stderr } = await run(bot, { cwd: folder, stdin: "hello\n" });
  expect([code, stderr]).toEqual([0, ""]);
  await ann.line("bot: hello");
  for (const [command, script] of [
    ["pipechat", "client.ts"],
    ["pipechat-server", "server.ts"],
  ] as const) {
    const { stdout } = await run([...bunx, command, "-h"], { cwd: folder });
    expect(stdout).toContain(`usage: bunx ${command} [options]`);
    expect(stdout).not.toMatch(/bun \w+\.ts|.{101}/);
    expect(stdout.split("\n").length).toBeLessThanOrEqual(24); // a screen
    expect(readme).toContain(`\`bun ${script} --help\` lists`);
    const installed = join(folder, "node_modules/.bin", command);
    const lacking = await run(["env", "PATH=", "/bin/sh", installed]);
    expect([lacking.code, lacking.stdout]).toEqual([127, ""]);
    expect(lacking.stderr).toMatch(new RegExp(`^${script}: it runs on Bun, [^\n]*\n$`));
  }
  expect(await server.stop()).toBe(0);
});
