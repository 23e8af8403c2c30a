/** The start: what cannot work is refused then, in one line that says what to do. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { patience, run } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;

test("bun --hot is refused: it cannot replace a running server", async () => {
  const { code, stdout, stderr } = await run([bun, "--hot", "server.ts", "--port", "0"]);
  expect([code, stdout]).toEqual([2, ""]);
  expect(stderr).toBe(
    "server.ts: --hot cannot replace a running server: use --watch, or restart it\n",
  );
});
