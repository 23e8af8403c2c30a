import { expect, test } from "bun:test";
import { parseCommandLine } from "../parts/command-line.ts";

const usage = `usage: bun script.ts [options] [FILE]
  --port N           TCP port; 0 takes a free one (2000)
  --max-line N       bytes in a line (4096)
  --rate N           lines a second; 0 is no limit (100)
  --host ADDRESS     address (for example ::) to listen on (127.0.0.1)
  --key-file FILE    what --make-key printed (none)
  --ca FILE          trust this authority (PEM) instead of the system's
  --make-key         make a key, and exit
  --help, --version  print this, or the version
`;

const parse = (args: string[]) => parseCommandLine(usage, args).values;

const defaults = { port: 2000, maxLine: 4096, rate: 100, host: "127.0.0.1" };

test("without arguments, the values are the defaults that the usage text names", () => {
  expect(parse([])).toEqual(defaults);
});

test("what is given comes before the defaults, as a number, a text or a flag", () => {
  const args = "--port 0 --max-line=1 --host :: --key-file k --ca c --make-key --version";
  expect(parse(args.split(" "))).toEqual({
    ...defaults,
    port: 0,
    maxLine: 1,
    host: "::",
    keyFile: "k",
    ca: "c",
    makeKey: true,
    version: true,
  });
  expect(parse(["--rate", "7", "--rate", "8"])["rate"]).toBe(8);
});

test.each([
  ["--port", "65535", 65_535],
  ["--port", "080", 80],
  ["--rate", "0", 0],
  ["--max-line", "1073741824", 2 ** 30],
])("%s takes %s", (option, text, value) => {
  expect(Object.values(parse([option, text]))).toContain(value);
});

test.each([
  ["--port", "65536", "0 to 65535"],
  ["--rate", "1073741825", "0 to 1073741824"],
  ["--max-line", "0", "1 to 1073741824"],
  ["--rate", "1.5", "0 to 1073741824"],
  ["--rate", "1e2", "0 to 1073741824"],
  ["--rate", "-1", "0 to 1073741824"],
  ["--rate", "", "0 to 1073741824"],
])("%s does not take '%s'", (option, text, range) => {
  const reason = `${option} takes a whole number from ${range}, not '${text}'`;
  expect(() => parse([`${option}=${text}`])).toThrow(new Error(reason));
});

test.each([
  [["--nonsense"], "Unknown option '--nonsense'"],
  [["--port"], "Option '--port <value>' argument missing"],
  [["--port", "--help"], "Option '--port' argument is ambiguous"],
  [["--help=yes"], "Option '--help' does not take an argument"],
  [["word"], "Unexpected argument 'word'"],
])("the mistake in %j is one line for the user", (args, reason) => {
  expect(() => parse(args)).toThrow(new Error(reason));
});

test("other words are kept in order where a script takes them", () => {
  const { values, positionals } = parseCommandLine(usage, ["one", "--help", "two"], true);
  expect(positionals).toEqual(["one", "two"]);
  expect(values).toEqual({ ...defaults, help: true });
});
