import { expect, test } from "bun:test";
import { Outbox } from "../parts/outbox.ts";

const lines = (text: string) => Buffer.from(text);
const mebibyte = 2 ** 20;
const full = 8 * mebibyte; // so much waits at most

/** A line of so many bytes. */
const lineOf = (bytes: number) => lines(`${"x".repeat(bytes - 1)}\n`);

/** An outbox, and what the clients here were told. */
function outbox() {
  const told: string[] = [];
  return { box: new Outbox("server 1 on here", (text) => told.push(text)), told };
}

/** Appends everything that waits. */
function drain(box: Outbox): string[] {
  const blocks: string[] = [];
  for (let parcel; (parcel = box.next()); box.done()) blocks.push(parcel.block);
  return blocks;
}

test("what waits is appended together, in order, and nothing twice", () => {
  const { box } = outbox();
  box.push(lines("one\n"));
  box.push(lines("two 😀\n"));
  expect(box.next()).toEqual({ number: 1, block: "one\ntwo 😀\n", freed: [] });
  box.done();
  expect(box.next()).toBeUndefined();
  box.push(lines("three\n"));
  expect(box.next()).toEqual({ number: 2, block: "three\n", freed: [] });
});

test("what is in doubt is sent again as it was, whatever else waits by then", () => {
  const { box } = outbox();
  box.push(lines("one\n"));
  const inDoubt = { ...box.next()! };
  box.push(lines("two\n"));
  expect(box.next()).toEqual(inDoubt);
  expect(box.nextOrEmpty()).toEqual(inDoubt);
  box.done();
  expect(box.next()?.block).toBe("two\n");
});

test("if nothing waits, an empty parcel is made, and it is in doubt as others are", () => {
  const { box } = outbox();
  const empty = { number: 1, block: "", freed: [] };
  expect(box.nextOrEmpty()).toEqual(empty);
  box.push(lines("one\n"));
  expect(box.next()).toEqual(empty);
  box.done();
  expect(box.nextOrEmpty()).toEqual({ number: 2, block: "one\n", freed: [] });
});

test("a name is freed with the lines before it, and not before them", () => {
  const { box } = outbox();
  box.push(lineOf(60_000));
  box.push(lineOf(60_000));
  box.free("ann");
  box.push(lines("bob: hi\n"));
  box.free("bob");
  expect(box.next()?.freed).toEqual([]);
  box.done();
  expect(box.next()?.freed).toEqual(["ann", "bob"]);
});

test("it is empty when everything that was said is appended for sure", () => {
  const { box } = outbox();
  expect(box.isEmpty).toBe(true);
  box.push(lines("one\n"));
  expect(box.isEmpty).toBe(false);
  box.next();
  expect(box.isEmpty).toBe(false);
  box.done();
  expect(box.isEmpty).toBe(true);
  box.nextOrEmpty(); // which nobody has said
  expect(box.isEmpty).toBe(true);
});

test("a parcel is 64 KiB at most, unless it is a single block", () => {
  const { box } = outbox();
  for (const size of [30_000, 35_536, 1, 100_000, 65_536]) box.push(lineOf(size));
  expect(drain(box).map((block) => block.length)).toEqual([65_536, 1, 100_000, 65_536]);
});

test("a flood should slow down when more than half of what may wait does", () => {
  const { box } = outbox();
  box.push(lineOf(full / 2));
  expect(box.isBehind).toBe(false);
  box.push(lines("\n"));
  expect(box.isBehind).toBe(true);
  box.next();
  expect(box.isBehind).toBe(false);
});

test("what is too much is missing, and everyone is told, where and how many lines", () => {
  const { box, told } = outbox();
  for (let n = 0; n < 8; n++) box.push(lineOf(mebibyte));
  expect(told).toEqual([]);
  box.push(lines("one\ntwo\n"));
  box.push(lines("three\n"));
  expect(told).toEqual(["too much waits for the link: other servers miss what is said from now"]);
  for (let n = 0; n < 4; n++, box.done()) box.next();
  box.push(lines("four\n")); // half of it still waits: the end of what is missing is not yet
  expect(told.length).toBe(1);
  box.next();
  box.push(lines("five\n"));
  expect(told.slice(1)).toEqual(["other servers have missed 4 lines"]);
  expect(drain(box).slice(4)).toEqual(["* 4 lines from server 1 on here are missing here\nfive\n"]);
});

test("that lines are missing is also told when nothing is said after them, once", () => {
  const { box, told } = outbox();
  box.push(lineOf(full));
  box.push(lines("one\n"));
  expect(drain(box).slice(1)).toEqual(["* 1 lines from server 1 on here are missing here\n"]);
  expect(told.length).toBe(2);
  box.push(lines("two\n"));
  expect(drain(box)).toEqual(["two\n"]);
});

test("a name is freed even if there is no room for lines", () => {
  const { box } = outbox();
  box.push(lineOf(full));
  box.push(lines("one\n"));
  box.free("ann");
  box.next();
  box.done();
  expect(box.next()?.freed).toEqual(["ann"]);
});
