/** What the benchmark makes of a report: tables, charts, comparisons, and what the README says. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { changes, compare } from "../bench/baseline.ts";
import { counted, markdown, readmePart, tables, timeLeft } from "../bench/report.ts";
import {
  checkReport,
  type Fault,
  type Flood,
  type Measured,
  type Report,
} from "../bench/schema.ts";
import { bucket } from "../bench/stats.ts";
import { root } from "./helpers.ts";

const wrong = { lost: 0, twice: 0, outOfOrder: 0, garbled: 0, cut: 0, cutOff: 0 };

function measured(ms: number): Measured {
  const times = bucket([ms * 1e6, ms * 1.1e6, ms * 2e6]);
  const flood: Flood = { took: 3e8, delivered: 3e6, load: 0.5, server: 1, workers: 0.3, wrong };
  return {
    latency: { first: times, each: times, last: times, late: times, delivered: 3, wrong },
    one: flood,
    ten: flood,
    joins: [ms * 1e6],
    fill: ms * 1e6,
    cost: { server: 1e4, workers: 7e4, memory: 4e6, idle: 0.01 },
  };
}

/** A report in which the last client had a line after `ms`, in three rounds, give or take 2 %. */
function madeUp(ms: number): Report {
  const others = {
    ...{ count: 49, cutOff: 0, expected: 9999, lost: 0, gap: 5e7, forGood: false },
    ...{ before: 1e6, during: 2e6, after: 1e6, told: 5e6 },
  };
  const fault: Omit<Fault, "fault"> = {
    server: "a-10-chars",
    ...{ skipped: null, lasted: 2e9, others },
    victim: { cutOff: false, missing: 0, served: 5e6 },
  };
  return {
    schema: 1,
    made: "2026-01-02T03:04:05.678Z",
    machine: { system: "Linux 6 x64", processor: "CPU", cores: 2, memory: 2 ** 34, busy: 0.1 },
    versions: ["Bun 1.4.5"],
    options: {
      ...{ n: [25, 100], rate: 50, size: 80, seconds: 4, rounds: 3 },
      only: ["latency", "throughput", "join", "cost", "faults"],
    },
    servers: [
      { name: "a-10-chars", title: "mine", mark: "🟨", colour: "#e3b505" },
      { name: "floor", title: "C", mark: "🟫", colour: "#a0603f" },
    ],
    runs: [25, 100].flatMap((n) =>
      [0.98, 1, 1.02].map((noise, at) => ({
        ...{ round: at + 1, server: "a-10-chars", n },
        ...{ own: measured(ms * noise), floor: measured(1) },
      })),
    ),
    faults: [
      { ...fault, fault: "kill" },
      { ...fault, fault: "hang", others: { ...others, cutOff: 49, lost: 12_345, forGood: true } },
      { ...fault, fault: "silent clients", victim: null },
    ],
    notes: ["nothing else was measured"],
  };
}

test("a baseline says for each figure what got better or worse, or that it cannot be told", () => {
  const verdicts = (now: number, figure: string) =>
    compare(madeUp(2), madeUp(now))
      .filter((change) => change.figure === figure && change.server !== "floor")
      .map(({ n, old, now, verdict }) => [n, old, now, verdict]);
  expect(verdicts(1, "last p50, ms")).toEqual([
    [25, 2.2, 1.1, "better"],
    [100, 2.2, 1.1, "better"],
  ]);
  expect(verdicts(2.5, "join, ms").map((row) => row[3])).toEqual(["worse", "worse"]);
  expect(verdicts(2.05, "join, ms").map((row) => row[3])).toEqual([
    "cannot be told",
    "cannot be told",
  ]);
  expect(verdicts(1, "ten, M lines/s").map((row) => row[3])).toEqual([
    "cannot be told",
    "cannot be told",
  ]);
});

test("a baseline tells of lines that went wrong, and of faults that hurt others, whatever the noise", () => {
  const [good, bad] = [madeUp(1), madeUp(1)];
  good.faults[1]!.others = { ...good.faults[1]!.others!, cutOff: 0, lost: 0 };
  bad.runs[0]!.own.one = { ...bad.runs[0]!.own.one!, wrong: { ...wrong, lost: 3 } };
  const harm = (before: Report, after: Report) =>
    compare(before, after)
      .filter(({ ratio }) => Number.isNaN(ratio))
      .map(({ figure, old, now, verdict }) => [figure, old, now, verdict]);
  expect(harm(good, bad)).toEqual([
    ["went wrong", 0, 3, "worse"],
    ["hang", 0, 12_394, "worse"],
  ]);
  expect(harm(bad, good).map((row) => row[3])).toEqual(["better", "better"]);
  expect(harm(good, good)).toEqual([]);
});

test("in a terminal nothing is wider than 80 columns, and nothing is an escape code", () => {
  const text = tables(madeUp(1234)) + tables(madeUp(0.123)) + changes(madeUp(1), madeUp(1234));
  expect(text).not.toContain("\x1b");
  expect(text.split("\n").filter((line) => Bun.stringWidth(line) > 80)).toEqual([]);
  expect(text).not.toMatch(/NaN|undefined|null|Infinity/);
});

test("a report is one that the schema takes, and a spoilt one is not", () => {
  expect(checkReport(JSON.parse(JSON.stringify(madeUp(1))))).toEqual(madeUp(1));
  const spoilt = (change: (report: any) => void) => () => {
    const report = madeUp(1);
    change(report);
    checkReport(report);
  };
  expect(spoilt((report) => (report.schema = 2))).toThrow("report.schema is 2");
  expect(spoilt((report) => delete report.machine.cores)).toThrow("report.machine.cores");
  expect(spoilt((report) => (report.runs[0].own.fill = null))).toThrow("report.runs[0].own.fill");
  expect(spoilt((report) => (report.more = 1))).toThrow("report.more is not known");
  expect(spoilt((report) => report.runs[0].own.latency.first.reverse())).toThrow(
    ".latency.first[1]",
  );
});

test("each chart begins at 0, and a server has one colour in all of them", () => {
  const text = markdown(madeUp(1));
  const charts = text.match(/^xychart-beta$/gm)!.length;
  expect(charts).toBe(4);
  expect(text.match(/^ {2}y-axis ".*" 0 --> [\d.]+$/gm)).toHaveLength(charts);
  expect(text.match(/plotColorPalette: "#e3b505/g)).toHaveLength(charts);
  expect(text).not.toMatch(/NaN|undefined|Infinity/);
});

test("the README says what the report says", async () => {
  const part = async (...path: string[]) => readmePart(await Bun.file(join(root, ...path)).text());
  expect(await part("README.md")).toBe(await part("bench", "REPORT.md"));
});

test("the time that is left, and numbers of things, are plain English", () => {
  expect([20, 61, 149, 3000].map(timeLeft)).toEqual([
    "less than a minute left",
    "1 minute left",
    "2 minutes left",
    "50 minutes left",
  ]);
  expect([counted(1, "round"), counted(3, "round"), counted(0, "line")]).toEqual([
    "1 round",
    "3 rounds",
    "0 lines",
  ]);
});
