/** The benchmark's statistics, on samples of which they are known. */
import { expect, test } from "bun:test";
import { bucket, judge, merge, percentile } from "../bench/stats.ts";

test("percentiles of known samples are the nearest ranks", () => {
  const thousand = bucket(Array.from({ length: 1000 }, (_, n) => n + 1).reverse());
  expect([50, 90, 99, 99.9, 100].map((p) => percentile(thousand, p))).toEqual([
    500, 900, 990, 999, 1000,
  ]);
  const skewed = bucket([...Array<number>(99).fill(1), 70]);
  expect([50, 99, 99.9, 100].map((p) => percentile(skewed, p))).toEqual([1, 1, 70, 70]);
  expect(percentile(bucket([42]), 50)).toBe(42);
  expect(percentile(bucket([]), 50)).toBeNaN();
});

test("buckets keep three digits, every sample, and their order", () => {
  const samples = [123_456, 123_499, 1.5, 999_999, 0.000_012_34, 2];
  const buckets = bucket(samples);
  expect(buckets).toEqual([
    [0.000_012_3, 1],
    [1.5, 1],
    [2, 1],
    [123_000, 2],
    [1_000_000, 1],
  ]);
  expect(merge([buckets, bucket([2, 3])])).toEqual([
    ...buckets.slice(0, 2),
    [2, 2],
    [3, 1],
    ...buckets.slice(3),
  ]);
});

test("a change is told only where chance would rarely make one like it", () => {
  const old = [100, 104, 97];
  expect(judge(old, [80, 82, 79], "less")).toBe("better");
  expect(judge(old, [80, 82, 79], "more")).toBe("worse");
  expect(judge(old, [120, 123, 119], "less")).toBe("worse");
  expect(judge(old, [96, 103, 99], "less")).toBe("unclear");
  expect(judge(old, [93, 88, 96], "less")).toBe("unclear");
  expect(judge([100, 100], [50, 50], "less")).toBe("unclear"); // two rounds tell no noise
  expect(judge([100, 150, 60], [50, 70, 40], "less")).toBe("unclear");
  expect(judge([100, 50, 101], [60, 61, 59], "less")).toBe("unclear");
  // What three rounds cannot tell, ten can.
  const [before, after] = [
    [100, 110, 90],
    [85, 95, 80],
  ];
  expect(judge(before, after, "less")).toBe("unclear");
  const often = (rounds: number[]) => [...rounds, ...rounds, ...rounds, rounds[0]!];
  expect(judge(often(before), often(after), "less")).toBe("better");
});
