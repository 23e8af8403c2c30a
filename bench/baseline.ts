/**
 * What has changed between two runs: for each figure both values, the ratio, the noise of both, and a
 * verdict.
 *
 * @module
 */
import { compared, type Figure, ratios, values } from "./figures.ts";
import { asText, digits, percent } from "./report.ts";
import type { Report } from "./schema.ts";
import { judge, median, noise, type Verdict } from "./stats.ts";

/** A figure of two runs. */
export interface Change {
  server: string;
  n: number;
  figure: string;
  /** Medians, as they were measured. */
  old: number;
  now: number;
  /** Of the new to the old, each taken to the floor beside it if both runs have one. */
  ratio: number;
  /** By how much a round was off the median at most, as a ratio less one. */
  noise: [old: number, now: number];
  verdict: Verdict;
}

/** Compares what both runs have measured. */
export function compare(before: Report, after: Report): Change[] {
  return after.servers.flatMap(({ name: server }) =>
    after.options.n.flatMap((n) =>
      compared.flatMap(({ name: figure, wanted, of }) => {
        const [old, now] = [values(before, server, n, of), values(after, server, n, of)];
        if (old.length === 0 || now.length === 0) return [];
        const [from, to] = samples(before, after, server, n, of);
        const both: Change["noise"] = [noise(from), noise(to)];
        const [ratio, verdict] = [median(to) / median(from), judge(from, to, wanted)];
        return [
          { server, n, figure, old: median(old), now: median(now), ratio, noise: both, verdict },
        ];
      }),
    ),
  );
}

function samples(before: Report, after: Report, server: string, n: number, of: Figure) {
  const both = [ratios(before, server, n, of), ratios(after, server, n, of)] as const;
  const hasFloor = server !== "floor" && both.every((rounds) => rounds.length > 0);
  return hasFloor ? both : ([values(before, server, n, of), values(after, server, n, of)] as const);
}

/** The comparison as text. */
export function changes(before: Report, after: Report): string {
  const all = compare(before, after);
  const machine = ({ machine: { system, processor, cores } }: Report) =>
    `${system}, ${cores} × ${processor}`;
  const other = machine(before) === machine(after) ? "" : ` on another machine`;
  const rows = all.map(({ server, n, figure, old, now, ratio, noise, verdict }) => [
    server,
    String(n),
    figure,
    digits(old),
    digits(now),
    digits(ratio),
    noise.map(percent).join(" "),
    verdict,
  ]);
  const head = ["server", "N", "figure", "old", "new", "ratio", "noise", ""];
  return asText({
    title: `Since ${before.made.slice(0, 16).replace("T", " ")}${other}`,
    explanation:
      "A change is told if it is more than the noise of both runs together, in three rounds or more of each. " +
      "The ratio and the noise are those of the ratio to the floor, if both runs have one.",
    tables: [{ caption: "", rows: [head, ...rows] }],
  });
}
