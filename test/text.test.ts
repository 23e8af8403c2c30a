import { expect, test } from "bun:test";
import { cleanName, cleanText, createFramer } from "../parts/text.ts";

test.each([
  "plain text, with punctuation: /* {} */",
  "\ttabs\tstay\t",
  "жанна 你好 é 😀 👩‍👩‍👧",
  "an accent of its own: e\u0301",
  "\u200fשלום", // a mark of direction is no override
  "",
])("the line %j stays as it is", (line) => {
  expect(cleanText(line)).toBe(line);
});

test.each([
  ["a colour", "\x1b[1;31mred\x1b[0m", "red"],
  ["a window title", "\x1b]0;owned\x07text", "text"],
  ["a write to the clipboard", "\x1b]52;c;ZXZpbA==\x1b\\text", "text"],
  ["an escape sequence of one byte", "\x9b2Jtext", "text"],
  ["an escape sequence in a line that is not ASCII", "é\x1b[2Jé", "éé"],
  ["an escape sequence that breaks off", "text\x1b[", "text"],
  ["half an escape sequence hidden by a NUL", "\x1b\0[2J", "[2J"],
  ["a bell, a backspace and a delete", "a\x07b\x08c\x7fd", "abcd"],
  ["line ends of all kinds", "a\rb\nc\vd\fe\x85f\u2028g\u2029h", "abcdefgh"],
  ["text that runs backwards", "\u202afile\u202b\u202c\u202d\u202egpj.exe", "filegpj.exe"],
  ["text that is isolated", "\u2066a\u2067b\u2068c\u2069d", "abcd"],
])("from a line is removed: %s", (_, line, clean) => {
  expect(cleanText(line)).toBe(clean);
  expect(cleanText(clean)).toBe(clean);
});

test.each([
  ["", "guest"],
  [":*\t", "guest"],
  ["ann", "ann"],
  ["**ann*", "ann*"],
  [": *ann", "ann"],
  ["a:n\u00a0n\n", "ann"],
  ["in\u200bvis\u202eib\u{e0041}le\x07", "invisible"],
  ["\u115f\u3164", "guest"], // fillers: letters that nobody sees
  ["e\u200b\u0301", "é"],
  ["x".repeat(33), "x".repeat(32)],
  ["😀".repeat(33), "😀".repeat(32)],
  ["e\u0301".repeat(33), "é".repeat(32)],
])("the name %j is made %j", (text, name) => {
  expect(cleanName(text)).toBe(name);
  expect(cleanName(name)).toBe(name);
});

/** The lines of a stream that comes in pieces. */
function linesOf(stream: Buffer, maxLine: number, size = stream.length): (string | null)[] {
  const frame = createFramer(maxLine);
  const lines: (string | null)[] = [];
  for (let at = 0; at < stream.length; at += size)
    lines.push(...frame(stream.subarray(at, at + size)));
  return [...lines, ...frame(null)];
}

test("a stream gives the same lines wherever it is cut", () => {
  const text = "first\r\n\n2😀\n12345678\r\n123456789\n\r\n1234567é\n12345678\n";
  // Each invalid byte is said as three: so three of them are too long for a limit of 8, too.
  const invalid = Buffer.of(0xff, 0xff, 0x0a, 0xff, 0xff, 0xff, 0x0a);
  const stream = Buffer.concat([Buffer.from(text), invalid, Buffer.from("last")]);
  const lines = [
    "first",
    "",
    "2😀",
    "12345678",
    null,
    "",
    null,
    "12345678",
    "\ufffd\ufffd",
    null,
    "last",
  ];
  for (let size = 1; size <= stream.length; size++) {
    const frame = createFramer(8);
    const found: (string | null)[] = [];
    for (let at = 0; at < stream.length; at += size)
      found.push(...frame(stream.subarray(at, at + size)));
    expect([...found, ...frame(null)], `in pieces of ${size} bytes`).toEqual(lines);
  }
});

test.each([
  ["12345678", ["12345678"]],
  ["12345678\r", ["12345678"]],
  ["123456789", [null]],
  ["1234567890", [null]],
  ["1234567890\n", [null]],
  ["1234567890\n\nnext", [null, "", "next"]],
])("when a stream of at most 8 bytes a line ends with %j, its last line counts", (text, lines) => {
  for (const size of [1, 3, text.length])
    expect(linesOf(Buffer.from(text), 8, size), `in pieces of ${size}`).toEqual(lines);
});

test("a line is cleaned before it is measured", () => {
  expect(linesOf(Buffer.from("\x1b[31m12345678\n"), 13)).toEqual(["12345678"]);
  expect(linesOf(Buffer.of(0xff, 0xff, 0x0a), 5)).toEqual([null]); // said as 6 bytes
});

test("a chunk's memory may be used again when its lines are cut", () => {
  const frame = createFramer(8);
  const chunk = Buffer.from("a\nbc");
  expect(frame(chunk)).toEqual(["a"]);
  chunk.fill("x");
  expect(frame(Buffer.from("d\n"))).toEqual(["bcd"]);
});
