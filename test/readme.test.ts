/** What `--help` prints: the README names it. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { root, run } from "./helpers.ts";

test.each(["server.ts", "client.ts"])(
  "the usage of %s is a screen, and the README names it",
  async (script) => {
    const readme = await Bun.file(join(root, "README.md")).text();
    const { stdout } = await run([process.execPath, script, "-h"]);
    const lines = stdout.split("\n");
    expect(lines.length).toBeLessThanOrEqual(24); // a screen
    expect(lines.filter((line) => line.length > 100)).toEqual([]);
    expect(readme).toContain(`\`bun ${script} --help\` lists`);
  },
);
