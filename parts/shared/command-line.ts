/**
 * Command lines: a table of options prints its usage text and reads what was given.
 *
 * @module
 */
import { writeSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";

/** What starts the server and the client: here, or where the package is installed. */
export const commands = import.meta.dir.includes("/node_modules/")
  ? { server: "bunx pipechat-server", client: "bunx pipechat" }
  : { server: "bun server.ts", client: "bun client.ts" };

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

/** One row of a script's table of options. */
export interface Option<Value = unknown> {
  /** What the usage text calls the option's value; "" if it is a flag and has none. */
  readonly placeholder: string;
  readonly help: string;
  /** Its value if it is not given. */
  readonly preset: Value;
  /** What it takes, for the user. */
  readonly takes: string;
  /** Makes a value of all that was given for it; undefined if it cannot. */
  readonly read: (given: string[]) => Value | undefined;
}

/** An option that is given without a value. */
export function flag(help: string): Option<boolean> {
  return { placeholder: "", help, preset: false, takes: "no value", read: () => true };
}

/** An option whose value is a text. If it is given twice, the last one counts. */
export function text<Preset extends string | undefined = undefined>(
  placeholder: string,
  help: string,
  preset?: Preset,
): Option<string | Preset> {
  const read = (given: string[]) => given.at(-1) || undefined;
  return { placeholder, ...withPreset(help, preset), takes: placeholder, read };
}

/** An option that may be given several times. */
export function texts(placeholder: string, help: string): Option<string[]> {
  const read = (given: string[]) => (given.includes("") ? undefined : given);
  return { placeholder, help, preset: [], takes: placeholder, read };
}

/** An option whose value is a whole number in a range. If it is given twice, the last one counts. */
export function whole<Preset extends number | undefined = undefined>(
  least: number,
  most: number,
  help: string,
  preset?: Preset,
): Option<number | Preset> {
  const takes = `a whole number from ${least} to ${most}`;
  function read(given: string[]): number | undefined {
    const number = /^\d+$/.test(given.at(-1)!) ? Number(given.at(-1)) : NaN;
    return number >= least && number <= most ? number : undefined;
  }
  return { placeholder: "N", ...withPreset(help, preset), takes, read };
}

function withPreset<Preset>(help: string, preset: Preset | undefined) {
  return {
    help: preset === undefined ? help : `${help} (${preset})`,
    preset: preset as Preset, // it is undefined only where its type is
  };
}

/** Options by their keys: `maxLine` is `--max-line`. */
export type Table = Readonly<Record<string, Option>>;

/** The values of a table's options, by their keys. */
export type Values<T extends Table> = {
  readonly [Key in keyof T as undefined extends T[Key]["preset"] ? never : Key]: T[Key]["preset"];
} & {
  readonly [Key in keyof T as undefined extends T[Key]["preset"] ? Key : never]?: NonNullable<
    T[Key]["preset"]
  >;
};

/** What a script can be started with. */
export interface CommandLine<T extends Table> {
  /** What the usage text says before the table, and after it. */
  head: string;
  tail?: string;
  /** What the words mean that are not options; without it, none are allowed. */
  words?: Readonly<Record<string, string>>;
  options: T;
  /** What `--version` prints. */
  version?: string;
}

/**
 * Reads a script's arguments; `understand` makes of the options and the other words what the script
 * needs. Ends the script if they ask for the usage text or the version, or with one line that says what
 * is wrong with them.
 */
export function readCommandLine<T extends Table, Understood>(
  script: CommandLine<T>,
  args: string[],
  understand: (values: Values<T>, words: string[]) => Understood,
): Understood {
  try {
    const { values, words } = parseCommandLine(script, args);
    return understand(values, words);
  } catch (error) {
    return fail(2, `${(error as Error).message} (see --help)`);
  }
}

/** The same without `understand`, and throws an error whose message is one line for the user. */
export function parseCommandLine<T extends Table>(
  script: CommandLine<T>,
  args: string[],
): { values: Values<T>; words: string[] } {
  const given = parse(script, args);
  if (given.values["help"]) print(usage(script));
  if (given.values["version"]) print(`${script.version}\n`);
  const values = Object.entries(script.options).map(([key, option]) => {
    const texts = given.values[dashed(key)] as string[] | undefined;
    const value = texts ? option.read(texts) : option.preset;
    if (texts && value === undefined)
      throw new Error(`--${dashed(key)} takes ${option.takes}, not '${texts.at(-1)}'`);
    return [key, value];
  });
  return { values: Object.fromEntries(values) as Values<T>, words: given.positionals };
}

function parse({ options, words, version }: CommandLine<Table>, args: string[]) {
  const known: NonNullable<NonNullable<Parameters<typeof parseArgs>[0]>["options"]> = {
    help: { type: "boolean", short: "h" },
    ...(version && { version: { type: "boolean" } }),
  };
  for (const [key, { placeholder }] of Object.entries(options))
    known[dashed(key)] = { type: placeholder ? "string" : "boolean", multiple: true };
  try {
    return parseArgs({ args, options: known, allowPositionals: words !== undefined });
  } catch (error) {
    throw new Error((error as Error).message.split(/\.\s/)[0]); // the rest is advice for programmers
  }
}

/** The text that `--help` prints. */
export function usage({
  head,
  words = {},
  options,
  version,
  tail = "",
}: CommandLine<Table>): string {
  const rows = Object.entries(words);
  for (const [key, { placeholder, help }] of Object.entries(options))
    rows.push([`--${dashed(key)} ${placeholder}`.trimEnd(), help]);
  const ask = version ? "-h, --help, --version" : "-h, --help";
  const width = Math.max(ask.length + 1, 12, ...rows.map(([label]) => label.length + 2));
  rows.push([ask, version ? "print this, or the version" : "print this"]);
  const indent = `\n${" ".repeat(2 + width)}`;
  const lines = rows.map(
    ([label, help]) => `  ${label.padEnd(width)}${help.replaceAll("\n", indent)}\n`,
  );
  return head + lines.join("") + tail;
}

/** `maxLine` as a user writes it: `max-line`. */
function dashed(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
