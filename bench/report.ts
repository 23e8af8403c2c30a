/**
 * What is made of a report: tables for the terminal, a Markdown file with charts, and the part of it
 * that the README has, too. Their text is in template.md.
 */
import { clients, kinds, titleOf } from "./faults.ts";
import * as figures from "./figures.ts";
import { count, digits, limit, type Rounds, roundsOf } from "./figures.ts";
import type { Entry, Fault, Report, Wrong } from "./schema.ts";
import { sum } from "./stats.ts";
import { type Columns, fill, type Style, table, template, wrap } from "./tables.ts";

/** `1 round`, `3 rounds`. */
export const counted = (value: number, noun: string): string =>
  `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** What was measured with N receivers, and how it is shown. */
const measured = (report: Report, n: number) =>
  [...report.servers, { name: limit, mark: "", colour: "" }]
    .map((server) => ({ ...server, label: labelOf(server), of: roundsOf(report, server.name, n) }))
    .filter(({ of }) => of.length > 0);

const labelOf = ({ mark, name }: Pick<Entry, "mark" | "name">) => `${mark} ${name}`.trim();

const wrongs: Record<keyof Wrong, string> = {
  ...{ lost: "lost", twice: "twice", outOfOrder: "order", garbled: "garbled", cut: "cut" },
  ...{ echoed: "echoed", cutOff: "cut off" },
};

/** What went wrong in all rounds, by kind. */
export const wrongIn = (rounds: Rounds): number[] =>
  Object.keys(wrongs).map((kind) => sum(rounds.map(({ own }) => own.wrong[kind as keyof Wrong])));

const ms = (ns: number) => digits(ns / 1e6);
const msOr = (none: string, ns: number | null) => (Number.isFinite(ns) ? ms(ns!) : none);

const othersColumns: Columns<NonNullable<Fault["others"]>> = {
  "cut off": (of) => count(of.cutOff),
  lost: (of) => count(of.lost),
  gap: (of) => (of.forGood ? "for good" : ms(of.gap)),
  before: (of) => msOr("lost", of.before),
  during: (of) => msOr("lost", of.during),
  after: (of) => msOr("lost", of.after),
  told: (of) => msOr("–", of.told),
};

const victimColumns: Columns<NonNullable<Fault["victim"]>> = {
  "cut off": (of) => (of.cutOff ? "yes" : "no"),
  missing: (of) => count(of.missing),
  "served again": (of) => msOr("never", of.served),
};

/** What a kind of fault did to the others, and to its victim. */
function faultTables({ servers, faults, options }: Report, kind: string, style: Style): string[] {
  const all = servers.flatMap((server) =>
    faults
      .filter(({ fault, server: name, others }) => fault === kind && name === server.name && others)
      .map(({ others, victim }) => ({ label: labelOf(server), others: others!, victim })),
  );
  const others = all.map(({ label, others }) => ({ label, of: others }));
  const victims = all.flatMap(({ label, victim }) => (victim ? [{ label, of: victim }] : []));
  const title = titleOf(kind, options.seconds).replace(/^./, (first) => first.toUpperCase());
  const caption = `${title}: the other ${clients - (victims.length > 0 ? 1 : 0)}`;
  const first = table("server", others, othersColumns, style, caption);
  return [first, table("server", victims, victimColumns, style, "… and itself")];
}

/** The worst that the others noticed of a fault, in a few words. */
function noticed({ others }: Partial<Fault> = {}): string {
  if (!others) return "–";
  if (others.cutOff > 0) return `${others.cutOff} cut off`;
  if (others.forGood) return "silence for good";
  if (others.lost > 0) return `${counted(others.lost, "line")} lost`;
  return others.gap >= 1e9 ? `${digits(others.gap / 1e9)} s` : `${Math.round(others.gap / 1e6)} ms`;
}

type Value = (server: string, at: number) => number;

/** A chart with a line for each server that has a value for each x; what the template needs of it. */
function chart(servers: Entry[], key: string, x: string[], value: Value): Record<string, string> {
  const lines = servers
    .map((server) => ({ ...server, values: x.map((_, at) => value(server.name, at)) }))
    .filter(({ values }) => values.length > 0 && values.every(Number.isFinite));
  const plain = (value: number) => String(Number(value.toPrecision(3)));
  return {
    [`${key}Marks`]: lines.map(labelOf).join(", "), // Mermaid draws no legend
    [`${key}Colours`]: lines.map(({ colour }) => colour).join(", "),
    [`${key}X`]: x.map((label) => `"${label}"`).join(", "),
    [`${key}Most`]: plain(Math.max(...lines.flatMap(({ values }) => values)) * 1.05),
    [`${key}Lines`]: lines.map((of) => `  line [${of.values.map(plain).join(", ")}]`).join("\n"),
  };
}

function charts(report: Report): Record<string, string> {
  const { servers, options } = report;
  const { n } = options;
  const percents = Object.entries(figures.percents);
  // Mermaid sets its points at equal distances: only where the N have such, the chart tells the truth.
  const isEven = n.every((value, at) => at === 0 || value - n[at - 1]! === n[1]! - n[0]!);
  const growth = isEven && n.length > 1 ? n.map((n) => `N = ${n}`) : [];
  const rounds = (server: string, at: number) => roundsOf(report, server, n.at(at)!);
  const heads = percents.map(([head]) => head);
  return {
    ...chart(servers, "growth", growth, (name, at) => figures.last(50)(rounds(name, at))),
    ...chart(servers, "flatOut", growth, (name, at) => figures.flatOut(rounds(name, at))),
    ...chart(servers, "percentile", heads, (name, at) =>
      figures.last(percents[at]![1])(rounds(name, -1)),
    ),
  };
}

/** What the README has of a report, too. */
export const readmePart = /<!-- bench:begin -->.*<!-- bench:end -->/s;

/** What the template needs. */
function understand(report: Report, style: Style): Record<string, string | number> {
  const { made, machine, options, faults, servers, versions, notes, runs } = report;
  const { n, only, seconds } = options;
  const [few, many] = [n[0]!, n.at(-1)!];
  const list = (texts: string[]) => texts.filter(Boolean).join("\n\n");
  const of = (section: string, ...shown: string[]) => {
    const isShown = only.some((one) => [section, ...shown].includes(one));
    const isServer = ({ name }: { name: string }) => section !== "cost" || name !== limit;
    const tables = (n: number) =>
      Object.entries(figures.layouts(machine.cores)[section]!).map(([caption, columns]) => {
        const servers = measured(report, n).filter(isServer);
        return table("server", servers, columns, style, caption.replace("{n}", `${n}`));
      });
    return isShown ? list(n.flatMap(tables)) : "";
  };
  const wrong = n.flatMap((n) =>
    measured(report, n)
      .map(({ label, of }) => ({ label, of: [n, ...wrongIn(of)] }))
      .filter(({ of: [, ...counts] }) => counts.some(Boolean)),
  );
  const wrongColumns = ["N", ...Object.values(wrongs)].map(
    (head, at): [string, (all: number[]) => string] => [head, (all) => count(all[at]!)],
  );
  const hurt = faults.filter(({ others }) => others);
  const happened = Object.keys(kinds).filter((kind) => hurt.some(({ fault }) => fault === kind));
  const benefits = servers
    .filter(({ name }) => hurt.some(({ server }) => server === name))
    .map((server): [string, (kind: string) => string] => [
      labelOf(server),
      (kind) => noticed(hurt.find((of) => of.server === server.name && of.fault === kind)),
    ]);
  const ends = few < many ? [few, many] : [few];
  const costs = measured(report, many)
    .filter(({ name }) => name !== limit)
    .map(({ name, label }) => ({ label, of: ends.map((n) => roundsOf(report, name, n)) }));
  const skipped = faults.filter(({ skipped }) => skipped);
  return {
    ...machine,
    ...options,
    ...{ clients, many, n: n.join(), only: only.join(), during: seconds / 2 },
    made: made.slice(0, 10),
    os: machine.system.split(" ")[0]!,
    cores: counted(machine.cores, "core"),
    memory: (machine.memory / 2 ** 30).toFixed(),
    versions: versions.join("; "),
    names: servers.map(({ name }) => name).join(","),
    ...{ roundCount: options.rounds, rateCount: options.rate },
    rounds: counted(options.rounds, "round"),
    rate: counted(options.rate, "line"),
    ends: ends.join(" / "),
    servers: servers.map((of) => `- ${of.mark} **${of.name}**: ${of.title}`).join("\n"),
    load: `\n- **${limit}**: the load against a relay that looks at nothing, its limit`,
    notes: list(notes.map((note) => wrap(`**Note**: ${note}.`, 110))),
    costs: table("what it costs", costs, figures.shortColumns, style),
    benefits: table(
      "what it buys: to one client, …",
      happened.map((kind) => ({ label: titleOf(kind, seconds), of: kind })),
      Object.fromEntries(benefits),
      style,
    ),
    latency: of("latency"),
    throughput: of("throughput"),
    cost: of("cost", "join"),
    ran: runs.length,
    right: runs.length > 0 && wrong.length === 0 ? 1 : 0,
    wrong: table("server", wrong, Object.fromEntries(wrongColumns), style),
    faults: list(happened.flatMap((kind) => faultTables(report, kind, style))),
    skipped: skipped.map((of) => `${of.server}, ${of.fault}: ${of.skipped}`).join("; "),
    ...charts(report),
  };
}

/** The report as a Markdown file. */
export const markdown = (report: Report): string =>
  fill(template, understand(report, "markdown"), "markdown");

/** The report for a terminal: what is behind its charts. */
export function tables(report: Report): string {
  const parts = template.slice(template.indexOf("\n## {if latency}"));
  const notes = report.notes.map((note) => `\n${wrap(note)}\n`).join("");
  return `\n${fill(parts, understand(report, "text"), "text")}${notes}`;
}
