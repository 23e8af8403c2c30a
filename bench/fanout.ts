#!/usr/bin/env bun
/**
 * Fan-out latency: one client says a line of 80 bytes; how long until all N others have it? Next to the
 * same chat in one process: the difference is the price of a process per connection. The clients live in
 * this process, so a part of the time is theirs, the same for both servers.
 */
import { flag, readCommandLine } from "../parts/shared/command-line.ts";
import { Room } from "./clients.ts";
import { digits } from "./figures.ts";
import { contenders, startServer } from "./servers.ts";
import { median } from "./stats.ts";
import { type Columns, table, wrap } from "./tables.ts";

const commandLine = {
  head: "usage: bun bench/fanout.ts [options]\n",
  options: { quick: flag("16 receivers only: about 5 s; else about 30 s") },
  tail: `
How long a line of 80 bytes takes until all of 1 to 128 receivers have it, with
a process for each connection, and with one for all.
`,
};
const { quick } = readCommandLine(commandLine, process.argv.slice(2), (values) => values);

const receivers = quick ? [16] : [1, 2, 4, 8, 16, 32, 64, 128];
const rounds = 5; // in each, both servers have their turn
const turn = 300; // ms

const both = contenders.filter(({ name }) => name === "pipechat" || name === "evented");
const servers = await Promise.all(both.map(({ start }) => startServer(start(129))));
const rooms = servers.map((server) => new Room(server));

/** Says a line after the other for a turn. Returns the median time, ms. */
async function measure(room: Room): Promise<number> {
  const times: number[] = [];
  for (const end = performance.now() + turn; performance.now() < end;) {
    const begin = performance.now();
    await room.say(0);
    times.push(performance.now() - begin);
  }
  return median(times);
}

/** Of the rounds' times with processes and with one process. */
const columns: Columns<[number, number][]> = {
  processes: (all) => digits(median(all.map(([processes]) => processes))),
  "one process": (all) => digits(median(all.map(([, one]) => one))),
  ratio: (all) => digits(median(ratios(all))),
  "from – to": (all) =>
    [Math.min(...ratios(all)), Math.max(...ratios(all))].map(digits).join(" – "),
};
const ratios = (all: [number, number][]) => all.map(([processes, one]) => processes / one);

const rows = [];
for (const n of receivers) {
  for (const room of rooms) await room.fill(n + 1).then(() => measure(room)); // warms up
  const of: [number, number][] = [];
  for (let round = 0; round < rounds; round++)
    of.push([await measure(rooms[0]!), await measure(rooms[1]!)]);
  rows.push({ label: `${n}`, of });
}

const explanation =
  `ms until all N receivers have a line, the medians of ${rounds} rounds, in which both servers have their turn; and ` +
  "the ratios of the rounds. Another run may differ by more than these do; bench/compare.ts says more.";
process.stdout.write(`${wrap(explanation)}\n\n${table("N", rows, columns, "text")}\n`);
process.exit();
