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

test.each([
  ["", {}],
  ["--port 65535 --max-line=1073741824 --seed 0", { port: 65_535, maxLine: 2 ** 30, seed: 0 }],
  ["--host a --host :: --key-file 1", { host: "::", keyFile: "1" }],
  ["--add x --add=y", { add: ["x", "y"] }],
  ["--make-key --make-key", { makeKey: true }],
])("of '%s' comes %j; what is not given has its default, if it has one", (given, values) => {
  const defaults = { port: 2000, maxLine: 4096, host: "127.0.0.1", add: [], makeKey: false };
  expect<object>(parse(...given.split(" "))).toEqual({ ...defaults, ...values });
});

test.each([
  ["--port=65536", "--port takes a whole number from 0 to 65535, not '65536'"],
  ["--port=-1", "--port takes a whole number from 0 to 65535, not '-1'"],
  ["--max-line=0", "--max-line takes a whole number from 1 to 1073741824, not '0'"],
  ["--max-line=1e2", "--max-line takes a whole number from 1 to 1073741824, not '1e2'"],
  ["--seed=", "--seed takes a whole number from 0 to 9, not ''"],
  ["--host=", "--host takes ADDRESS, not ''"],
  ["--add=", "--add takes NAME, not ''"],
  ["--nonsense", "Unknown option '--nonsense'"],
  ["--port", "Option '--port <value>' argument missing"],
  ["--port --help", "Option '--port' argument is ambiguous"],
  ["--help=yes", "Option '-h, --help' does not take an argument"],
])("the mistake in '%s' is one line for the user", (given, reason) => {
  expect(() => parse(...given.split(" "))).toThrow(new Error(reason));
});

test("other words are kept in order where a script takes them, and refused where it does not", () => {
  const { values, words } = parseCommandLine(script, ["one", "--make-key", "two"]);
  expect([values.makeKey, words]).toEqual([true, ["one", "two"]]);
  const { words: _, ...strict } = script;
  expect(() => parseCommandLine(strict, ["word"])).toThrow("Unexpected argument 'word'");
});
