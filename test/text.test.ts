import { expect, test } from "bun:test";
import { brokenRule, cleanName, cleanText, createFramer, nameKey } from "../parts/shared/text.ts";

test.each([
  ["plain text, with punctuation: /* {} */", "plain text, with punctuation: /* {} */"],
  ["\ttabs\tand 你好 é e\u0301 👩‍👧\t", "\ttabs\tand 你好 é e\u0301 👩‍👧\t"],
  ["\x1b[1;31mred\x1b[0m", "red"],
  ["\x1b]52;c;ZXZpbA==\x07clipboard\x9b2J", "clipboard"],
  ["é\x1b[2Jé", "éé"],
  ["broken off\x1b[", "broken off"],
  ["\x1b\0[2Jhidden", "[2Jhidden"],
  ["a\x07b\x08c\x7fd", "abcd"],
  ["你\x07", "你"], // as many columns as characters
  ["a\rb\nc\vd\fe\x85f\u2028g\u2029h", "abcdefgh"],
  ["\u202afile\u202b\u202c\u202d\u202egpj\u2066.\u2067e\u2068x\u2069e", "filegpj.exe"],
])("the line %j is safe as %j", (line, safe) => {
  expect(cleanText(line)).toBe(safe);
});

test.each([
  ["", "guest", "a name cannot be empty"],
  [": **\t", "guest", "no spaces in a name"],
  ["a:nn*", "ann*", "no ':' in a name"],
  ["*ann", "ann", "no '*' at the beginning of a name"],
  ["in\u200bvis\u202eib\u{e0041}le\x07", "invisible", "only visible characters in a name"],
  ["\u115f\u3164\u2800", "guest", "only visible characters in a name"], // fillers and a blank
  ["\u0301*\u0301ann", "ann", "only visible characters in a name"],
  ["e\u200b\u0301", "é", "only visible characters in a name"],
  [" You ", "guest", "this name is reserved"],
  ["ＹｏＵ", "guest", "this name is reserved"],
  ["you2", "you2", ""],
  ["x".repeat(33), "x".repeat(32), "a name has at most 32 characters"],
  ["😀".repeat(33), "😀".repeat(32), "a name has at most 32 characters"],
])("the name %j becomes %j, because of: %j", (text, name, rule) => {
  expect([cleanName(text), brokenRule(text)]).toEqual([name, rule]);
});

test.each([
  ["ann", "ANN", true],
  ["ann", "ａｎｎ", true], // full width
  ["Zoë", "zoe\u0308", true],
  ["straße", "STRASSE", true],
  ["ὈΔΥΣΣΕΎΣ", "ὀδυσσεύς", true], // two lower cases of one letter
  ["ﬁn", "FIN", true],
  ["ann", "anna", false],
  ["zoe", "zoë", false],
  ["ann", "аnn", false], // Cyrillic: it only looks alike
])("whether %j and %j are one name: %j", (one, other, same) => {
  expect(nameKey(one) === nameKey(other)).toBe(same);
});

test("a stream gives the same lines wherever it is cut", () => {
  const text = "first\r\n\n2😀\n12345678\r\n123456789\n\r\n1234567é\n12345678\n";
  // Each invalid byte is said as three: so three of them are too long for a limit of 8, too.
  const invalid = Buffer.of(0xff, 0xff, 0x0a, 0xff, 0xff, 0xff, 0x0a);
  const stream = Buffer.concat([Buffer.from(text), invalid, Buffer.from("last")]);
  const whole = ["first", "", "2😀", "12345678", null, "", null, "12345678"];
  const lines = [...whole, "\ufffd\ufffd", null, "last"];
  for (let size = 1; size <= stream.length; size++) {
    const frame = createFramer(8);
    const found: (string | null)[] = [];
    for (let at = 0; at < stream.length; at += size)
      found.push(...frame(stream.subarray(at, at + size)));
    expect([...found, ...frame(null)], `in pieces of ${size} bytes`).toEqual(lines);
  }
});

test.each<number[]>([
  [0x80], // a continuation without a beginning
  [0xc3], // a beginning without its continuation
  [0xc0, 0xaf], // overlong
  [0xe0, 0x80, 0x80], // overlong
  [0xed, 0xa0, 0x80], // a surrogate
  [0xf4, 0x90, 0x80, 0x80], // beyond U+10FFFF
  [0xff], // never
])("invalid UTF-8 is replaced", (...bytes) => {
  const [line] = createFramer(99)(Buffer.of(0x3c, ...bytes, 0x3e, 0x0a));
  expect(line).toMatch(/^<\ufffd+>$/);
});

test.each([
  ["12345678\r", "12345678"],
  ["123456789", null],
])("the end of a stream is the end of its last line: %j", (text, line) => {
  const frame = createFramer(8);
  expect([...frame(Buffer.from(text)), ...frame(null)]).toEqual([line]);
});

test("a line is too long as it was sent, or as it is said, and as soon as that is sure", () => {
  const frame = createFramer(12);
  expect(frame(Buffer.from("\x1b[31m1234567\n\x1b[31m12345678\n"))).toEqual(["1234567", null]);
  expect(frame(Buffer.of(0xff, 0xff, 0xff, 0xff, 0x0a))).toEqual(["\ufffd".repeat(4)]);
  expect(frame(Buffer.from("x".repeat(13)))).toEqual([]); // the next may be LF, and this CR
  expect(frame(Buffer.from("x"))).toEqual([null]);
});

test("a stream that begins in the middle of a line begins with the next one", () => {
  const frame = createFramer(8, true);
  const chunks = ["of a line", " that is long\none\ntwo\n"];
  expect(chunks.flatMap((chunk) => frame(Buffer.from(chunk)))).toEqual(["one", "two"]);
});

test("a chunk's memory may be used again when its lines are cut", () => {
  const frame = createFramer(8);
  const chunk = Buffer.from("a\nbc");
  expect(frame(chunk)).toEqual(["a"]);
  chunk.fill("x");
  expect(frame(Buffer.from("d\n"))).toEqual(["bcd"]);
});
