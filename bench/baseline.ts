/** What has changed between two runs, and whether that can be told from the noise. */
import { clients, kinds } from "./faults.ts";
import { compared, digits, percent, ratios, roundsOf, values } from "./figures.ts";
import { wrongIn } from "./report.ts";
import type { Report } from "./schema.ts";
import { change, judge, median, noise, sum, type Verdict } from "./stats.ts";
import { type Columns, fill, table, template } from "./tables.ts";

/** A figure of two runs. */
export interface Change {
  server: string;
  n: number;
  figure: string;
  old: number; // medians, as they were measured
  now: number;
  ratio: number; // of the new to the old; NaN for what should be 0
  isToFloor: boolean; // whether this and the rest are of the ratio to the floor: if both runs have one
  noise: [old: number, now: number]; // the rounds' standard deviation, as a part of the figure
  verdict: Verdict;
}

/** Compares what both runs have measured. */
export function compare(before: Report, after: Report): Change[] {
  return after.servers.flatMap(({ name: server }) => [
    ...after.options.n.flatMap((n) => {
      const sides = [roundsOf(before, server, n), roundsOf(after, server, n)] as const;
      const figures = compared.flatMap((figure): Change[] => {
        const [from, to] = [values(sides[0], figure), values(sides[1], figure)];
        if (from.length === 0 || to.length === 0) return [];
        const toFloor = [ratios(sides[0], figure), ratios(sides[1], figure)] as const;
        const isToFloor = server !== "floor" && toFloor.every((rounds) => rounds.length > 0);
        const [was, is] = isToFloor ? toFloor : [from, to];
        const medians = { old: median(from), now: median(to), ratio: change(was, is), isToFloor };
        const both: Change["noise"] = [noise(was), noise(is)];
        const verdict = judge(was, is, figure.includes("lines/s") ? "more" : "less");
        return [{ server, n, figure, ...medians, noise: both, verdict }];
      });
      const [old, now] = sides.map((all) => (all.length > 0 ? sum(wrongIn(all)) : undefined));
      return [...figures, ...harm(server, n, "went wrong", old, now)];
    }),
    ...Object.keys(kinds).flatMap((kind) => {
      const [old, now] = [before, after].map(({ faults }) => {
        const others = faults.find((of) => of.server === server && of.fault === kind)?.others;
        return others ? others.lost + others.cutOff : undefined;
      });
      return harm(server, clients, kind, old, now);
    }),
  ]);
}

/** What should be 0: there is no noise about whether it is. */
function harm(server: string, n: number, figure: string, old?: number, now?: number): Change[] {
  if (old === undefined || now === undefined || old + now === 0) return [];
  const verdict = old === 0 ? "worse" : now === 0 ? "better" : "unclear";
  const none = { ratio: NaN, isToFloor: false, noise: [NaN, NaN] as [number, number] };
  return [{ server, n, figure, old, now, ...none, verdict }];
}

const columns: Columns<Change> = {
  N: ({ n }) => `${n}`,
  figure: ({ figure }) => figure,
  old: ({ old }) => digits(old),
  new: ({ now }) => digits(now),
  ratio: ({ ratio, isToFloor }) => `${digits(ratio)}${isToFloor ? "*" : " "}`,
  noise: ({ noise }) => noise.map(percent).join(" "),
  verdict: ({ verdict }) => verdict,
};

/** The comparison as text. */
export function changes(before: Report, after: Report): string {
  const machine = ({ machine: { busy, ...rest } }: Report) => JSON.stringify(rest);
  const other = machine(before) === machine(after) ? "" : " on another machine";
  const since = before.made.slice(0, 16).replace("T", " ") + other;
  const all = compare(before, after).map((of) => ({ label: of.server, of }));
  const text = table("server", all, columns, "text");
  return `\n${fill(template.slice(template.indexOf("## Since")), { since, changes: text }, "text")}`;
}
