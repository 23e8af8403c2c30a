/** The command line of `compare.ts`. */
import { accessSync, constants, existsSync } from "node:fs";
import { dirname } from "node:path";
import { flag, readCommandLine, text, texts, whole } from "../parts/shared/command-line.ts";
import { leastSize, mostSize } from "./clients.ts";
import { readReport, sections } from "./schema.ts";
import { type Contender, contenders, ownContender } from "./servers.ts";

const quick = ["--n", "25", "--rounds", "1", "--seconds", "1", "--only", "latency,join,cost"];
const all = contenders.map(({ name }) => name);
const commandLine = {
  head: "usage: bun bench/compare.ts [options]\n",
  options: {
    servers: text("A,B", "built-in servers to measure, or none; ratios are to floor\n", all.join()),
    command: texts("NAME=CMD", "yours, too: 'mine=./my-chat --port {port}'. Repeatable"),
    connect: texts("ADDRESS", "one that runs already, too: [NAME=]HOST:PORT. Repeatable"),
    n: text("N,N", "receivers of a line", "25,50,75,100"),
    rate: whole(1, 10_000, "lines a second", 50),
    size: whole(leastSize, mostSize, "bytes in a line, with its newline", 80),
    seconds: whole(1, 3600, "how long they are said in a round; all else obeys it", 4),
    rounds: whole(1, 1000, "how often each is measured", 3),
    only: text("A,B", "what to measure", sections.join()),
    quick: flag(quick.join(" ")),
    json: text("FILE", "write all that was measured"),
    baseline: text("FILE", "say what has changed since such a file was written"),
    from: text("FILE", "measure nothing, read such a file instead"),
    markdown: text("FILE", "write a report"),
  },
  tail: `
With the defaults it takes about 30 minutes on two cores, with --quick one.
Keep the machine idle meanwhile: progress goes to stderr, tables to stdout.
Ctrl-C prints what there is by then. bench/README.md says more.
`,
};

/** Reads the arguments. Prints the help, or one line on what is wrong, and exits. */
export function readOptions(args: string[]) {
  const given = args.includes("--quick") ? [...quick, ...args] : args;
  return readCommandLine(commandLine, given, ({ command, connect, ...values }) => {
    const { json, markdown, baseline, from } = values;
    for (const path of [json, markdown])
      if (path) accessSync(existsSync(path) ? path : dirname(path), constants.W_OK);
    const builtIn = values.servers === "none" ? [] : pick("servers", values.servers, all);
    const options = {
      ...{ ...values, json, markdown, from: from ? readReport(from) : undefined },
      baseline: baseline ? readReport(baseline) : undefined,
      servers: [
        ...contenders.filter(({ name }) => builtIn.includes(name)),
        ...command.map(ownCommand),
        ...connect.map((address, nth) => ownAddress(address, command.length + nth)),
      ],
      n: [...new Set(values.n.split(",").map(receivers))].sort((a, b) => a - b),
      only: pick("only", values.only, sections),
    };
    const names = options.servers.map(({ name }) => name);
    const twice = names.find((name, at) => names.includes(name, at + 1));
    if (twice) throw new Error(`there are two servers '${twice}'`);
    if (names.length === 0) throw new Error("there is no server to measure");
    const [old, now] = [options.baseline?.options, options.from?.options ?? values];
    for (const key of ["rate", "size", "seconds"] as const)
      if (old && old[key] !== now[key]) throw new Error(`--baseline has --${key} ${old[key]}`);
    return options;
  });
}

/** What a list names, in the order of all that it may name. */
function pick(option: string, list: string, all: string[]): string[] {
  const words = list.split(",");
  const unknown = words.find((word) => !all.includes(word));
  if (unknown === undefined) return all.filter((name) => words.includes(name));
  throw new Error(`--${option} takes some of ${all.join(",")}, not '${unknown}'`);
}

function receivers(word: string): number {
  if (/^\d{1,4}$/.test(word) && Number(word) >= 2 && Number(word) <= 2000) return Number(word);
  throw new Error(`--n takes whole numbers from 2 to 2000, not '${word}'`);
}

function ownCommand(given: string, nth: number): Contender {
  const [, name, command] = /^([\w-]{1,10})=(.*\S.*)$/s.exec(given) ?? [];
  if (name && command) return ownContender(name, nth, command);
  throw new Error(`--command takes NAME=CMD, with a name of 1 to 10 letters, not '${given}'`);
}

function ownAddress(given: string, nth: number): Contender {
  const [, name, host, port] = /^(?:([\w-]{1,10})=)?(.*):(\d{1,5})$/.exec(given) ?? [];
  if (!port || Number(port) > 65_535)
    throw new Error(`--connect takes [NAME=]HOST:PORT, not '${given}'`);
  const address = { host: host!.replace(/^\[|\]$/g, "") || "127.0.0.1", port: Number(port) };
  return ownContender(name ?? `:${port}`, nth, `${host}:${port}`, address);
}
