/** What the README says about the server's options is what `--help` prints. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { root, run } from "./helpers.ts";

for (const script of ["server.ts", "client.ts"]) {
  test(`the usage of ${script} is a screen, and the README has it or names it`, async () => {
    const readme = await Bun.file(join(root, "README.md")).text();
    const { stdout } = await run([process.execPath, script, "-h"]);
    const lines = stdout.split("\n");
    expect(lines.length).toBeLessThanOrEqual(24); // a screen
    expect(lines.filter((line) => line.length > 100)).toEqual([]);
    if (script === "client.ts") expect(readme).toContain("`bun client.ts --help` lists");
    else expect(readme).toContain(`$ bun ${script} --help\n${stdout.trimEnd()}\n`);
  });
}
