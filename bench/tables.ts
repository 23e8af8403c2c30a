/** Tables and prose, in Markdown and for a terminal of 80 columns. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The text of all that is made of a report. */
export const template = readFileSync(join(import.meta.dir, "template.md"), "utf8");

/** Gives a column's cells the same width, and a rule below the head; numbers stand to the right. */
function align(rows: string[][]): string[][] {
  const columns = rows[0]!.map((_, at) => rows.map((row) => row[at]!));
  // A column without a value is left out.
  const shown = columns.filter(([, ...cells]) => cells.some((cell) => cell !== "–"));
  const padded = shown.map((cells, at) => {
    const width = Math.max(3, ...cells.map((cell) => Bun.stringWidth(cell))); // as Prettier has it
    const isNumeric = at > 0 && cells.slice(1).some((cell) => /^[\d–±]/.test(cell));
    const rule = isNumeric ? `${"-".repeat(width - 1)}:` : "-".repeat(width);
    return cells.toSpliced(1, 0, rule).map((cell) => {
      const space = " ".repeat(width - Bun.stringWidth(cell));
      return isNumeric ? space + cell : cell + space;
    });
  });
  return padded[0]!.map((_, nth) => padded.map((cells) => cells[nth]!));
}

/** How tables look. */
export type Style = "markdown" | "text";

/** A table's columns: their heads, and what an item has in them. */
export type Columns<Item> = Record<string, (item: Item) => string>;

/** A table under its caption, with a row for each item; empty if there are none. */
export function table<Item>(
  head: string,
  items: { label: string; of: Item }[],
  columns: Columns<Item>,
  style: Style,
  caption = "",
): string {
  const cells = Object.values(columns);
  const rows = items.map(({ label, of }) => [label, ...cells.map((cell) => cell(of))]);
  if (rows.length === 0) return "";
  const lines = align([[head, ...Object.keys(columns)], ...rows]).map((cells) =>
    style === "text" ? cells.join("  ").trimEnd() : `| ${cells.join(" | ")} |`,
  );
  if (style === "text") lines.splice(1, 1);
  const above = caption ? `${caption}\n${style === "markdown" ? "\n" : ""}` : "";
  return above + lines.join("\n");
}

/** A paragraph in lines of so many columns; a longer word has a line of its own. */
export function wrap(text: string, columns = 80): string {
  const line = new RegExp(`\\S.{0,${columns - 1}}(?= |$)|\\S+`, "gu");
  return text.match(line)?.join("\n") ?? "";
}

/**
 * Fills a template: `{key}` is a value, and `{if key}` empty. A paragraph in which one of them has no
 * value is left out. Prose gets lines of so many columns, and in text a title its underline.
 */
export function fill(
  template: string,
  values: Record<string, string | number>,
  style: Style,
): string {
  const keys = /\{(if )?(\w+)\}/g;
  const paragraphs = template
    .trim()
    .split("\n\n")
    .filter((text) => Array.from(text.matchAll(keys)).every(([, , key]) => values[key!]))
    .map((text) => {
      const filled = text.replaceAll(keys, (_, isIf, key) => (isIf ? "" : `${values[key]}`));
      const title = /^## (.*)/.exec(filled)?.[1];
      if (title && style === "text") return `${title}\n${"=".repeat(title.length)}`;
      const isProse = /^[^#<`].*$/.test(text) && text.replaceAll(keys, "") !== "";
      return isProse ? wrap(filled, style === "text" ? 80 : 110) : filled;
    });
  return `${paragraphs.join("\n\n")}\n`;
}

/** About how long something takes. */
export function duration(seconds: number): string {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} minutes`;
}
