/**
 * The command line of `compare.ts`.
 *
 * @module
 */
import { accessSync, appendFileSync, constants, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { leastSize, mostSize } from "./clients.ts";
import { checkReport, type Report } from "./schema.ts";
import { type Contender, contenders, ownContender, shellStart } from "./servers.ts";

/** What can be measured. */
export const sections = ["latency", "throughput", "join", "cost", "faults"] as const;
export type Section = (typeof sections)[number];

const names = Object.keys(contenders);
const peers = names.filter((server) => server !== "linked");

const usage = `usage: bun bench/compare.ts [options]
  --servers A,B        built-in servers to measure, or none (all but linked):
                       ${names.join(",")}.
                       Without floor, there are no ratios to it
  --command NAME=CMD   your server, too: 'mine=./my-chat --port {port}'. Without
                       {port}, it says on which port it listens. Repeatable
  --connect HOST:PORT  a server that runs already, too; without its CPU, memory
                       and faults of its processes. Repeatable
  --n N,N              receivers of a line (25,50,75,100)
  --rate N             lines a second (50)
  --size N             bytes in a line, with its newline, ${leastSize} to ${mostSize} (80)
  --seconds N          how long they are said at this rate in each round (4)
  --rounds N           how often each is measured (3)
  --only A,B           a part of ${sections.join(",")} (all)
  --json FILE          write all that was measured
  --baseline FILE      tell what has changed since such a file was written
  --from FILE          measure nothing, take such a file instead
  --markdown FILE      write a report
  --readme             measure nothing, copy what bench/REPORT.md has for the
                       README into it
  -h, --help           print this

With the defaults it takes about 30 minutes on two cores. Keep the machine idle
meanwhile: progress goes to stderr, tables to stdout. bench/README.md says more.
`;

/** A server by its name, with what is known of it. */
export type Named = Contender & { name: string; isOwn: boolean };

export interface Options {
  servers: Named[];
  /** Ascending. */
  n: number[];
  rate: number;
  size: number;
  seconds: number;
  rounds: number;
  only: Section[];
  json: string | undefined;
  markdown: string | undefined;
  baseline: Report | undefined;
  from: Report | undefined;
  readme: boolean;
}

/** Understands the arguments. Prints the help, or one line on what is wrong, and exits. */
export function readOptions(args: string[]): Options {
  try {
    return parse(args);
  } catch (error) {
    const message = (error as Error).message.replace(/\. To specify a positional.*$/s, "");
    process.stderr.write(`compare.ts: ${message} (see --help)\n`);
    process.exit(2);
  }
}

function parse(args: string[]): Options {
  const text = (value: string) => ({ type: "string", default: value }) as const;
  const file = { type: "string" } as const;
  const { values } = parseArgs({
    args,
    options: {
      servers: text(peers.join(",")),
      command: { type: "string", multiple: true, default: [] },
      connect: { type: "string", multiple: true, default: [] },
      n: text("25,50,75,100"),
      rate: text("50"),
      size: text("80"),
      seconds: text("4"),
      rounds: text("3"),
      only: text(sections.join(",")),
      json: file,
      baseline: file,
      from: file,
      markdown: file,
      readme: { type: "boolean", default: false },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    process.exit();
  }
  if (values.readme && args.length > 1)
    throw new Error("--readme measures nothing and stands alone");
  for (const path of [values.json, values.markdown]) if (path) checkWritable(path);
  const only = values.only.split(",");
  for (const section of only)
    if (!sections.includes(section as Section))
      throw new Error(`--only takes a part of ${sections.join(",")}, not '${section}'`);
  const options: Options = {
    servers: [...builtIn(values.servers), ...own(values.command, values.connect)],
    n: [...new Set(values.n.split(",").map((text) => whole("n", text, 2, 2000)))].sort(
      (a, b) => a - b,
    ),
    rate: whole("rate", values.rate, 1, 10_000),
    size: whole("size", values.size, leastSize, mostSize),
    seconds: whole("seconds", values.seconds, 1, 3600),
    rounds: whole("rounds", values.rounds, 1, 1000),
    only: sections.filter((section) => only.includes(section)),
    json: values.json,
    markdown: values.markdown,
    baseline: values.baseline ? readReport("baseline", values.baseline) : undefined,
    from: values.from ? readReport("from", values.from) : undefined,
    readme: values.readme,
  };
  if (options.servers.length === 0) throw new Error("there is no server to measure");
  checkComparable(options);
  return options;
}

function whole(name: string, text: string, least: number, most: number): number {
  const number = Number(text);
  if (/^\d{1,5}$/.test(text) && number >= least && number <= most) return number;
  throw new Error(`--${name} takes whole numbers from ${least} to ${most}, not '${text}'`);
}

/** Fails now, and not after the last round. */
function checkWritable(path: string): void {
  if (!["/dev/", "/proc/"].some((start) => path.startsWith(start)))
    accessSync(dirname(path), constants.W_OK);
  appendFileSync(path, "");
}

function builtIn(list: string): Named[] {
  if (list === "none") return [];
  return [...new Set(list.split(","))].map((name) => {
    if (!contenders[name]) throw new Error(`there is no server '${name}'`);
    return { ...contenders[name], name, isOwn: false };
  });
}

function own(commands: string[], addresses: string[]): Named[] {
  const all: Named[] = [];
  const add = (name: string, contender: Contender) => {
    if (contenders[name] || all.some((other) => other.name === name))
      throw new Error(`there are two servers '${name}'`);
    all.push({ ...contender, name, isOwn: true });
  };
  for (const given of commands) {
    const [, name, command] = /^([\w-]{1,10})=(.*\S.*)$/s.exec(given) ?? [];
    if (!name || !command)
      throw new Error(`--command takes NAME=CMD, with a name of 1 to 10 letters, not '${given}'`);
    add(name, ownContender(all.length, shellStart(command), command));
  }
  for (const given of addresses) {
    const [, host, port] = /^(.*):(\d{1,5})$/.exec(given) ?? [];
    if (!port || Number(port) > 65_535)
      throw new Error(`--connect takes HOST:PORT, not '${given}'`);
    const start = { host: host!.replace(/^\[|\]$/g, "") || "127.0.0.1", port: Number(port) };
    add(`:${port}`, ownContender(all.length, start, given));
  }
  return all;
}

function readReport(option: string, path: string): Report {
  try {
    return checkReport(JSON.parse(readFileSync(path, "utf8")));
  } catch (error) {
    throw new Error(`--${option} ${path}: ${(error as Error).message}`);
  }
}

/** Two runs can be compared if they measured the same. */
function checkComparable({ baseline, from, ...given }: Options): void {
  if (!baseline) return;
  const now = from?.options ?? given;
  for (const key of ["rate", "size", "seconds"] as const)
    if (baseline.options[key] !== now[key])
      throw new Error(`--baseline was measured with --${key} ${baseline.options[key]}, use that`);
}
