#!/usr/bin/env bun
/**
 * Measures a server that runs, or two in turn, from the first client to the last line; `compare.ts`
 * starts it, once for each server, number of receivers and round.
 *
 *     bun bench/measure.ts '{"servers":[{"ports":[2000],"pid":4242,"form":"text"}],
 *       "n":50,"seconds":2,"joins":5,"bursts":3,"idle":1}'
 *
 * prints a {@link Report} for each as JSON. All times are in nanoseconds.
 *
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { type Form, fill, join, openFlood, openLoop, openRoom } from "./load.ts";

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

// --- One server, or two in turn ------------------------------------------------------------------

/** What to measure: servers that run, and what their clients send. */
export interface Plan {
  servers: { ports: number[]; pid: number; form: Form }[];
  /** Receivers. */
  n: number;
  /** Of the open loop. */
  seconds: number;
  joins: number;
  /** Flat out, of one sender and of ten. */
  bursts: number;
  /** Seconds without a line. */
  idle: number;
}

/** What came of it, for one server. */
export type Report = Awaited<ReturnType<typeof measure>>[number];

/** Everything is done to one server and then to the other: what slows the machine slows both. */
async function measure({ servers, n, seconds, joins, bursts, idle }: Plan) {
  const sides = [];
  for (const { ports, pid, form } of servers) {
    const room = openRoom(ports, form);
    await Bun.sleep(300); // a spare worker may be starting
    const empty = memory(pid);
    const fillTook = await fill(room, n + 1);
    await openLoop(room).run(0.5); // warms up
    await Bun.sleep(300);
    const pss = (memory(pid) - empty) / (n + 1); // bytes a connection
    const before = cpuTime(pid);
    await Bun.sleep(idle * 1000);
    const after = cpuTime(pid);
    const busy = after.server + after.workers - before.server - before.workers;
    sides.push({
      room,
      pid,
      loop: openLoop(room),
      one: openFlood(room, 1),
      ten: openFlood(room, Math.min(10, n)),
      cpu: { server: 0, workers: 0 }, // ns, for all lines of the loop
      report: {
        fill: fillTook / (n - 1), // a client, when they all come at once
        joins: [] as number[],
        pss,
        idle: idle ? busy / (idle * 1e9) : NaN, // of one core
      },
    });
  }
  for (let second = 0; second < seconds; second++) {
    for (const { loop, pid, cpu } of sides) {
      const before = cpuTime(pid);
      await loop.run(1);
      const after = cpuTime(pid);
      cpu.server += after.server - before.server;
      cpu.workers += after.workers - before.workers;
    }
  }
  for (let nth = 0; nth < joins; nth++)
    for (const { room, report } of sides) report.joins.push(await join(room));
  for (const senders of ["one", "ten"] as const)
    for (let nth = 0; nth < bursts; nth++) for (const side of sides) await side[senders].run();
  return sides.map(({ loop, cpu, report, one, ten }) => {
    const latency = loop.report();
    const { delivered } = latency;
    const perLine = { server: cpu.server / delivered, workers: cpu.workers / delivered };
    return { ...report, latency, cpu: perLine, one: one.report(), ten: ten.report() };
  });
}

if (import.meta.main) {
  const reports = await measure(JSON.parse(process.argv[2]!) as Plan);
  process.stdout.write(JSON.stringify(reports));
  process.exit();
}
