/** The parts of a link to other servers, without a Redis. */
import { expect, test } from "bun:test";
import { Bookmark } from "../parts/redis/bookmark.ts";
import { explain, redirection } from "../parts/redis/node.ts";
import { AppendQueue } from "../parts/redis/queue.ts";
import { LinkState } from "../parts/redis/state.ts";
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

test.each([
  ["the comment on read()", "11a5 12b7 13a5 15b8 16a7 17b0", "new new again gap gap new"],
  ["a Redis that has lost its end", "11a1 11a2 12a3", "new gap new"],
  ["a Redis that has lost everything", "11a1 1a2 2a3", "new gap new"],
  ["last words, which change no number", "11a5 12a0 13a0 14a6", "new new new new"],
  ["what no server wrote", "14- 15a0 17a0", "again new gap"],
])("%s: what is new, and where something is missing", (_, entries, said) => {
  const bookmark = new Bookmark("1000-10");
  const read = entries.split(" ").map((entry) => {
    const [, position, from, number] = /^(\d+)(\D)(\d*)$/.exec(entry) as string[];
    const streamId = `${1000 + Number(position)}-${position}`;
    const parsed = { from: from!, number: parseInt(number!), block: "line\n" };
    const { isNew, isGap } = bookmark.read({ streamId, ...parsed });
    expect(bookmark.streamId).toBe(streamId);
    return isNew ? (isGap ? "gap" : "new") : "again";
  });
  expect(read.join(" ")).toBe(said);
});

test.each([
  ["999-99", true],
  ["1000-9", true],
  ["1000-10", false],
  ["1001-1", false],
])("whether a stream that ends at %s has lost what was read: %p", (end, isLost) => {
  const bookmark = new Bookmark("1000-10");
  bookmark.endsAt(end);
  expect(bookmark.streamId).toBe(isLost ? end : "1000-10");
});

const full = 8 * 2 ** 20; // so many bytes wait at most

const lineOf = (bytes: number) => `${"x".repeat(bytes - 1)}\n`;

/** A queue with some blocks in it, and what the clients here were told. */
function queueOf(...blocks: string[]) {
  const told: string[] = [];
  const queue = new AppendQueue("server 1 on here", (text) => told.push(text));
  const push = (...more: string[]) => more.forEach((block) => queue.push(Buffer.from(block)));
  push(...blocks);
  /** Appends all that wait; gives what was appended. */
  const drain = () => {
    const batches = [];
    for (let batch; (batch = queue.next()); queue.acknowledge()) batches.push(batch);
    return batches.map(({ number, block, freed }) => ({ number, block, freed }));
  };
  return { queue, told, push, drain };
}

test("what waits is appended together, in order; what is not acknowledged is sent as it was", () => {
  const { queue, push, drain } = queueOf("one\n", "two 😀\n");
  const first = { number: 1, block: "one\ntwo 😀\n", freed: [] };
  expect(queue.next()).toMatchObject(first);
  push("three\n", "four\n");
  expect(queue.isEmpty).toBe(false);
  expect(drain()).toEqual([first, { number: 2, block: "three\nfour\n", freed: [] }]);
  push(""); // which nobody has said
  expect(queue.isEmpty).toBe(true);
});

test("a name is freed with the lines before it, and not before them", () => {
  const { queue, push, drain } = queueOf(lineOf(60_000), lineOf(60_000));
  queue.free("ann");
  push("bob: hi\n");
  queue.free("bob");
  expect(drain().map(({ freed }) => freed)).toEqual([[], ["ann", "bob"]]);
});

test("a batch is 64 KiB at most, unless it is a single block", () => {
  const { drain } = queueOf(...[30_000, 35_536, 1, 100_000, 65_536].map(lineOf));
  expect(drain().map(({ block }) => block.length)).toEqual([65_536, 1, 100_000, 65_536]);
});

test("what is too much is missing, and everyone is told once, where and how many lines", () => {
  const { queue, told, push, drain } = queueOf(lineOf(full / 2), lineOf(full / 2));
  expect([queue.isBehind, told]).toEqual([true, []]); // a flood should slow down
  push("one\ntwo\n", "three\n");
  queue.free("ann"); // for which there is always room
  queue.next();
  queue.acknowledge();
  push("four\n"); // half of it still waits: they go on missing what is said
  expect(queue.isBehind).toBe(false);
  expect(told).toEqual(["too much waits for the link: other servers miss what is said from now"]);
  const missing = "* 4 lines from server 1 on here are missing here\n";
  const appended = drain().map(({ block }) => (block.length < 100 ? block : block.length));
  expect(appended).toEqual([full / 2, "", missing]);
  expect(told.slice(1)).toEqual(["other servers have missed 4 lines"]);
  push("five\n");
  expect(drain()[0]?.block).toBe("five\n");
});

const lost = "link to other servers lost";
const back = "link is back";
const slow = (seconds: number) =>
  `link to other servers is slow: lines come about ${seconds} s late`;

/** Lets events happen to a link, a number being an answer's round trip; gives what the room was told. */
function told(...events: ("connected" | "lost" | "close" | number)[]): string[] {
  const notices: string[] = [];
  const state = new LinkState((text) => notices.push(text));
  for (const event of events)
    if (typeof event === "number") state.answered(event);
    else if (event === "close") state.close("leave");
    else state[event]();
  return notices;
}

test.each([
  ["a link that found another node in time is not lost", ["connected", 5, "connected"], []],
  ["a link between quick and slow stays what it was", [1900, 2001, 1500, 1001], [slow(2)]],
  ["one quick answer does not make it quick", [4000, 5, 5, 5], [slow(4)]],
  ["a link that is back has no past", [4000, "lost", "connected", 5, 5], [slow(4), lost, back]],
  ["of a link that is closed nothing is told", ["close", "lost", "connected", 5000], []],
] as const)("%s", (_, events, notices) => {
  expect(told(...events)).toEqual([...notices]);
});
