import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root, temporaryFolder } from "./helpers.ts";

const FILE = join(temporaryFolder(), "log");

/** What a script logs to a file that is full already, until the script makes room. */
async function logOf(script: string): Promise<string> {
  await Bun.write(FILE, new Uint8Array(1024)); // the limit is a block, of 512 or 1024 bytes
  const shell = 'ulimit -f 1; trap "" XFSZ; exec "$0" -e "$1" >> "$FILE"';
  const all = `
    import { truncateSync } from "node:fs";
    import { endLog, say } from "./parts/server/log.ts";
    import { Pool } from "./parts/server/pool.ts";
    const makeRoom = () => truncateSync(process.env.FILE);
    ${script}
    await endLog();
    process.exit();`;
  const env = { ...process.env, FILE };
  const child = Bun.spawn(["sh", "-c", shell, process.execPath, all], { cwd: root, env });
  expect(await child.exited).toBe(0);
  return readFileSync(FILE, "utf8");
}

test("a log that could not be written goes on when there is room, and says what is missing", async () => {
  const script = `
    say("one");
    say("two");
    await endLog(); // which goes on until nothing waits
    makeRoom();
    say("three");`;
  expect(await logOf(script)).toBe("(2 lines are missing here)\nthree\n");
});

test("why no process can be started is logged when that changes, and when they start again", async () => {
  const script = `
    makeRoom();
    const troubles = ["this", "this", "that"];
    const spare = { ready: Promise.resolve(true), ended: new Promise(() => {}), kill() {} };
    const start = () => {
      if (troubles.length > 0) throw new Error(troubles.shift());
      return spare;
    };
    setInterval(() => {}, 1e6); // the pool's own timers keep no process alive
    const { signal } = new AbortController();
    await new Pool(start, 0, 1).take({ isUrgent: false, signal });`;
  const events = (await logOf(script)).replace(/^\S+ \S+ /gm, "").split("\n");
  expect(events).toEqual([
    "no worker can be started: this, trying again",
    "no worker can be started: that, trying again",
    "workers start again",
    "",
  ]);
});
