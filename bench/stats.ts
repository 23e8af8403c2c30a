/**
 * What is made of samples: distributions, percentiles, medians, noise, and whether a change can be told
 * from it. Pure; the values may have any unit.
 *
 * @module
 */

/** Values with three significant digits, each with how often it came; in ascending order. */
export type Buckets = [value: number, count: number][];

/** Sorts samples into buckets. What is not finite is left out. */
export function bucket(samples: Iterable<number>): Buckets {
  const counts = new Map<number, number>();
  for (const sample of samples) {
    if (!Number.isFinite(sample)) continue;
    const value = Number(sample.toPrecision(3));
    counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  return [...counts].sort(([a], [b]) => a - b);
}

/** One distribution of several. */
export function merge(all: Buckets[]): Buckets {
  const counts = new Map<number, number>();
  for (const [value, count] of all.flat()) counts.set(value, (counts.get(value) ?? 0) + count);
  return [...counts].sort(([a], [b]) => a - b);
}

/** How many samples there are. */
export const countOf = (buckets: Buckets): number =>
  buckets.reduce((sum, [, count]) => sum + count, 0);

/**
 * The nearest rank: the least value that at least `percent` of all samples do not exceed. NaN if there
 * is no sample. With fewer than 1,000 samples, p99.9 is the largest one.
 */
export function percentile(buckets: Buckets, percent: number): number {
  const rank = Math.max(1, Math.ceil((countOf(buckets) * percent) / 100 - 1e-9));
  let sum = 0;
  for (const [value, count] of buckets) if ((sum += count) >= rank) return value;
  return NaN;
}

/** The middle value, or the mean of the middle two; NaN of none. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  if (sorted.length === 0) return NaN;
  const middle = (sorted.length - 1) / 2;
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2;
}

/** By how much one value is off the median at most, as a part of it. NaN of fewer than two. */
export function deviation(values: number[]): number {
  const middle = median(values);
  if (values.length < 2) return NaN;
  return Math.max(...values.map((value) => (value === middle ? 0 : Math.abs(value / middle - 1))));
}

/** The noise: the same as a ratio, so that half of the median is as far from it as the double. */
export function noise(values: number[]): number {
  const middle = median(values);
  if (values.length < 2) return NaN;
  return Math.max(...values.map((value) => Math.max(value / middle, middle / value))) - 1;
}

/** What can be said of a change. */
export type Verdict = "better" | "worse" | "cannot be told";

/**
 * Compares a figure's rounds with an earlier run's. A change counts if the medians differ by more than
 * the noise of both runs together, and if each run has three rounds at least.
 */
export function judge(before: number[], after: number[], wanted: "less" | "more"): Verdict {
  if (Math.min(before.length, after.length) < 3) return "cannot be told";
  const [old, now] = [median(before), median(after)];
  const change = Math.abs(Math.log(now / old));
  const noiseOfBoth = Math.log((1 + noise(before)) * (1 + noise(after)));
  if (!(change > noiseOfBoth)) return "cannot be told";
  return now < old === (wanted === "less") ? "better" : "worse";
}
