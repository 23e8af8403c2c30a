import { expect, test } from "bun:test";
import { parseCommandLine } from "../parts/shared/command-line.ts";

const usage = `usage: bun script.ts [options] [FILE]
  --port N             TCP port; 0 takes a free one (2000)
  --max-per-address N  connections from one address; 0 is no limit (0)
  --max-line N         bytes in a line (4096)
  --host ADDRESS       address (for example ::) to listen on (127.0.0.1)
  --key-file FILE      what --make-key printed (none)
  --ca FILE            trust this authority (PEM) instead of the system's
  --make-key           make a key, and exit
  --help, --version    print this, or the version
`;

const parse = (...args: string[]) => parseCommandLine(usage, args).values;

const defaults = { port: 2000, maxPerAddress: 0, maxLine: 4096, host: "127.0.0.1" };

test("what is not given has the default that the usage text names, if it names one", () => {
  expect(parse()).toEqual(defaults);
});

test("what is given is a number, a text or a flag, as the usage text says", () => {
  const numbers = ["--port", "65535", "--max-line=1073741824"];
  expect(parse(...numbers)).toEqual({ ...defaults, port: 65_535, maxLine: 2 ** 30 });
  const texts = ["--host", "::", "--key-file", "k", "--ca", "1"];
  expect(parse(...texts)).toEqual({ ...defaults, host: "::", keyFile: "k", ca: "1" });
  const flags = ["--make-key", "--version"];
  expect(parse(...flags)).toEqual({ ...defaults, makeKey: true, version: true });
});

test.each([
  ["--port", "65536", "0 to 65535"],
  ["--max-line", "1073741825", "1 to 1073741824"],
  ["--max-line", "0", "1 to 1073741824"],
  ["--max-line", "1e2", "1 to 1073741824"],
  ["--max-per-address", "-1", "0 to 1073741824"],
  ["--max-per-address", "", "0 to 1073741824"],
])("%s does not take '%s'", (option, text, range) => {
  const reason = `${option} takes a whole number from ${range}, not '${text}'`;
  expect(() => parse(`${option}=${text}`)).toThrow(new Error(reason));
});

test.each([
  [["--nonsense"], "Unknown option '--nonsense'"],
  [["--port"], "Option '--port <value>' argument missing"],
  [["--port", "--help"], "Option '--port' argument is ambiguous"],
  [["--help=yes"], "Option '-h, --help' does not take an argument"],
  [["word"], "Unexpected argument 'word'"],
])("the mistake in %j is one line for the user", (args, reason) => {
  expect(() => parse(...args)).toThrow(new Error(reason));
});

test("other words are kept in order where a script takes them", () => {
  const { values, positionals } = parseCommandLine(usage, ["one", "--help", "two"], true);
  expect([values["help"], positionals]).toEqual([true, ["one", "two"]]);
});
