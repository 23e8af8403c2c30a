/** What the README says about the options is what `--help` prints. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { root, run } from "./helpers.ts";

test("the README has the options that the server has", async () => {
  const readme = await Bun.file(join(root, "README.md")).text();
  const { stdout } = await run([process.execPath, "server.ts", "--help"]);
  expect(readme).toContain(stdout.trimEnd());
});
