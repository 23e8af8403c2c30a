import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { run, temporaryFolder } from "./helpers.ts";

const file = join(temporaryFolder(), "log");

test("a log goes on when its disk has room again, and tells when, how many lines are missing, and news only", async () => {
  await Bun.write(file, new Uint8Array(1024)); // the limit is a block, of 512 or 1024 bytes
  const script = `
    import { truncateSync } from "node:fs";
    import { endLog, log, say } from "./parts/server/log.ts";
    import { Pool } from "./parts/server/pool.ts";
    say("one");
    say("two");
    await endLog(); // which goes on until nothing waits
    truncateSync("${file}");
    log("three");
    const troubles = ["this", "this", "that"]; // why no process can be started
    const spare = { ready: Promise.resolve(true), ended: new Promise(() => {}), kill() {} };
    const start = () => {
      if (troubles.length > 0) throw new Error(troubles.shift());
      return spare;
    };
    setInterval(() => {}, 1e6); // the pool's own timers keep no process alive
    const { signal } = new AbortController();
    await new Pool(start, 0, 1).take({ isUrgent: false, signal });
    await endLog();
    process.exit();`;
  const shell = 'ulimit -f 1; trap "" XFSZ; exec "$0" -e "$1" >> "$2"';
  expect((await run(["sh", "-c", shell, process.execPath, script, file])).code).toBe(0);
  const time = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?= )/gm;
  const text = readFileSync(file, "utf8");
  for (const at of text.match(time)!)
    expect(Math.abs(Date.parse(at) - Date.now())).toBeLessThan(60_000);
  expect(text.replace(time, "").split("\n")).toEqual([
    "(2 lines are missing here)",
    " three",
    " no worker can be started: this, trying again",
    " no worker can be started: that, trying again",
    " workers start again",
    "",
  ]);
});
