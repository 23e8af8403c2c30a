import { expect, test } from "bun:test";
import { explain, parseEntry } from "../parts/redis.ts";

/** The fields of an entry as Redis gives them, some of them changed or left out. */
function fields(changes: Record<string, string | undefined> = {}): string[] {
  const all = {
    from: "host/1/a",
    number: "7",
    entry: "12",
    block: "ann: hi\nann: 😀\n",
    ...changes,
  };
  return Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [name, value]));
}

const entry = {
  streamId: "1-0",
  from: "host/1/a",
  number: 7,
  position: 12,
  block: "ann: hi\nann: 😀\n",
};

test("an entry is understood, whatever the order of its fields and whatever else is in it", () => {
  expect(parseEntry("1-0", fields())).toEqual(entry);
  expect(parseEntry("1-0", ["later", "1", "block", entry.block, ...fields()])).toEqual(entry);
});

test("an empty block is a block, and a lost server's last words are number 0", () => {
  const changed = fields({ block: "", number: "0" });
  expect(parseEntry("1-0", changed)).toEqual({ ...entry, block: "", number: 0 });
});

test.each([
  { from: undefined },
  { from: "" },
  { number: undefined },
  { number: "" },
  { number: "-1" },
  { number: "1.5" },
  { number: "9".repeat(16) },
  { entry: undefined },
  { entry: "0x1" },
  { entry: "9".repeat(16) },
  { block: undefined },
  { block: "ann: hi" },
  { block: "ann: hi\nann: half a li" },
])("an entry with %j is none of ours", (changes: Record<string, string | undefined>) => {
  expect(parseEntry("1-0", fields(changes))).toBeUndefined();
});

test.each([
  ["ERR_REDIS_AUTHENTICATION_FAILED", "", /does not accept the password, or wants one/],
  ["ERR_REDIS_CONNECTION_CLOSED", "", /^cannot reach .*: start it, or check --redis$/],
  ["ERR_REDIS_IDLE_TIMEOUT", "", /^cannot reach /],
  [
    "ERR_REDIS_INVALID_RESPONSE",
    "READONLY replica script: 1f2e",
    /^cannot use .*: READONLY replica$/,
  ],
])("what is wrong with a Redis is said without its password: %s", (code, message, said) => {
  const text = explain(
    "redis://ann:secret@example.org:6380/1",
    Object.assign(Error(message), { code }),
  );
  expect(text).toMatch(said);
  expect(text).toContain("Redis at example.org:6380");
  expect(text).not.toContain("secret");
});

test("a Redis on a Unix socket is named by its path", () => {
  expect(explain("redis+unix:///run/redis.sock", new Error("busy"))).toBe(
    "cannot use Redis at /run/redis.sock: busy",
  );
});
