/** The figures of a server's rounds, for tables, charts and comparisons alike. */
import type { Measured, Report } from "./schema.ts";
import { deviation, median, merge, percentile } from "./stats.ts";
import type { Columns } from "./tables.ts";

/** The load generator against a plain relay: no server can seem faster. */
export const limit = "(load alone)";

/** A server's rounds with N receivers, each with the floor's beside it. */
export type Rounds = { own: Measured; floor: Measured | null }[];

/** The rounds of a server; the floor's are those beside all the others. */
export function roundsOf(report: Report, server: string, n: number): Rounds {
  const runs = report.runs.filter((run) => run.n === n);
  if (server !== "floor") return runs.filter((run) => run.server === server);
  return runs.flatMap(({ floor }) => (floor ? [{ own: floor, floor }] : []));
}

/** The times of all rounds together. */
type Whose = "first" | "each" | "last";

/** A percentile of the times of all rounds together, ms. */
function latencyOf(rounds: Rounds, whose: Whose, percent: number): number {
  return percentile(merge(rounds.map(({ own }) => own[whose])), percent) / 1e6;
}

/** A figure of a round by its name; NaN if it was not measured. Those of times are `last p50, ms`. */
function figureOf(measured: Measured, name: string): number {
  const [, whose, percent] = /^(first|each|last) p(\d+), ms$/.exec(name) ?? [];
  if (whose) return latencyOf([{ own: measured, floor: null }], whose as Whose, Number(percent));
  return measured.figures[name] ?? NaN;
}

/** A figure in each round, where it was measured. */
export const values = (rounds: Rounds, name: string): number[] =>
  rounds.map(({ own }) => figureOf(own, name)).filter(Number.isFinite);

/** The same as ratios to the floor beside it: what slows the machine slows both. */
export const ratios = (rounds: Rounds, name: string): number[] =>
  rounds
    .map(({ own, floor }) => (floor ? figureOf(own, name) / figureOf(floor, name) : NaN))
    .filter(Number.isFinite);

/** What two runs are compared by; less is better, but for lines a second. */
export const compared = [
  ...["first p50, ms", "each p50, ms", "last p50, ms", "last p99, ms", "one, M lines/s"],
  ...["ten, M lines/s", "join, ms", "all at once, ms", "CPU, µs/line", "memory, MB"],
];

/** Three digits that count; `–` for what was not measured. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return Math.abs(value) >= 100 || value === 0 ? value.toFixed() : value.toPrecision(3);
}

/** A number of things. */
export const count = (value: number): string =>
  Number.isFinite(value) ? Math.round(value).toLocaleString("en") : "–";

/** A part of one as a percentage, for noise. */
export const percent = (value: number): string =>
  Number.isFinite(value) ? `±${(value * 100).toFixed()}%` : "–";

/** The median, and by how much one value is off at most. */
function spread(values: number[]): string {
  const off = deviation(values);
  return off >= 0.005 ? `${digits(median(values))} ${percent(off)}` : digits(median(values));
}

const middle = (name: string) => (rounds: Rounds) => median(values(rounds, name));
const cell = (name: string) => (rounds: Rounds) => digits(middle(name)(rounds));
const ratio = (name: string) => (rounds: Rounds) => spread(ratios(rounds, name));

/** Which percentiles are shown. */
export const percents = { p50: 50, p90: 90, p99: 99, "p99.9": 99.9, max: 100 };

/** Until the last receiver has a line, ms; and lines a second flat out, in millions. */
export const last = (percent: number) => (rounds: Rounds) => latencyOf(rounds, "last", percent);
export const flatOut = middle("ten, M lines/s");

function latencyColumns(whose: Whose): Columns<Rounds> {
  const columns = Object.entries(percents).map(([head, percent]) => [
    ...[head, (rounds: Rounds) => digits(latencyOf(rounds, whose, percent))],
  ]);
  return {
    ...Object.fromEntries(columns),
    "p50 / floor": ratio(`${whose} p50, ms`),
    "p99 / floor": ratio(`${whose} p99, ms`),
  };
}

function throughputColumns(senders: "one" | "ten", cores: number): Columns<Rounds> {
  const cpu = (side: string) => middle(`${senders}, ${side} %`);
  const [load, server, workers] = [cpu("load"), cpu("server"), cpu("workers")];
  /** Who had no time left: the load, the server's first process, or all cores together. */
  function busy(rounds: Rounds): string {
    if (Number.isNaN(server(rounds))) return "–"; // perhaps it was the server
    const full = Object.entries({ load, server }).filter(([, used]) => used(rounds) >= 90);
    if (full.length > 0) return full.map(([side]) => side).join(", ");
    return load(rounds) + server(rounds) + workers(rounds) >= 90 * cores ? "all cores" : "–";
  }
  return {
    "M lines/s": (rounds) => spread(values(rounds, `${senders}, M lines/s`)),
    "/ floor": ratio(`${senders}, M lines/s`),
    load: (rounds) => count(load(rounds)),
    server: (rounds) => count(server(rounds)),
    workers: (rounds) => count(workers(rounds)),
    busy,
  };
}

/** The tables of a section, by their captions. */
export const layouts = (cores: number): Record<string, Record<string, Columns<Rounds>>> => ({
  latency: {
    "Until the first of {n} has it, ms": latencyColumns("first"),
    "Until each of {n} has it, ms": latencyColumns("each"),
    "Until the last of {n} has it, ms": latencyColumns("last"),
  },
  throughput: {
    "One sender, {n} receivers": throughputColumns("one", cores),
    "Ten senders, {n} receivers": throughputColumns("ten", cores),
  },
  cost: {
    "N = {n}": {
      ...{ "join ms": cell("join, ms"), "/ floor": ratio("join, ms") },
      ...{ "all ms": cell("all at once, ms"), "server µs": cell("server, µs/line") },
      ...{
        "others µs": cell("workers, µs/line"),
        MB: cell("memory, MB"),
        "idle %": cell("idle, %"),
      },
    },
  },
});

/** Of the rounds with the fewest and the most receivers, or one of them. */
const ends = (of: (rounds: Rounds) => number) => (all: Rounds[]) =>
  all.map((rounds) => digits(of(rounds))).join(" / ");

/** The README's table. */
export const shortColumns: Columns<Rounds[]> = {
  "ms until the last client has a line (median)": ends(last(50)),
  "99 of 100 within": ends(last(99)),
  "flat out, M lines/s": ends(flatOut),
  "join, ms": (all) => cell("join, ms")(all.at(-1)!),
  "MB a connection": (all) => cell("memory, MB")(all.at(-1)!),
};
