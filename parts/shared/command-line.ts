/**
 * Command lines: a script's `--help` text is also where its options and their defaults are defined.
 *
 * @module
 */
import { writeSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";

/** Ends the script with one line on stderr that says what to do. */
export function fail(code: number, reason: string): never {
  process.stderr.write(`${basename(Bun.main)}: ${reason}\n`);
  process.exit(code);
}

/** Prints a text and ends the script. */
export function print(text: string): never {
  writeSync(1, text);
  process.exit();
}

/** The values of a command line: `--max-line` is `maxLine`; what is not given has no value. */
export interface Arguments {
  values: Record<string, string | number | boolean | undefined>;
  positionals: string[];
}

/**
 * Understands a command line by its usage text, in which `--name VALUE … (default)` defines an option
 * and `--name` a flag; `-h` is `--help`. A default that is a number makes the option's value a whole number; "none" is
 * no default. Throws an error whose message is one line for the user.
 */
export function parseCommandLine(
  usage: string,
  args: string[],
  allowPositionals = false,
): Arguments {
  const defined = [...usage.matchAll(/--([\w-]+)(?: ([A-Z]+)\b.*?(?:\((\w[^()]*)\))?$)?/gm)];
  const options = defined.map(([, name, value]) => [
    name,
    { type: value ? "string" : "boolean", ...(name === "help" && { short: "h" }) },
  ]);
  const parsed = parse(args, Object.fromEntries(options), allowPositionals);
  const values: Arguments["values"] = {};
  for (const [, name = "", , preset] of defined) {
    const given = parsed.values[name] ?? (preset === "none" ? undefined : preset);
    const key = name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
    values[key] = /^\d+$/.test(preset ?? "") ? wholeNumber(name, String(given)) : given;
  }
  return { values, positionals: parsed.positionals };
}

function parse(args: string[], options: object, allowPositionals: boolean) {
  try {
    return parseArgs({ args, options, allowPositionals } as {
      options: Record<string, { type: "string" | "boolean"; short?: string }>;
    });
  } catch (error) {
    throw new Error((error as Error).message.split(/\.\s/)[0]); // the rest is advice for programmers
  }
}

function wholeNumber(name: string, text: string): number {
  const least = /^(port|rate|spares|max-per-address)$/.test(name) ? 0 : 1;
  const most = name === "port" ? 65_535 : 2 ** 30;
  if (/^\d+$/.test(text) && +text >= least && +text <= most) return +text;
  throw new Error(`--${name} takes a whole number from ${least} to ${most}, not '${text}'`);
}
