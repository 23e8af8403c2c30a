/**
 * What has changed between two runs: for each figure both values, the ratio, the noise of both, and a
 * verdict.
 *
 * @module
 */
import { clients, kinds } from "./faults.ts";
import { compared, type Figure, ratios, runsOf, values } from "./figures.ts";
import { asText, digits, percent } from "./report.ts";
import type { Report } from "./schema.ts";
import { change, judge, median, noise, type Verdict } from "./stats.ts";

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
  /** The rounds' standard deviation, as a part of the figure. */
  noise: [old: number, now: number];
  verdict: Verdict;
}

/** Compares what both runs have measured. */
export function compare(before: Report, after: Report): Change[] {
  return after.servers.flatMap(({ name: server }) => [
    ...after.options.n.flatMap((n) => [
      ...compared.flatMap(({ name: figure, wanted, of }) => {
        const [old, now] = [values(before, server, n, of), values(after, server, n, of)];
        if (old.length === 0 || now.length === 0) return [];
        const [from, to] = samples(before, after, server, n, of);
        const both: Change["noise"] = [noise(from), noise(to)];
        const [ratio, verdict] = [change(from, to), judge(from, to, wanted)];
        return [
          { server, n, figure, old: median(old), now: median(now), ratio, noise: both, verdict },
        ];
      }),
      ...harm(server, n, "went wrong", wrongs(before, server, n), wrongs(after, server, n)),
    ]),
    ...Object.keys(kinds).flatMap((fault) =>
      harm(server, clients, fault, harmOf(before, server, fault), harmOf(after, server, fault)),
    ),
  ]);
}

/** What should be 0: there is no noise about whether it is. */
function harm(
  server: string,
  n: number,
  figure: string,
  old: number | undefined,
  now: number | undefined,
): Change[] {
  if (old === undefined || now === undefined || old + now === 0) return [];
  const verdict = old === 0 ? "worse" : now === 0 ? "better" : "cannot be told";
  return [{ server, n, figure, old, now, ratio: NaN, noise: [NaN, NaN], verdict }];
}

/** Lines that went wrong, and clients that were cut off, in all rounds. */
function wrongs(report: Report, server: string, n: number): number | undefined {
  const runs = runsOf(report, server, n);
  const all = runs.flatMap(({ own: { latency, one, ten } }) => [latency, one, ten]);
  const counts = all.flatMap((measured) => (measured ? Object.values(measured.wrong) : []));
  return runs.length > 0 ? counts.reduce((sum, count) => sum + count, 0) : undefined;
}

/** What a fault did to the others: lines lost, and clients cut off. */
function harmOf(report: Report, server: string, kind: string): number | undefined {
  const found = report.faults.find((fault) => fault.server === server && fault.fault === kind);
  return found?.others ? found.others.lost + found.others.cutOff : undefined;
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
      "Old and new are medians. The ratio, the noise (the rounds' standard deviation, old and new) and the verdict " +
      "are those of the ratio to the floor, if both runs have one. Of a hundred figures that have not changed, about " +
      "one gets a verdict; with fewer than three rounds, none. What went wrong or was lost is told in any case.",
    tables: [{ caption: "", rows: [head, ...rows] }],
  });
}
