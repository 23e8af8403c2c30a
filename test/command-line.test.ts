import { expect, test } from "bun:test";
import { flag, parseCommandLine, text, texts, whole } from "../parts/shared/command-line.ts";

const script = {
  head: "usage: bun script.ts [options] [FILE]\n",
  words: { FILE: "what to read" },
  options: {
    port: whole(0, 65_535, "TCP port; 0 takes a free one", 2000),
    maxLine: whole(1, 2 ** 30, "bytes in a line", 4096),
    seed: whole(0, 9, "repeats a run (none)"),
    host: text("ADDRESS", "address (for example ::)\nto listen on", "127.0.0.1"),
    keyFile: text("FILE", "what --make-key printed"),
    add: texts("NAME", "adds one; repeatable"),
    makeKey: flag("make a key, and exit"),
  },
  tail: "\nThat is all.\n",
  version: "1.2.3",
};

const parse = (...args: string[]) => parseCommandLine(script, args).values;

const defaults = { port: 2000, maxLine: 4096, host: "127.0.0.1", add: [], makeKey: false };

test("what is not given has the default that the table names, if it names one", () => {
  expect<object>(parse()).toEqual(defaults);
});

test("what is given is a number, a text, texts or a flag, as the table says", () => {
  const numbers = ["--port", "65535", "--max-line=1073741824", "--seed", "0"];
  expect(parse(...numbers)).toEqual({ ...defaults, port: 65_535, maxLine: 2 ** 30, seed: 0 });
  const given = ["--host", "a", "--host", "::", "--key-file", "1", "--add", "x", "--add=y"];
  expect(parse(...given)).toEqual({ ...defaults, host: "::", keyFile: "1", add: ["x", "y"] });
  expect<object>(parse("--make-key", "--make-key")).toEqual({ ...defaults, makeKey: true });
});

test.each([
  ["--port", "65536", "a whole number from 0 to 65535"],
  ["--port", "x", "a whole number from 0 to 65535"],
  ["--port", "-1", "a whole number from 0 to 65535"],
  ["--max-line", "1073741825", "a whole number from 1 to 1073741824"],
  ["--max-line", "0", "a whole number from 1 to 1073741824"],
  ["--max-line", "1e2", "a whole number from 1 to 1073741824"],
  ["--seed", "", "a whole number from 0 to 9"],
  ["--host", "", "ADDRESS"],
  ["--add", "", "NAME"],
])("%s does not take '%s'", (option, given, what) => {
  const reason = `${option} takes ${what}, not '${given}'`;
  expect(() => parse(`${option}=${given}`)).toThrow(new Error(reason));
});

test.each([
  [["--nonsense"], "Unknown option '--nonsense'"],
  [["--port"], "Option '--port <value>' argument missing"],
  [["--port", "--help"], "Option '--port' argument is ambiguous"],
  [["--help=yes"], "Option '-h, --help' does not take an argument"],
])("the mistake in %j is one line for the user", (args, reason) => {
  expect(() => parse(...args)).toThrow(new Error(reason));
});

test("other words are kept in order where a script takes them, and refused where it does not", () => {
  const { values, words } = parseCommandLine(script, ["one", "--make-key", "two"]);
  expect([values.makeKey, words]).toEqual([true, ["one", "two"]]);
  const { words: _, ...strict } = script;
  expect(() => parseCommandLine(strict, ["word"])).toThrow("Unexpected argument 'word'");
});
