/**
 * The figures of a report: what is taken from each round, for tables, charts and comparisons alike.
 *
 * @module
 */
import type { Flood, Measured, Report } from "./schema.ts";
import { type Buckets, median, merge, percentile } from "./stats.ts";

/** The load generator against a plain relay: no server can seem faster. */
export const limit = "(load alone)";

/** What was measured, by name. */
export const serversOf = (report: Report): string[] => report.servers.map(({ name }) => name);

/** A server's rounds with N receivers; the floor's are those beside all the others. */
export function runsOf(
  report: Report,
  server: string,
  n: number,
): { own: Measured; floor: Measured | null }[] {
  const runs = report.runs.filter((run) => run.n === n);
  if (server !== "floor") return runs.filter((run) => run.server === server);
  return runs.flatMap(({ floor }) => (floor ? [{ own: floor, floor }] : []));
}

/** A figure in the unit that it is shown in; NaN if it was not measured. */
export type Figure = (measured: Measured) => number;

/** A figure in each round, where it was measured. */
export const values = (report: Report, server: string, n: number, figure: Figure): number[] =>
  runsOf(report, server, n)
    .map(({ own }) => figure(own))
    .filter(Number.isFinite);

/** The same as ratios to the floor beside it: what slows the machine slows both. */
export const ratios = (report: Report, server: string, n: number, figure: Figure): number[] =>
  runsOf(report, server, n)
    .map(({ own, floor }) => (floor ? figure(own) / figure(floor) : NaN))
    .filter(Number.isFinite);

/** Whose times: the first receiver's of a line, each one's, the last one's. */
export type Whose = "first" | "each" | "last";

/** The times of all rounds together, ns. */
export const times = (report: Report, server: string, n: number, whose: Whose): Buckets =>
  merge(runsOf(report, server, n).map(({ own }) => own.latency?.[whose] ?? []));

/** Which percentiles are shown, and under what name. */
export const percents = [50, 90, 99, 99.9, 100];
export const headOf = (percent: number) => (percent === 100 ? "max" : `p${percent}`);

/** A percentile of a round, ms. */
export const latency =
  (whose: Whose, percent: number): Figure =>
  (measured) =>
    percentile(measured.latency?.[whose] ?? [], percent) / 1e6;

const orNaN = (value: number | null | undefined): number => value ?? NaN;

/** Million lines delivered a second, of one sender or ten. */
export const throughput =
  (senders: "one" | "ten"): Figure =>
  (measured) => {
    const flood = measured[senders];
    return flood ? (flood.delivered / flood.took) * 1e3 : NaN;
  };

/** A part of a burst, in percent of a core. */
export const share =
  (senders: "one" | "ten", side: keyof Pick<Flood, "load" | "server" | "workers">): Figure =>
  (measured) =>
    orNaN(measured[senders]?.[side]) * 100;

/** Until another client has a newcomer's first line, ms. */
export const join: Figure = ({ joins }) => median(joins ?? []) / 1e6;
/** For each client when all come at once, ms. */
export const fill: Figure = (measured) => measured.fill / 1e6;
/** CPU for each line delivered, µs. */
export const serverCpu: Figure = ({ cost }) => orNaN(cost?.server) / 1e3;
export const workersCpu: Figure = ({ cost }) => orNaN(cost?.workers) / 1e3;
/** Memory for each connection, MB. */
export const memory: Figure = ({ cost }) => orNaN(cost?.memory) / 2 ** 20;
/** CPU while nobody speaks, percent of a core. */
export const idle: Figure = ({ cost }) => orNaN(cost?.idle) * 100;

/** What two runs are compared by. */
export const compared: { name: string; wanted: "less" | "more"; of: Figure }[] = [
  { name: "first p50, ms", wanted: "less", of: latency("first", 50) },
  { name: "each p50, ms", wanted: "less", of: latency("each", 50) },
  { name: "last p50, ms", wanted: "less", of: latency("last", 50) },
  { name: "last p99, ms", wanted: "less", of: latency("last", 99) },
  { name: "one, M lines/s", wanted: "more", of: throughput("one") },
  { name: "ten, M lines/s", wanted: "more", of: throughput("ten") },
  { name: "join, ms", wanted: "less", of: join },
  { name: "all at once, ms", wanted: "less", of: fill },
  { name: "CPU, µs/line", wanted: "less", of: (all) => serverCpu(all) + workersCpu(all) },
  { name: "memory, MB", wanted: "less", of: memory },
];
