#!/usr/bin/env bun
/**
 * pipechat beside its peers, under the same load: `bun bench/compare.ts --help`.
 *
 * Each server is started anew for each number of receivers in each round, and the rounds are
 * interleaved (A B C A B C …). Beside each server runs a C floor, and the two get the load in turn,
 * second by second and burst by burst: a machine that is slow for a while is so for both. Printed are
 * medians over the rounds, with the largest deviation, also of the ratios to the floor beside it. A
 * line is 80 bytes; everything is on 127.0.0.1.
 *
 * @module
 */
import { appendFileSync } from "node:fs";
import { arch, cpus, loadavg, release, totalmem, type } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Plan, Report } from "./measure.ts";
import { contenders, plain, spawnGroup, startServer, versions } from "./servers.ts";

const peers = Object.keys(contenders).filter((server) => server !== "linked");

const usage = `usage: bun bench/compare.ts [options]
  --servers A,B    which to measure: ${Object.keys(contenders).join(",")} (all but linked)
  --n N,N          numbers of receivers (10,50,100)
  --rounds K       how often each is measured (3)
  --markdown FILE  write a report, too
  --help           print this

With the defaults it takes about 30 minutes on two cores; a round is a third of that.
Keep the machine idle meanwhile: progress goes to stderr, tables to stdout.
`;

function parseOptions(args: string[]) {
  try {
    const text = (value: string) => ({ type: "string", default: value }) as const;
    const { values } = parseArgs({
      args,
      options: {
        servers: text(peers.join(",")),
        n: text("10,50,100"),
        rounds: text("3"),
        markdown: { type: "string" },
        help: { type: "boolean" },
      },
    });
    const whole = (name: string, list: string, least: number) =>
      list.split(",").map((number) => {
        if (/^\d{1,4}$/.test(number) && Number(number) >= least) return Number(number);
        throw new Error(`--${name} takes whole numbers from ${least} to 9999, not '${number}'`);
      });
    const servers = values.servers.split(",");
    for (const name of servers)
      if (!contenders[name]) throw new Error(`there is no server '${name}'`);
    if (values.markdown) appendFileSync(values.markdown, ""); // fails now, not after the last round
    const receivers = whole("n", values.n, 2).sort((a, b) => a - b);
    return { ...values, servers, receivers, rounds: whole("rounds", values.rounds, 1)[0]! };
  } catch (error) {
    process.stderr.write(`compare.ts: ${(error as Error).message} (see --help)\n`);
    process.exit(2);
  }
}

const options = parseOptions(process.argv.slice(2));
if (options.help) {
  process.stdout.write(usage);
  process.exit();
}

// --- Measuring -----------------------------------------------------------------------------------

const floor = "floor";
const limit = "(load alone)"; // the load generator against a plain relay: no server can seem faster
const results = new Map<string, { own: Report; least: Report | undefined }[]>(); // a round each
const notes: string[] = []; // who is missing, and why

/** What was measured for a server, and for the floor beside it; for the floor, beside all of them. */
function resultsOf(server: string, n: number): { own: Report; least: Report | undefined }[] {
  const pairs = (name: string) => results.get(`${name} ${n}`) ?? [];
  if (server !== floor) return pairs(server);
  const all = [limit, ...options.servers].flatMap(pairs);
  return all.flatMap(({ least }) => (least ? { own: least, least } : []));
}

/** What starts each server that there is, but the floor; names those that there are not. */
function commands(): { least: string[] | undefined; others: [string, string[]][] } {
  const found = new Map([[limit, plain]]);
  for (const server of options.servers) {
    const command = contenders[server]!.command(options.receivers.at(-1)!);
    if (typeof command === "string") notes.push(`**${server} is skipped**: ${command}.`);
    else found.set(server, command);
  }
  return { least: found.get(floor), others: [...found].filter(([server]) => server !== floor) };
}

/** Runs the load, in its own process, against a server that is started for it, and the floor. */
async function measure(command: string[], least: string[] | undefined, n: number) {
  const started = [await startServer(command)];
  if (least) started.push(await startServer(least));
  const servers: Plan["servers"] = started.map(({ ports, pid }) => ({ ports, pid, form: "text" }));
  if (command === plain) servers[0]!.form = "name: text";
  const idle = n === options.receivers.at(-1) ? 1 : 0;
  const plan: Plan = { servers, n, seconds: 6, joins: command === plain ? 0 : 5, bursts: 5, idle };
  const script = join(import.meta.dir, "measure.ts");
  const load = spawnGroup([process.execPath, script, JSON.stringify(plan)]);
  const stuck = setTimeout(load.killAll, 120_000 + 500 * n);
  try {
    const report = await load.stdout.text();
    if ((await load.exited) !== 0) throw new Error("its load did not come through");
    const reports = JSON.parse(report, (_, value) => value ?? NaN) as Report[]; // JSON has no NaN
    return { own: reports[0]!, least: reports[1] };
  } finally {
    clearTimeout(stuck);
    await load.killAll();
    for (const server of started) await server.stop();
  }
}

async function measureAll(): Promise<void> {
  const { least, others } = commands();
  for (const note of notes) process.stderr.write(`${note}\n`);
  const weight = (n: number) => 80 + n; // about proportional to the time that N receivers take
  let left =
    options.rounds * others.length * options.receivers.reduce((sum, n) => sum + weight(n), 0);
  let [done, begin] = [0, performance.now()];
  for (let round = 1; round <= options.rounds; round++) {
    for (const n of options.receivers) {
      for (const [server, command] of others) {
        const seconds = done ? ((performance.now() - begin) / 1000 / done) * left : NaN;
        const time = done ? `, ${Math.ceil(seconds / 6) / 10} minutes left` : "";
        process.stderr.write(
          `round ${round} of ${options.rounds}, ${n} receivers: ${server}${time}\n`,
        );
        try {
          const key = `${server} ${n}`;
          results.set(key, [...(results.get(key) ?? []), await measure(command, least, n)]);
        } catch (error) {
          notes.push(
            `**${server} failed** in round ${round}, N = ${n}: ${(error as Error).message}.`,
          );
          process.stderr.write(`${notes.at(-1)}\n`);
        }
        done += weight(n);
        left -= weight(n);
      }
    }
  }
}

// --- Tables --------------------------------------------------------------------------------------

interface Column {
  head: string;
  of: (report: Report) => number;
  /** `count` adds up over the rounds; `ratio` comes with the ratio to the floor; `middle` alone. */
  kind?: "count" | "ratio" | "middle";
}

const latency: Column[] = [
  { head: "first p50", of: ({ latency }) => latency.first.p50 / 1e6 },
  { head: "each p50", of: ({ latency }) => latency.each.p50 / 1e6 },
  { head: "each p99", of: ({ latency }) => latency.each.p99 / 1e6 },
  { head: "last p50", of: ({ latency }) => latency.last.p50 / 1e6, kind: "ratio" },
  { head: "last p99", of: ({ latency }) => latency.last.p99 / 1e6, kind: "ratio" },
  { head: "last max", of: ({ latency }) => latency.last.max / 1e6 },
  { head: "lost", of: ({ latency }) => latency.lost, kind: "count" },
];

const throughput = (run: "one" | "ten"): Column[] => [
  { head: "M lines/s", of: (report) => report[run].perSecond / 1e6, kind: "ratio" },
  { head: "lost", of: (report) => report[run].lost, kind: "count" },
  { head: "out of order", of: (report) => report[run].outOfOrder, kind: "count" },
  { head: "twice", of: (report) => report[run].twice, kind: "count" },
  { head: "load busy %", of: (report) => report[run].busy * 100, kind: "middle" },
];

const cost: Column[] = [
  { head: "join ms", of: ({ joins }) => median(joins) / 1e6, kind: "ratio" },
  { head: "all at once, ms each", of: ({ fill }) => fill / 1e6 },
  { head: "server µs/line", of: ({ cpu }) => cpu.server / 1e3 },
  { head: "workers µs/line", of: ({ cpu }) => cpu.workers / 1e3 },
  { head: "MB each (PSS)", of: ({ pss }) => pss / 2 ** 20 },
  { head: "idle, % of a core", of: ({ idle }) => idle * 100 },
];

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  if (sorted.length === 0) return NaN;
  const middle = (sorted.length - 1) / 2;
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2;
}

/** Three digits that count. */
function digits(value: number): string {
  if (!Number.isFinite(value)) return "–";
  return value >= 100 || value === 0 ? value.toFixed() : value.toPrecision(3);
}

function cells({ of, kind }: Column, server: string, n: number): string[] {
  const pairs = resultsOf(server, n);
  const values = pairs.map(({ own }) => of(own)).filter(Number.isFinite);
  if (kind === "count") return [String(values.reduce((sum, value) => sum + value, 0))];
  if (kind === "middle") return [digits(median(values))];
  if (kind !== "ratio") return [spread(values)];
  const ratios = pairs.map(({ own, least }) => (least ? of(own) / of(least) : NaN));
  return [spread(values), spread(ratios.filter(Number.isFinite))];
}

/** The median, and by how much one value is off at most. */
function spread(values: number[]): string {
  const middle = median(values);
  const off = Math.max(...values.map((value) => Math.abs(value / middle - 1))) * 100;
  return off > 0 ? `${digits(middle)} ±${off.toFixed()}%` : digits(middle);
}

/** An aligned table, which is Markdown, too. */
function table(columns: Column[], n: number, servers: string[]): string {
  const heads = columns.flatMap(({ head, kind }) =>
    kind === "ratio" ? [head, "× floor"] : [head],
  );
  const rows = servers
    .filter((server) => resultsOf(server, n).length > 0)
    .map((server) => [server, ...columns.flatMap((column) => cells(column, server, n))]);
  const widths = ["server", ...heads].map((head, column) =>
    Math.max(...[head, ...rows.map((row) => row[column]!)].map((cell) => Bun.stringWidth(cell))),
  );
  const line = (row: string[]) => {
    const padded = row.map((cell, column) => {
      const space = " ".repeat(widths[column]! - Bun.stringWidth(cell));
      return column === 0 ? cell + space : space + cell;
    });
    return `| ${padded.join(" | ")} |`;
  };
  const rule = widths.map((width, column) =>
    column === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`,
  );
  return [line(["server", ...heads]), line(rule), ...rows.map(line)].join("\n");
}

function tables(): string {
  const parts: string[] = [];
  const add = (title: string, explanation: string, columns: Column[], servers: string[]) => {
    parts.push(`## ${title}\n\n${explanation}`);
    for (const n of options.receivers) parts.push(`N = ${n}\n\n${table(columns, n, servers)}`);
  };
  const all = [...options.servers, limit];
  add(
    "Latency",
    "Ten clients in turn say 50 lines a second; ms from when a line was due until the first, each and the last of N others have it.",
    latency,
    all,
  );
  add(
    "Throughput, one sender",
    "Flat out, until all is delivered to N receivers.",
    throughput("one"),
    all,
  );
  add(
    "Throughput, ten senders",
    "Flat out, until all is delivered to N receivers.",
    throughput("ten"),
    all,
  );
  add(
    "Joining and cost",
    "A newcomer connects, names itself and says a line, until another client has it; all N at once; CPU for each delivered line of the latency table; memory for each connection; CPU of N idle connections.",
    cost,
    options.servers,
  );
  return parts.join("\n\n");
}

// --- The report ----------------------------------------------------------------------------------

// Mermaid draws no legend, so the colours are chosen to be named by these.
const palette: [string, string][] = [
  ["🟥", "#dd2e44"],
  ["⬛", "#31373d"],
  ["🟪", "#aa8ed6"],
  ["🟩", "#78b159"],
  ["🟦", "#55acee"],
  ["🟧", "#f4900c"],
  ["🟫", "#c1694f"],
];

function chart(title: string, axes: string, series: [string, "line" | "bar", number[]][]): string {
  const colours = series.map((_, n) => palette[n % palette.length]!);
  const legend = series.map(([name], n) => `${colours[n]![0]} ${name}`).join("  ");
  const drawn = series.map(([, shape, values]) => `  ${shape} [${values.map(digits).join(", ")}]`);
  return `${series.length > 1 ? `${legend}\n\n` : ""}\`\`\`mermaid
---
config:
  themeVariables:
    xyChart:
      plotColorPalette: "${colours.map(([, colour]) => colour).join(", ")}"
---
xychart-beta
  title "${title}"
${axes}
${drawn.join("\n")}
\`\`\``;
}

function charts(): string {
  const { receivers } = options;
  const complete = options.servers.filter((server) =>
    receivers.every((n) => resultsOf(server, n).length),
  );
  const middle = (server: string, n: number, { of }: Column) =>
    median(resultsOf(server, n).map(({ own }) => of(own)));
  const lastP50 = latency.find(({ head }) => head === "last p50")!;
  const n = receivers[Math.floor(receivers.length / 2)]!;
  return [
    chart(
      "A line until the last of N receivers has it, ms (median)",
      `  x-axis "N" [${receivers.join(", ")}]\n  y-axis "ms"`,
      complete.map((server) => [server, "line", receivers.map((n) => middle(server, n, lastP50))]),
    ),
    chart(
      `Ten senders flat out to ${n} receivers, million lines delivered a second`,
      `  x-axis [${complete.map((name) => `"${name}"`).join(", ")}]\n  y-axis "M lines/s"`,
      [["", "bar", complete.map((server) => middle(server, n, throughput("ten")[0]!))]],
    ),
  ].join("\n\n");
}

function report(): string {
  const [cpu] = cpus();
  const given = options.servers.map((server) => `- **${server}**: ${contenders[server]!.title}`);
  return `# pipechat and its peers

${[
  `${new Date().toISOString().slice(0, 10)}, ${type()} ${release()} ${arch()}`,
  `${cpus().length} cores (${cpu?.model.trim()}), ${(totalmem() / 2 ** 30).toFixed()} GB`,
  ...versions(),
].join("; ")}.

Made by \`bun bench/compare.ts --servers ${options.servers.join(",")} --n ${options.receivers.join(",")} --rounds ${options.rounds}\`:
medians over ${options.rounds} interleaved rounds, ± the largest deviation of a round, and behind what
matters most, the ratio to a C floor that ran beside it and got the load in turn, second by second and
burst by burst. Two servers whose ratios differ by less than their ± are not told apart by this run.
Clients, servers and workers share the cores.

${given.join("\n")}
- **${limit}**: the load generator against a relay that looks at nothing. No server can seem better
  than this; and where its CPU is near 100 % busy, it is the load that limits.

${[...notes, charts(), tables()].join("\n\n")}
`;
}

const load = loadavg()[0]!; // of others: it is measured before we begin
if (load > cpus().length / 4)
  notes.push(`**The machine was busy** before it began: a load average of ${load.toFixed(1)}.`);
await measureAll();
const made = report();
if (options.markdown) await Bun.write(options.markdown, made);
process.stdout.write(`${tables()}\n\n${notes.map((note) => `${note}\n`).join("")}`);
process.exit();
