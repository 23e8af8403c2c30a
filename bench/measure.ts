#!/usr/bin/env bun
/**
 * Measures one server that runs, from the first client to the last line; `compare.ts` starts it, once
 * for each server, number of receivers and round.
 *
 *     bun bench/measure.ts '{"ports":[2000],"pid":4242,"form":"text","n":50,"seconds":2,"joins":5,"idle":1}'
 *
 * prints a {@link Report} as JSON. All times are in nanoseconds.
 *
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { type Form, fill, flatOut, join, openLoop, openRoom } from "./load.ts";

// --- What it costs the server, from Linux's /proc ------------------------------------------------

/** A server, and whatever it has started. */
function family(pid: number): number[] {
  const all = Bun.spawnSync(["ps", "-A", "-o", "pid=,ppid="])
    .stdout.toString()
    .matchAll(/(\d+) +(\d+)/g);
  const pairs = Array.from(all, ([, child, parent]) => [Number(child), Number(parent)] as const);
  const below = (pid: number): number[] =>
    pairs.flatMap(([child, parent]) => (parent === pid ? [child, ...below(child)] : []));
  return [pid, ...below(pid)];
}

/** CPU time, in ns, of a server and of its workers together. To the ns: /proc/PID/stat has 10 ms. */
function cpuTime(pid: number): { server: number; workers: number } {
  const [server = 0, ...workers] = family(pid).map((process) => {
    let sum = 0;
    try {
      for (const thread of readdirSync(`/proc/${process}/task`))
        sum += parseInt(readFileSync(`/proc/${process}/task/${thread}/schedstat`, "utf8"));
    } catch {
      // It has ended, as a spare may; or this is not Linux.
    }
    return sum;
  });
  return { server, workers: workers.reduce((sum, time) => sum + time, 0) };
}

/** Memory that a server and its workers hold, in bytes; what they share counts once (PSS). */
function memory(pid: number): number {
  const kilobytes = family(pid).map((process) => {
    try {
      const [, size] = /^Pss: +(\d+)/m.exec(readFileSync(`/proc/${process}/smaps_rollup`, "utf8"))!;
      return Number(size);
    } catch {
      return 0;
    }
  });
  return 1024 * kilobytes.reduce((sum, size) => sum + size, 0);
}

// --- One server, from the first client to the last line ------------------------------------------

/** What to do: the server's ports and process, receivers, seconds of the open loop and of idleness. */
export interface Plan {
  ports: number[];
  pid: number;
  form: Form;
  n: number;
  seconds: number;
  joins: number;
  idle: number;
}

/** What came of it. */
export type Report = Awaited<ReturnType<typeof measure>>;

async function measure({ ports, pid, form, n, seconds, joins, idle }: Plan) {
  const room = openRoom(ports, form);
  await Bun.sleep(300); // a spare worker may be starting
  const empty = memory(pid);
  const fillTook = await fill(room, n + 1);
  await openLoop(room, 0.5); // warms up
  await Bun.sleep(300);
  const pss = (memory(pid) - empty) / (n + 1);
  const before = cpuTime(pid);
  await Bun.sleep(idle * 1000);
  const between = cpuTime(pid);
  const latency = await openLoop(room, seconds);
  const after = cpuTime(pid);
  const idleTime = between.server + between.workers - before.server - before.workers;
  const joined: number[] = [];
  while (joined.length < joins) joined.push(await join(room));
  return {
    fill: fillTook / (n - 1), // a client, when they all come at once
    joins: joined,
    pss, // bytes a connection
    idle: idle ? idleTime / (idle * 1e9) : NaN, // of one core
    latency,
    cpu: {
      server: (after.server - between.server) / latency.delivered, // ns a delivered line
      workers: (after.workers - between.workers) / latency.delivered,
    },
    one: await flatOut(room, 1),
    ten: await flatOut(room, Math.min(10, n)),
  };
}

if (import.meta.main) {
  const report = await measure(JSON.parse(process.argv[2]!) as Plan);
  process.stdout.write(JSON.stringify(report));
  process.exit();
}
