import { expect, test } from "bun:test";
import { explain, redirection } from "../parts/redis/node.ts";
import { parseEntry } from "../parts/redis/store.ts";

const fields = { from: "host/1/a", number: "7", entry: "12", block: "ann: hi\nann: 😀\n" };
const entry = { streamId: "1-0", from: fields.from, number: 7, position: 12, block: fields.block };

/** Parses an entry as Redis gives it: its fields' names and values in turn. */
const parse = (given: object) => parseEntry("1-0", Object.entries(given).flat());

test("an entry is understood, whatever else is in it", () => {
  expect(parse({ ...fields, via: "from", later: "1" })).toEqual(entry);
  expect(parse({ ...fields, block: "", number: "0" })).toEqual({ ...entry, block: "", number: 0 });
});

test.each(["from", "number", "entry", "block"] as const)(
  "without %s it is none of ours",
  (name) => {
    const { [name]: _, ...others } = fields;
    expect(parse(others)).toBeUndefined();
  },
);

test.each([
  { from: "" },
  { number: "" },
  { number: "-1" },
  { number: "9".repeat(16) }, // more than a number can hold
  { entry: "1.5" },
  { entry: "9".repeat(16) },
  { block: "ann: hi\nann: half a li" },
])("an entry with %j is none of ours", (change) => {
  expect(parse({ ...fields, ...change })).toBeUndefined();
});

test.each([
  ["AUTHENTICATION_FAILED", "Redis at a.example:1 does not accept the password, or wants one: "],
  ["CONNECTION_CLOSED", "cannot reach Redis at a.example:1: start it, or "],
  [
    "CONNECTION_TIMEOUT",
    "Redis at a.example:1 takes more than 4 s to answer: check the way to it, or ",
  ],
  ["IDLE_TIMEOUT", "Redis at a.example:1 takes more than 4 s to answer: check the way to it, or "],
])("after an error of kind %s, the password is not shown", (code, reason) => {
  const error = Object.assign(new Error("failed"), { code: `ERR_REDIS_${code}` });
  expect(explain("redis://user:secret@a.example:1/0", error)).toBe(`${reason}check --redis`);
});

const known = "redis://user:secret@a.example:1/0";

test.each([
  ["MOVED 3937 10.0.0.2:7002", "redis://user:secret@10.0.0.2:7002/0", false],
  ["ASK 3937 b.example:7002", "redis://user:secret@b.example:7002/0", true],
  ["MOVED 3937 2001:db8::1:7002", "redis://user:secret@[2001:db8::1]:7002/0", false],
  ["MOVED 3937 :7002", "redis://user:secret@a.example:7002/0", false],
])("'%s' names the node to go to, with the same password", (message, url, isImporting) => {
  expect(redirection(known, new Error(message))).toEqual({ url, isImporting });
});

test.each([
  "ERR MOVED 1 b:2",
  "MOVED",
  "TRYAGAIN Multiple keys request",
  "MOVED 1 b:2 script: 1f2e",
])("'%s' names no node", (message) => {
  expect(redirection(known, new Error(message))).toBeUndefined();
});

test("what Redis refuses is said in its own words, without the script", () => {
  const said = explain("redis+unix:///run/redis.sock", new Error("READONLY replica script: 1f2e"));
  expect(said).toBe("cannot use Redis at /run/redis.sock: READONLY replica");
});
