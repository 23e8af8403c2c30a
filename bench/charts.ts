/**
 * The pictures of a report, as Mermaid charts. They are empty where there is nothing to show.
 *
 * @module
 */
import { kinds } from "./faults.ts";
import { headOf, percents, serversOf, throughput, times, values } from "./figures.ts";
import type { Report } from "./schema.ts";
import { median, percentile } from "./stats.ts";

type Series = [server: string, values: number[]];

/** A Mermaid chart whose y begins at 0. It draws no legend, so the colours' marks stand above it. */
function chart(
  report: Report,
  shape: "line" | "bar",
  title: string,
  x: string[] | string,
  y: string,
  series: Series[],
): string {
  const of = new Map(report.servers.map((server) => [server.name, server]));
  // A bar of height 0 has a foot in its colour: the last series covers the feet, so bars begin at 0.
  const shown = series.filter(
    ([server, values]) => of.has(server) && values.every(Number.isFinite),
  );
  if (shown.length === 0) return "";
  const most = Math.max(...shown.flatMap(([, values]) => values), Number.MIN_VALUE);
  const axis = typeof x === "string" ? x : `[${x.map((word) => `"${word}"`).join(", ")}]`;
  const legend = shown.map(([server]) => `${of.get(server)!.mark} ${server}`).join(", ");
  const plain = (value: number) => String(Number(value.toPrecision(3)));
  const all = shown.map(([, values]) => values);
  if (shape === "bar") all.push(all[0]!.map(() => 0));
  const drawn = all.map((values) => `  ${shape} [${values.map(plain).join(", ")}]`);
  const colours = [...shown.map(([server]) => of.get(server)!.colour), "#8c8c8c"];
  return `${legend}

\`\`\`mermaid
---
config:
  xyChart:
    width: 800
    height: 400
  themeVariables:
    xyChart:
      plotColorPalette: "${colours.slice(0, all.length).join(", ")}"
---
xychart-beta
  title "${title}"
  x-axis ${axis}
  y-axis "${y}" 0 --> ${plain(most * 1.05)}
${drawn.join("\n")}
\`\`\``;
}

export function latencyChart(report: Report): string {
  const { n } = report.options;
  // Mermaid sets its points at equal distances: only where the N have such, the chart tells the truth.
  const isEven = n.every((value, at) => at === 0 || value - n[at - 1]! === n[1]! - n[0]!);
  if (n.length < 2 || !isEven || !report.options.only.includes("latency")) return "";
  return chart(
    report,
    "line",
    "A line until the last of N clients has it, median",
    `"N" [${n.join(", ")}]`,
    "ms",
    serversOf(report).map((server) => [
      server,
      n.map((n) => percentile(times(report, server, n, "last"), 50) / 1e6),
    ]),
  );
}

export function percentilesChart(report: Report): string {
  const n = report.options.n.at(-1)!;
  return chart(
    report,
    "line",
    `A line until the last of ${n} clients has it`,
    percents.map(headOf),
    "ms",
    serversOf(report).map((server) => [
      server,
      percents.map((percent) => percentile(times(report, server, n, "last"), percent) / 1e6),
    ]),
  );
}

/** Bars side by side in groups: a series for each server, which is 0 where the others' bars are. */
function bars(
  report: Report,
  title: string,
  y: string,
  groups: [label: string, value: (server: string) => number][],
): string {
  const servers = serversOf(report).filter((server) =>
    groups.some(([, value]) => Number.isFinite(value(server))),
  );
  const width = servers.length + 1;
  const middle = Math.floor((servers.length - 1) / 2);
  // Names of categories must differ; but for the middle of a group, they are not to be seen.
  const x = groups.flatMap(([label], group) =>
    Array.from({ length: width }, (_, at) =>
      at === middle ? label : "\u200b".repeat(group * width + at + 1),
    ),
  );
  const series = servers.map((server, at): Series => {
    const heights = groups.flatMap(([, value]) =>
      Array.from({ length: width }, (_, slot) => (slot === at ? value(server) || 0 : 0)),
    );
    return [server, heights];
  });
  return chart(report, "bar", title, x, y, series);
}

export function throughputChart(report: Report): string {
  const { n } = report.options;
  return bars(
    report,
    "Ten senders flat out to N clients, million lines delivered a second",
    "M lines/s",
    n.map((n) => [`N = ${n}`, (server) => median(values(report, server, n, throughput("ten")))]),
  );
}

export function faultsChart(report: Report): string {
  const measured = Object.keys(kinds).filter((key) =>
    report.faults.some(({ fault, others }) => fault === key && others),
  );
  return bars(
    report,
    "The longest time that another client got no line; if for good, until the end",
    "s",
    measured.map((key) => [
      key,
      (server) =>
        (report.faults.find((of) => of.server === server && of.fault === key)?.others?.gap ?? NaN) /
        1e9,
    ]),
  );
}
