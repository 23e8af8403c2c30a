/**
 * What is made of samples: distributions, percentiles, medians, noise, and whether a change can be told
 * from it. Pure; the values may have any unit.
 */

/** Values with three significant digits, each with how often it came; in ascending order. */
export type Buckets = [value: number, count: number][];

/** Sorts samples into buckets. What is not finite is left out. */
export const bucket = (samples: number[]): Buckets =>
  merge([samples.filter(Number.isFinite).map((value) => [Number(value.toPrecision(3)), 1])]);

/** One distribution of several. */
export function merge(all: Buckets[]): Buckets {
  const counts = new Map<number, number>();
  for (const [value, count] of all.flat()) counts.set(value, (counts.get(value) ?? 0) + count);
  return [...counts].sort(([a], [b]) => a - b);
}

export const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);
const mean = (values: number[]) => sum(values) / values.length;

/**
 * The nearest rank: the least value that at least `percent` of all samples do not exceed. NaN if there
 * is no sample. With fewer than 1,000 samples, p99.9 is the largest one.
 */
export function percentile(buckets: Buckets, percent: number): number {
  const all = sum(buckets.map(([, count]) => count));
  let rank = Math.max(1, Math.ceil((all * percent) / 100 - 1e-9));
  return buckets.find(([, count]) => (rank -= count) <= 0)?.[0] ?? NaN;
}

/** The middle value, or the mean of the middle two; NaN of none. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return mean([Math.floor(middle), Math.ceil(middle)].map((at) => sorted[at] ?? NaN));
}

/** By how much one value is off the median at most, as a part of it. NaN of fewer than two. */
export function deviation(values: number[]): number {
  const middle = median(values);
  if (values.length < 2) return NaN;
  return Math.max(...values.map((value) => (value === middle ? 0 : Math.abs(value / middle - 1))));
}

/** The noise: the standard deviation of the values' logarithms, about that of their ratios to the mean. */
export function noise(values: number[]): number {
  const logs = values.map(Math.log);
  const middle = mean(logs);
  return Math.sqrt(sum(logs.map((log) => (log - middle) ** 2)) / (logs.length - 1));
}

/** The ratio of the geometric means. */
export const change = (before: number[], after: number[]): number =>
  Math.exp(mean(after.map(Math.log)) - mean(before.map(Math.log)));

/** What can be said of a change. */
export type Verdict = "better" | "worse" | "unclear";

/**
 * Compares a figure's rounds with an earlier run's (Welch's t-test on logarithms). Of a hundred figures
 * that have not changed, about one gets a verdict. Fewer than three rounds on a side tell nothing.
 */
export function judge(before: number[], after: number[], wanted: "less" | "more"): Verdict {
  if (Math.min(before.length, after.length) < 3) return "unclear";
  const by = Math.log(change(before, after));
  const [old, now] = [noise(before) ** 2 / before.length, noise(after) ** 2 / after.length];
  const freedom =
    (old + now) ** 2 / (old ** 2 / (before.length - 1) + now ** 2 / (after.length - 1));
  const limit = old + now > 0 ? Math.sqrt(old + now) * mostByChance(freedom) : 0;
  if (!(Math.abs(by) > limit)) return "unclear";
  return by < 0 === (wanted === "less") ? "better" : "worse";
}

/** Student's t that chance exceeds, one way or the other, once in a hundred times. */
function mostByChance(freedom: number): number {
  const small = [63.66, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.25, 3.169];
  const whole = Math.floor(freedom);
  const [least, next] = [small[whole - 1], small[whole]];
  if (least === undefined || next === undefined) return 2.576 * (1 + 2.2 / freedom);
  return least + (freedom - whole) * (next - least);
}
