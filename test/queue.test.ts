import { expect, test } from "bun:test";
import { AppendQueue } from "../parts/redis/queue.ts";

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
