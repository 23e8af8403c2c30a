import { expect, test } from "bun:test";
import { explain, redirection } from "../parts/redis/node.ts";
import { parseEntry } from "../parts/redis/store.ts";

const fields = { from: "host/1/a", number: "7", block: "ann: hi\nann: 😀\n" };

/** Parses an entry as Redis gives it: its fields' names and values in turn. */
const parse = (change: object) =>
  parseEntry("1-1", Object.entries({ ...fields, ...change }).flat());

test("an entry is understood, whatever else is in it", () => {
  const entry = { streamId: "1-1", ...fields, number: 7 };
  expect(parse({ later: "1" })).toEqual(entry);
  expect(parse({ block: "", number: "0" })).toEqual({ ...entry, block: "", number: 0 });
});

const tooMuch = "9".repeat(16); // for a number

test.each([{ from: "" }, { number: "" }, { number: "-1" }, { number: tooMuch }, { block: "half" }])(
  "an entry with %j is none of ours",
  (change) => expect(parse(change).number).toBeNaN(),
);

const url = "redis://user:secret@a.example:1/0";

test.each([
  ["MOVED 3937 10.0.0.2:7002", "redis://user:secret@10.0.0.2:7002/0"],
  ["MOVED 3937 2001:db8::1:7002", "redis://user:secret@[2001:db8::1]:7002/0"],
  ["MOVED 3937 :7002", "redis://user:secret@a.example:7002/0"],
  ["ERR MOVED 1 b:2", undefined],
  ["MOVED", undefined],
  ["MOVED 1 b:2 script: 1f2e", undefined],
])("'%s' names the node to go to, with the same password, or none", (message, to) => {
  expect(redirection(url, new Error(message))).toBe(to);
});

test("what Redis refuses is said in its own words, without the script", () => {
  const said = explain("redis+unix:///run/redis.sock", new Error("READONLY replica script: 1f2e"));
  expect(said).toBe("cannot use Redis at /run/redis.sock: READONLY replica");
});
