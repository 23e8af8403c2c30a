#!/usr/bin/env bun
/**
 * Measures a server that runs, or two in turn, from the first client to the last line; `compare.ts`
 * starts it, once for each server, number of receivers and round, and once for each fault.
 *
 *     bun bench/measure.ts '{"servers":[{"host":"127.0.0.1","ports":[2000],"pid":4242,"form":"text"}],
 *       "n":50,"rate":50,"size":80,"seconds":2,"joins":5,"bursts":3,"idle":1}'
 *
 * prints a {@link Measured} for each as JSON, or `{ "error": … }`.
 *
 * @module
 */
import { type Address, fill, openRoom } from "./clients.ts";
import { join, openFlood, openLoop } from "./load.ts";
import type { Measured } from "./schema.ts";
import { cpuTime, memory } from "./system.ts";

/** A server that runs; without a process of ours, what it costs is not known. */
export interface Target extends Address {
  pid?: number;
}

/** What to measure: servers that run, and what their clients send. */
export interface Plan {
  servers: Target[];
  /** Receivers. */
  n: number;
  /** Lines a second of the open loop. */
  rate: number;
  /** Bytes in a line. */
  size: number;
  /** Of the open loop; 0 leaves it out, and so for the rest. */
  seconds: number;
  joins: number;
  /** Flat out, of one sender and of ten. */
  bursts: number;
  /** Seconds without a line. */
  idle: number;
}

const add = (cpu: ReturnType<typeof cpuTime>) => (cpu ? cpu.server + cpu.workers : undefined);

/** A server with a room full of clients. */
async function openSide(target: Target, { n, rate, size, seconds, bursts, idle }: Plan) {
  const { pid } = target;
  const room = openRoom(target, size);
  const cost = pid === undefined ? undefined : { cpu: () => cpuTime(pid), held: () => memory(pid) };
  await Bun.sleep(300); // a spare worker may be starting
  const empty = cost?.held();
  const fillTook = await fill(room, n + 1);
  await openLoop(room, rate).run(0.5); // warms up
  await Bun.sleep(300);
  const held = cost?.held();
  const before = add(cost?.cpu());
  await Bun.sleep(idle * 1000);
  const after = add(cost?.cpu());
  const cpu = { server: 0, workers: 0 }; // ns, for all lines of the loop
  const loop = openLoop(room, rate);
  const cpuOf = () => cost?.cpu();
  const [one, ten] = [openFlood(room, 1, cpuOf), openFlood(room, Math.min(10, n), cpuOf)];
  const joins: number[] = [];

  /** A second of the open loop, with what it costs the server. */
  async function talk(): Promise<void> {
    const before = cost?.cpu();
    await loop.run(1);
    const after = cost?.cpu();
    cpu.server += after && before ? after.server - before.server : NaN;
    cpu.workers += after && before ? after.workers - before.workers : NaN;
  }

  function report(): Measured {
    const latency = loop.report();
    const known = (value: number) => (Number.isFinite(value) ? value : null);
    return {
      latency: seconds ? latency : null,
      one: bursts ? one.report() : null,
      ten: bursts ? ten.report() : null,
      joins: joins.length > 0 ? joins : null,
      fill: fillTook / (n - 1),
      cost: cost
        ? {
            server: known(cpu.server / latency.delivered),
            workers: known(cpu.workers / latency.delivered),
            memory: held !== undefined && empty !== undefined ? (held - empty) / (n + 1) : null,
            idle: idle && after !== undefined ? (after - before!) / (idle * 1e9) : null,
          }
        : null,
    };
  }

  return { talk, join: async () => void joins.push(await join(room)), one, ten, report };
}

/** Everything is done to one server and then to the other: what slows the machine slows both. */
async function measure(plan: Plan): Promise<Measured[]> {
  const sides = [];
  for (const target of plan.servers) sides.push(await openSide(target, plan));
  for (let second = 0; second < plan.seconds; second++) for (const side of sides) await side.talk();
  for (let nth = 0; nth < plan.joins; nth++) for (const side of sides) await side.join();
  for (const senders of ["one", "ten"] as const)
    for (let nth = 0; nth < plan.bursts; nth++) for (const side of sides) await side[senders].run();
  return sides.map(({ report }) => report());
}

if (import.meta.main) {
  const result = await measure(JSON.parse(process.argv[2]!) as Plan).catch((error: Error) => ({
    error: error.message,
  }));
  process.stdout.write(JSON.stringify(result), () => process.exit());
}
