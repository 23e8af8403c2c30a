import { expect, test } from "bun:test";
import { Outbox } from "../parts/redis/outbox.ts";

const full = 8 * 2 ** 20; // so many bytes wait at most

const lineOf = (bytes: number) => `${"x".repeat(bytes - 1)}\n`;

/** An outbox with some blocks in it, and what the clients here were told. */
function outboxOf(...blocks: string[]) {
  const told: string[] = [];
  const box = new Outbox("server 1 on here", (text) => told.push(text));
  const push = (...more: string[]) => more.forEach((block) => box.push(Buffer.from(block)));
  push(...blocks);
  /** Appends so many parcels, or all that wait. */
  const drain = (count = Infinity) => {
    const parcels = [];
    for (let parcel; count-- > 0 && (parcel = box.next()); box.done()) parcels.push(parcel);
    return parcels;
  };
  return { box, told, push, drain };
}

test("what waits is appended together, in order, and nothing twice", () => {
  const { push, drain } = outboxOf("one\n", "two 😀\n");
  expect(drain()).toEqual([{ number: 1, block: "one\ntwo 😀\n", freed: [] }]);
  push("three\n");
  expect(drain()).toEqual([{ number: 2, block: "three\n", freed: [] }]);
});

test("what is in doubt is sent again as it was, whatever else waits by then", () => {
  const { box, push, drain } = outboxOf();
  const empty = { number: 1, block: "", freed: [] };
  expect(box.nextOrEmpty()).toEqual(empty);
  push("one\n");
  const one = { number: 2, block: "one\n", freed: [] };
  expect(drain(1)).toEqual([empty]);
  expect(box.next()).toEqual(one);
  push("two\n");
  expect(box.nextOrEmpty()).toEqual(one);
  expect(drain()).toEqual([one, { number: 3, block: "two\n", freed: [] }]);
});

test("a name is freed with the lines before it, and not before them", () => {
  const { box, push, drain } = outboxOf(lineOf(60_000), lineOf(60_000));
  box.free("ann");
  push("bob: hi\n");
  box.free("bob");
  expect(drain().map(({ freed }) => freed)).toEqual([[], ["ann", "bob"]]);
});

test("it is empty when everything that was said is appended for sure", () => {
  const { box, push } = outboxOf();
  box.nextOrEmpty(); // which nobody has said
  expect(box.isEmpty).toBe(true);
  box.done();
  push("one\n");
  expect(box.isEmpty).toBe(false);
  box.next();
  expect(box.isEmpty).toBe(false);
  box.done();
  expect(box.isEmpty).toBe(true);
});

test("a parcel is 64 KiB at most, unless it is a single block", () => {
  const { drain } = outboxOf(...[30_000, 35_536, 1, 100_000, 65_536].map(lineOf));
  expect(drain().map(({ block }) => block.length)).toEqual([65_536, 1, 100_000, 65_536]);
});

test("a flood should slow down when more than half of what may wait does", () => {
  const { box, push } = outboxOf(lineOf(full / 2));
  expect(box.isBehind).toBe(false);
  push("\n");
  expect(box.isBehind).toBe(true);
  box.next();
  expect(box.isBehind).toBe(false);
});

test("what is too much is missing, and everyone is told, where and how many lines", () => {
  const { told, push, drain } = outboxOf(...Array(8).fill(lineOf(full / 8)));
  expect(told).toEqual([]);
  push("one\ntwo\n", "three\n");
  drain(4);
  push("four\n"); // half of it still waits: they go on missing what is said
  expect(told).toEqual(["too much waits for the link: other servers miss what is said from now"]);
  drain(1);
  push("five\n");
  expect(told.slice(1)).toEqual(["other servers have missed 4 lines"]);
  expect(drain().at(-1)?.block).toBe("* 4 lines from server 1 on here are missing here\nfive\n");
});

test("that lines are missing is told once, also when nothing is said after them", () => {
  const { box, told, push, drain } = outboxOf(lineOf(full), "one\n");
  box.free("ann"); // for which there is always room
  const missing = "* 1 lines from server 1 on here are missing here\n";
  expect(drain().map(({ block }) => block)).toEqual([lineOf(full), "", missing]);
  push("two\n");
  expect(drain()[0]?.block).toBe("two\n");
  expect(told.length).toBe(2);
});
