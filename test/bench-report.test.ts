/** What the benchmark makes of samples and of a report: figures, tables, comparisons, and what the README says. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { type Change, changes, compare } from "../bench/baseline.ts";
import { readmePart, tables } from "../bench/report.ts";
import { type Fault, type Measured, readReport, type Report, schema } from "../bench/schema.ts";
import { bucket, judge, merge, percentile } from "../bench/stats.ts";
import { root, temporaryFolder } from "./helpers.ts";

test("percentiles of known samples are the nearest ranks", () => {
  const thousand = bucket(Array.from({ length: 1000 }, (_, n) => n + 1).reverse());
  const percents = [50, 90, 99, 99.9, 100];
  expect(percents.map((p) => percentile(thousand, p))).toEqual([500, 900, 990, 999, 1000]);
  const skewed = bucket([...Array<number>(99).fill(1), 70]);
  expect(percents.map((p) => percentile(skewed, p))).toEqual([1, 1, 1, 70, 70]);
  expect(percentile(bucket([]), 50)).toBeNaN();
});

test("buckets keep three digits, every sample, and their order", () => {
  const buckets = bucket([123_456, 123_499, 1.5, 999_999, 0.000_012_34, 2]);
  const [least, ...rest] = buckets;
  expect(least).toEqual([0.000_012_3, 1]);
  expect(rest.join(" ")).toBe("1.5,1 2,1 123000,2 1000000,1");
  const merged = merge([buckets, bucket([2, 3])]).slice(1);
  expect(merged.join(" ")).toBe("1.5,1 2,2 3,1 123000,2 1000000,1");
});

// What three rounds cannot tell, ten can.
const [before, after] = [
  [100, 110, 90],
  [85, 95, 80],
];
const often = (rounds: number[]) => [...rounds, ...rounds, ...rounds, rounds[0]!];

test.each([
  ["better", "less", [100, 104, 97], [80, 82, 79]],
  ["worse", "more", [100, 104, 97], [80, 82, 79]],
  ["worse", "less", [100, 104, 97], [120, 123, 119]],
  ["unclear", "less", [100, 104, 97], [93, 88, 96]],
  ["unclear", "less", [100, 100], [50, 50]], // two rounds tell no noise
  ["unclear", "less", [100, 150, 60], [50, 70, 40]],
  ["unclear", "less", [100, 50, 101], [60, 61, 59]],
  ["unclear", "less", before, after],
  ["better", "less", often(before), often(after)],
] as const)("a change is %s, where %s is wanted, from %j to %j", (verdict, wanted, old, now) => {
  expect(judge([...old!], [...now!], wanted)).toBe(verdict);
});

const file = join(temporaryFolder(), "run.json");
const wrong = { lost: 0, twice: 0, outOfOrder: 0, garbled: 0, cut: 0, echoed: 0, cutOff: 0 };

function measured(ms: number): Measured {
  const times = bucket([ms * 1e6, ms * 1.1e6, ms * 2e6]);
  const flood = (name: string) => ({
    ...{ [`${name}, M lines/s`]: 10, [`${name}, load %`]: 95 },
    ...{ [`${name}, server %`]: 100, [`${name}, workers %`]: 30 },
  });
  return {
    ...{ first: times, each: times, last: times, wrong },
    figures: {
      ...{ "join, ms": ms, "all at once, ms": ms, "memory, MB": 4, "idle, %": 1 },
      ...{ "server, µs/line": 10, "workers, µs/line": 70, "CPU, µs/line": 80 },
      ...flood("one"),
      ...flood("ten"),
    },
  };
}

/** A report in which the last client had a line after `ms`, in three rounds, give or take 2 %. */
function madeUp(ms: number): Report {
  const others = {
    ...{ cutOff: 0, lost: 0, gap: 5e7, forGood: false },
    ...{ before: 1e6, during: 2e6, after: 1e6, told: 5e6 },
  };
  const fault: Omit<Fault, "fault"> = {
    server: "a-10-chars",
    ...{ skipped: null, others },
    victim: { cutOff: false, missing: 0, served: 5e6 },
  };
  return {
    schema,
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

const told = ({ n, figure, old, now, verdict }: Change) =>
  `${n}, ${figure}: ${old} to ${now}, ${verdict}`;

test.each([
  [1, "last p50, ms: 2.2 to 1.1, better"],
  [2.5, "join, ms: 2 to 2.5, worse"],
  [2.05, "join, ms: 2 to 2.05, unclear"],
  [1, "ten, M lines/s: 10 to 10, unclear"],
])("where 2 ms have become %d, a baseline says '%s'", (ms, text) => {
  const all = compare(madeUp(2), madeUp(ms)).filter(({ server }) => server !== "floor");
  expect(all.map(told)).toEqual(expect.arrayContaining([`25, ${text}`, `100, ${text}`]));
});

test("a baseline tells of lines that went wrong, and of faults that hurt others, whatever the noise", () => {
  const [good, bad] = [madeUp(1), madeUp(1)];
  good.faults[1]!.others = { ...good.faults[1]!.others!, cutOff: 0, lost: 0 };
  bad.runs[0]!.own.wrong = { ...wrong, lost: 3 };
  const harm = (before: Report, after: Report) =>
    compare(before, after)
      .filter(({ ratio }) => Number.isNaN(ratio))
      .map(told);
  const worse = ["25, went wrong: 0 to 3, worse", "50, hang: 0 to 12394, worse"];
  expect(harm(good, bad)).toEqual(worse);
  const better = ["25, went wrong: 3 to 0, better", "50, hang: 12394 to 0, better"];
  expect(harm(bad, good)).toEqual(better);
});

test("in a terminal nothing is wider than 80 columns, and nothing is an escape code", () => {
  const text = tables(madeUp(1234)) + tables(madeUp(0.123)) + changes(madeUp(1), madeUp(1234));
  expect(text).not.toContain("\x1b");
  expect(text.split("\n").filter((line) => Bun.stringWidth(line) > 80)).toEqual([]);
  expect(text).not.toMatch(/NaN|undefined|null|Infinity/);
});

test("a report of another version is refused", async () => {
  await Bun.write(file, JSON.stringify(madeUp(1)));
  expect(readReport(file)).toEqual(madeUp(1));
  await Bun.write(file, JSON.stringify({ ...madeUp(1), schema: 1 }));
  expect(() => readReport(file)).toThrow(`is not of version ${schema} but of 1: measure again`);
});

test("the README says what the report says", async () => {
  const part = async (file: string) => readmePart.exec(await Bun.file(join(root, file)).text())![0];
  expect(await part("README.md")).toBe(await part("bench/REPORT.md"));
});
