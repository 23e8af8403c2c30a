/** The benchmark's statistics, on samples of which they are known. */
import { expect, test } from "bun:test";
import { bucket, judge, merge, percentile } from "../bench/stats.ts";

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
