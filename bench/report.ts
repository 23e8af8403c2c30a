/**
 * What is made of a report: tables for the terminal, a Markdown file with charts, and the part of it
 * that the README has, too.
 *
 * @module
 */
import { clients, kinds } from "./faults.ts";
import * as charts from "./charts.ts";
import * as figures from "./figures.ts";
import {
  type Figure,
  headOf,
  limit,
  percents,
  ratios,
  runsOf,
  serversOf,
  times,
  values,
  type Whose,
} from "./figures.ts";
import type { Fault, Report, Wrong } from "./schema.ts";
import { contenders } from "./servers.ts";
import { deviation, median, percentile } from "./stats.ts";

// --- Numbers and words ---------------------------------------------------------------------------

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

/** `1 round`, `3 rounds`. */
export const counted = (value: number, noun: string): string =>
  `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** How long it will still take. */
export function timeLeft(seconds: number): string {
  const minutes = Math.round(seconds / 60);
  return minutes < 1 ? "less than a minute left" : `${counted(minutes, "minute")} left`;
}

/** The median, and by how much one value is off at most. */
function spread(values: number[]): string {
  const off = deviation(values);
  return off >= 0.005 ? `${digits(median(values))} ${percent(off)}` : digits(median(values));
}

// --- Tables --------------------------------------------------------------------------------------

/** A part of the report: tables under a title. The first row of a table is its head. */
export interface Part {
  title: string;
  explanation: string;
  tables: { caption: string; rows: string[][] }[];
}

/** Which columns have numbers; they stand to the right. */
const numeric = (rows: string[][]) =>
  rows[0]!.map((_, at) => at > 0 && rows.slice(1).some((row) => /^[\d–±]/.test(row[at]!)));

/** Cells of the same width in a column. */
function aligned(rows: string[][]): string[][] {
  // Three at least: as Prettier has it.
  const width = (at: number) => Math.max(3, ...rows.map((row) => Bun.stringWidth(row[at]!)));
  const widths = rows[0]!.map((_, at) => width(at));
  const right = numeric(rows);
  return rows.map((row) =>
    row.map((cell, at) => {
      const space = " ".repeat(widths[at]! - Bun.stringWidth(cell));
      return right[at] ? space + cell : cell + space;
    }),
  );
}

/** A table in Markdown. */
function asTable(rows: string[][]): string {
  const [head, ...rest] = aligned(rows);
  const right = numeric(rows);
  const rule = head!.map((cell, at) => {
    const width = Bun.stringWidth(cell);
    return right[at] ? `${"-".repeat(width - 1)}:` : "-".repeat(width);
  });
  return [head!, rule, ...rest].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

function asMarkdown({ title, explanation, tables }: Part): string {
  const shown = tables.flatMap(({ caption, rows }) => [caption, asTable(rows)]);
  return [`## ${title}`, prose(explanation), ...shown].filter(Boolean).join("\n\n");
}

/** A part for a terminal of 80 columns. */
export function asText({ title, explanation, tables }: Part): string {
  const shown = tables.flatMap(({ caption, rows }) => [
    ...(caption ? ["", caption] : [""]),
    ...aligned(rows).map((cells) => cells.join("  ").trimEnd()),
  ]);
  return `\n${title}\n${"=".repeat(Bun.stringWidth(title))}\n${wrapped(explanation, 80)}\n${shown.join("\n")}\n`;
}

/** A paragraph in lines of so many columns; a terminal has 80, and our Markdown has 110. */
function wrapped(text: string, columns: number): string {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = `${lines.at(-1)} ${word}`.trimStart();
    if (Bun.stringWidth(line) <= columns) lines[lines.length - 1] = line;
    else lines.push(word);
  }
  return lines.join("\n");
}

const prose = (text: string) => wrapped(text, 110);

const marked = (report: Report) =>
  new Map(report.servers.map(({ name, mark }) => [name, `${mark} ${name}`]));

function named(report: Report): [server: string, label: string][] {
  const marks = marked(report);
  return [...report.servers.map(({ name }) => name), limit].map((server) => [
    server,
    marks.get(server) ?? server,
  ]);
}

/** A table with a row for each server that was measured with N receivers. */
function byServer(
  report: Report,
  n: number,
  columns: [head: string, cell: (server: string) => string][],
  { least = true } = {},
): string[][] {
  const servers = named(report).filter(
    ([server]) => runsOf(report, server, n).length > 0 && (least || server !== limit),
  );
  return [
    ["server", ...columns.map(([head]) => head)],
    ...servers.map(([server, label]) => [label, ...columns.map(([, cell]) => cell(server))]),
  ];
}

function latencyPart(report: Report): Part {
  const whose: [Whose, string][] = [
    ["first", "the first of"],
    ["each", "each of"],
    ["last", "the last of"],
  ];
  const { rate, size } = report.options;
  return {
    title: "Latency",
    explanation:
      `Ten clients in turn say ${counted(rate, "line")} of ${size} bytes a second; ms from when a line was due until N ` +
      "others have it. Percentiles are those of all rounds together; with fewer than 1,000 lines, p99.9 is the max. " +
      "Lines that were lost are not in them, but in “What went wrong”.",
    tables: report.options.n.flatMap((n) =>
      whose.map(([key, words]) => ({
        caption: `Until ${words} ${n} has it, ms`,
        rows: byServer(report, n, [
          ...percents.map((percent): [string, (server: string) => string] => [
            headOf(percent),
            (server) => digits(percentile(times(report, server, n, key), percent) / 1e6),
          ]),
          ["p50 × floor", (server) => spread(ratios(report, server, n, figures.latency(key, 50)))],
          ["p99 × floor", (server) => spread(ratios(report, server, n, figures.latency(key, 99)))],
        ]),
      })),
    ),
  };
}

/** Which side had no time left in a burst: the load, the server's first process, or all cores. */
function busy(report: Report, server: string, n: number, senders: "one" | "ten"): string {
  const of = (side: "load" | "server" | "workers") =>
    median(values(report, server, n, figures.share(senders, side)));
  if (of("load") >= 90) return "load";
  if (of("server") >= 90) return "server";
  const all = of("load") + of("server") + of("workers");
  return all >= 90 * report.machine.cores ? "all cores" : "–";
}

function throughputPart(report: Report): Part {
  const { n: receivers, size } = report.options;
  return {
    title: "Throughput",
    explanation:
      `Flat out, lines of ${size} bytes, until all is delivered to N receivers. CPU is that of the load, of the ` +
      "server's first process and of those that it has started, in % of a core; and who was busy: where it is the " +
      "load, the server can do more.",
    tables: receivers.flatMap((n) =>
      (["one", "ten"] as const).map((senders) => {
        const of = figures.throughput(senders);
        const cpu = (side: "load" | "server" | "workers") => (server: string) =>
          count(median(values(report, server, n, figures.share(senders, side))));
        const speakers = senders === "one" ? "One sender" : `${Math.min(10, n)} senders`;
        return {
          caption: `${speakers}, ${n} receivers`,
          rows: byServer(report, n, [
            ["M lines/s", (server) => spread(values(report, server, n, of))],
            ["× floor", (server) => spread(ratios(report, server, n, of))],
            ["load", cpu("load")],
            ["server", cpu("server")],
            ["workers", cpu("workers")],
            ["busy", (server) => busy(report, server, n, senders)],
          ]),
        };
      }),
    ),
  };
}

function costPart(report: Report): Part {
  const { only } = report.options;
  return {
    title: "Joining and cost",
    explanation:
      "Join: a newcomer connects, names itself and says a line, until another client has it; all: for each when all N " +
      "come at once. CPU for each line delivered at the rate above, of the server's first process and of the others; " +
      "memory for each connection (PSS); CPU while N clients are silent, % of a core.",
    tables: report.options.n.map((n) => ({
      caption: `N = ${n}`,
      rows: byServer(
        report,
        n,
        [
          ...(only.includes("join")
            ? [
                [
                  "join ms",
                  (server: string) => digits(median(values(report, server, n, figures.join))),
                ] as [string, (server: string) => string],
                [
                  "× floor",
                  (server: string) => spread(ratios(report, server, n, figures.join)),
                ] as [string, (server: string) => string],
              ]
            : []),
          ["all ms", (server) => digits(median(values(report, server, n, figures.fill)))],
          ...(only.includes("cost")
            ? ([
                ["server µs", figures.serverCpu],
                ["others µs", figures.workersCpu],
                ["MB", figures.memory],
                ["idle %", figures.idle],
              ].map(([head, of]) => [
                head,
                (server: string) => digits(median(values(report, server, n, of as Figure))),
              ]) as [string, (server: string) => string][])
            : []),
        ],
        { least: false },
      ),
    })),
  };
}

function wrongPart(report: Report): Part {
  const kinds: [keyof Wrong, string][] = [
    ["lost", "lost"],
    ["twice", "twice"],
    ["outOfOrder", "order"],
    ["garbled", "garbled"],
    ["cut", "cut"],
    ["cutOff", "cut off"],
  ];
  const rows = named(report).flatMap(([server, label]) =>
    report.options.n.flatMap((n) => {
      const all = runsOf(report, server, n).flatMap(({ own: { latency, one, ten } }) =>
        [latency, one, ten].flatMap((measured) => (measured ? [measured.wrong] : [])),
      );
      const sums = kinds.map(([kind]) => all.reduce((sum, wrong) => sum + wrong[kind], 0));
      return sums.some(Boolean) ? [[label, String(n), ...sums.map(count)]] : [];
    }),
  );
  return {
    title: "What went wrong",
    explanation:
      rows.length === 0
        ? "Nothing: no line was lost, repeated, reordered, garbled or cut, and no client was cut off."
        : "Deliveries in all rounds, of which some were lost, came twice, came after a later line, garbled or cut; and clients that were cut off.",
    tables:
      rows.length === 0
        ? []
        : [{ caption: "", rows: [["server", "N", ...kinds.map(([, head]) => head)], ...rows] }],
  };
}

// --- Faults --------------------------------------------------------------------------------------

const ms = (ns: number | null | undefined) => digits((ns ?? NaN) / 1e6);
const duration = (ns: number) =>
  ns >= 1e9 ? `${digits(ns / 1e9)} s` : `${Math.round(ns / 1e6)} ms`;

function faultsPart(report: Report): Part {
  const lost = (ns: number | null) => (ns === null ? "lost" : ms(ns));
  const tables = Object.entries(kinds).flatMap(([key, { title, hasVictim }]) => {
    const all = report.faults.filter(({ fault, others }) => fault === key && others);
    if (all.length === 0) return [];
    const marks = marked(report);
    const others = all.map(({ server, others: of }) => [
      marks.get(server)!,
      count(of!.cutOff),
      count(of!.lost),
      of!.forGood ? "for good" : ms(of!.gap),
      ...[of!.before, of!.during, of!.after].map(lost),
      of!.told === null ? "–" : ms(of!.told),
    ]);
    const victims = all.map(({ server, victim }) => [
      marks.get(server)!,
      victim?.cutOff ? "yes" : "no",
      count(victim?.missing ?? NaN),
      victim?.served === null ? "never" : ms(victim?.served),
    ]);
    const head = ["server", "cut off", "lost", "gap", "before", "during", "after", "told"];
    const caption = `${title[0]!.toUpperCase()}${title.slice(1)}: the other ${clients - (hasVictim ? 1 : 0)}`;
    return [
      { caption, rows: [head, ...others] },
      ...(hasVictim
        ? [
            {
              caption: "… and itself",
              rows: [["server", "cut off", "missing", "served again"], ...victims],
            },
          ]
        : []),
    ];
  });
  const skipped = report.faults.filter(({ skipped }) => skipped);
  const why = skipped.map(({ server, fault, skipped }) => `${server}, ${fault}: ${skipped}. `);
  return {
    title: "What a fault costs",
    explanation:
      `${clients} clients chat at 50 lines a second, and something happens to one of them; the server is not told. Of ` +
      "the others: clients cut off, lines lost, the longest time without a line, p99 of their lines that were due " +
      "before, during and after, and when they were told; of itself: lines of the others that it missed, and when it " +
      "was served again, if need be on a new connection. Times in ms, one run each; for `kill`, during is the 2 s " +
      "after it. When it reads nothing, the others say 200 lines of 4,000 bytes a second; when 200 connect, these say nothing. Servers have the limits that " +
      `they have by default. ${why.join("")}`.trimEnd(),
    tables,
  };
}

/** The worst that the others notice of a fault, in a few words. */
function noticed({ others, skipped }: Fault): string {
  if (skipped || !others) return "–";
  if (others.cutOff > 0) return `${others.cutOff} cut off`;
  if (others.forGood) return "silence for good";
  if (others.lost > 0) return `${counted(others.lost, "line")} lost`;
  return duration(others.gap);
}

// --- The README's part ---------------------------------------------------------------------------

const [begin, end] = ["<!-- bench:begin -->", "<!-- bench:end -->"];

/** What stands between the markers. Throws an error if there are none. */
export function readmePart(text: string): string {
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`there is no ${begin} … ${end}`);
  return text.slice(from + begin.length, to);
}

/** The same text with another part between its markers. */
export function replacePart(text: string, part: string): string {
  return text.replace(begin + readmePart(text) + end, () => begin + part + end);
}

function inShort(report: Report): string {
  const { n, rate, size, rounds } = report.options;
  const [few, many] = [n[0]!, n.at(-1)!];
  const { machine } = report;
  const pair = (of: (n: number) => number) =>
    few === many ? digits(of(few)) : `${digits(of(few))} / ${digits(of(many))}`;
  const last = (server: string, percent: number) => (n: number) =>
    percentile(times(report, server, n, "last"), percent) / 1e6;
  const middle = (server: string, of: Figure) => (n: number) =>
    median(values(report, server, n, of));
  const parts = [
    prose(
      `Measured on ${report.made.slice(0, 10)} with ${counted(machine.cores, "core")} (${machine.processor}, ` +
        `${machine.system.split(" ")[0]}) in ${counted(rounds, "round")}: ${counted(rate, "line")} of ${size} bytes a ` +
        `second to ${few === many ? few : `${few} / ${many}`} clients. Clients and servers share the cores.`,
    ),
    report.servers.map(({ mark, name, title }) => `- ${mark} **${name}**: ${title}`).join("\n"),
  ];
  if (report.runs.length > 0) {
    const rows = named(report)
      .filter(([server]) => server !== limit && runsOf(report, server, many).length > 0)
      .map(([server, label]) => [
        label,
        pair(last(server, 50)),
        pair(last(server, 99)),
        pair(middle(server, figures.throughput("ten"))),
        digits(middle(server, figures.join)(many)),
        digits(middle(server, figures.memory)(many)),
      ]);
    const head = [
      "what it costs",
      "the last client has a line after, ms: median",
      "99 of 100 within",
      "flat out, M lines/s",
      "join, ms",
      "MB a connection",
    ];
    parts.push(asTable([head, ...rows]), charts.latencyChart(report));
  }
  const seen = serversOf(report).filter((server) =>
    report.faults.some((fault) => fault.server === server && fault.others),
  );
  if (seen.length > 0) {
    const marks = marked(report);
    const rows = Object.entries(kinds).flatMap(([key, { title }]) => {
      const cells = seen.map((server) => {
        const fault = report.faults.find((of) => of.server === server && of.fault === key);
        return fault ? noticed(fault) : "–";
      });
      return cells.every((cell) => cell === "–") ? [] : [[title, ...cells]];
    });
    parts.push(
      prose(
        `Now something happens to one of ${clients} clients that chat. A cell is what the others notice: how many were ` +
          "cut off or how many lines they lost; if there were none, the longest silence. 20 ms is normal. Each server has its default limits.",
      ),
      asTable([
        ["what it buys: to one client, …", ...seen.map((server) => marks.get(server)!)],
        ...rows,
      ]),
    );
  }
  return parts.filter(Boolean).join("\n\n");
}

// --- The whole -----------------------------------------------------------------------------------

function parts(report: Report): Part[] {
  const { only } = report.options;
  const ran = report.runs.length > 0;
  return [
    ...(ran && only.includes("latency") ? [latencyPart(report)] : []),
    ...(ran && only.includes("throughput") ? [throughputPart(report)] : []),
    ...(ran && (only.includes("join") || only.includes("cost")) ? [costPart(report)] : []),
    ...(ran ? [wrongPart(report)] : []),
    ...(report.faults.length > 0 ? [faultsPart(report)] : []),
  ];
}

/** The report for a terminal. */
export const tables = (report: Report): string =>
  [...parts(report).map(asText), ...report.notes.map((note) => `\n${wrapped(note, 80)}\n`)].join(
    "",
  );

/** What measures the same again. */
function command({ servers, options }: Report): string {
  const own = servers.filter(({ name }) => !contenders[name]).map(({ title }) => title);
  const rest = own.length > 0 ? ` # and ${own.join(", ")}` : "";
  const builtIn = servers.map(({ name }) => name).filter((name) => contenders[name]);
  const flags = (["n", "rate", "size", "seconds", "rounds", "only"] as const).map(
    (key) => `--${key} ${String(options[key])}`,
  );
  const all = [`--servers ${builtIn.join(",") || "none"}`, ...flags];
  return `bun bench/compare.ts \\\n  ${all.slice(0, 4).join(" ")} \\\n  ${all.slice(4).join(" ")}${rest}`;
}

/** The report as a Markdown file. */
export function markdown(report: Report): string {
  const { machine, options } = report;
  const given = report.servers.map(({ name, mark, title }) => `- ${mark} **${name}**: ${title}`);
  const all = [
    "# pipechat and its peers",
    prose(
      `${report.made.slice(0, 10)}, ${machine.system}; ${counted(machine.cores, "core")} (${machine.processor}), ` +
        `${(machine.memory / 2 ** 30).toFixed()} GB; ${report.versions.join("; ")}.`,
    ),
    `Made by\n\n\`\`\`sh\n${command(report)}\n\`\`\``,
    prose(
      `A value is the median over ${counted(options.rounds, "round")}, ± the largest deviation of one, and × floor ` +
        "its ratio to a C floor that ran beside it and got the load in turn, second by second and burst by burst. Two " +
        "servers whose ratios differ by less than their ± are not told apart by this run. Clients, servers and workers " +
        "share the cores.",
    ),
    [...given, `- **${limit}**: the load against a relay that looks at nothing, its limit`].join(
      "\n",
    ),
    ...report.notes.map((note) => prose(`**Note**: ${note}.`)),
    "## In short",
    `${begin}\n\n${inShort(report)}\n\n${end}`,
    charts.percentilesChart(report),
    charts.throughputChart(report),
    charts.faultsChart(report),
    ...parts(report).map(asMarkdown),
  ];
  return `${all.filter(Boolean).join("\n\n")}\n`;
}
