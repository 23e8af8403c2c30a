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
  /** Appends so many batches, or all that wait. */
  const drain = (count = Infinity) => {
    const batches = [];
    for (let batch; count-- > 0 && (batch = queue.next()); queue.acknowledge()) batches.push(batch);
    return batches;
  };
  return { queue, told, push, drain };
}

test("what waits is appended together, in order, and nothing twice", () => {
  const { push, drain } = queueOf("one\n", "two 😀\n");
  expect(drain()).toEqual([{ number: 1, block: "one\ntwo 😀\n", freed: [] }]);
  push("three\n");
  expect(drain()).toEqual([{ number: 2, block: "three\n", freed: [] }]);
});

test("what Redis has not acknowledged is sent again as it was, whatever else waits by then", () => {
  const { queue, push, drain } = queueOf("one\n");
  const one = { number: 1, block: "one\n", freed: [] };
  expect(queue.next()).toEqual(one);
  push("two\n");
  expect(drain()).toEqual([one, { number: 2, block: "two\n", freed: [] }]);
});

test("a name is freed with the lines before it, and not before them", () => {
  const { queue, push, drain } = queueOf(lineOf(60_000), lineOf(60_000));
  queue.free("ann");
  push("bob: hi\n");
  queue.free("bob");
  expect(drain().map(({ freed }) => freed)).toEqual([[], ["ann", "bob"]]);
});

test("it is empty when everything that was said is appended for sure", () => {
  const { queue, push } = queueOf(""); // which nobody has said
  queue.next();
  expect(queue.isEmpty).toBe(true);
  queue.acknowledge();
  push("one\n");
  expect(queue.isEmpty).toBe(false);
  queue.next();
  expect(queue.isEmpty).toBe(false);
  queue.acknowledge();
  expect(queue.isEmpty).toBe(true);
});

test("a batch is 64 KiB at most, unless it is a single block", () => {
  const { drain } = queueOf(...[30_000, 35_536, 1, 100_000, 65_536].map(lineOf));
  expect(drain().map(({ block }) => block.length)).toEqual([65_536, 1, 100_000, 65_536]);
});

test("a flood should slow down when more than half of what may wait does", () => {
  const { queue, push } = queueOf(lineOf(full / 2));
  expect(queue.isBehind).toBe(false);
  push("\n");
  expect(queue.isBehind).toBe(true);
  queue.next();
  expect(queue.isBehind).toBe(false);
});

test("what is too much is missing, and everyone is told, where and how many lines", () => {
  const { told, push, drain } = queueOf(...Array(8).fill(lineOf(full / 8)));
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
  const { queue, told, push, drain } = queueOf(lineOf(full), "one\n");
  queue.free("ann"); // for which there is always room
  const missing = "* 1 lines from server 1 on here are missing here\n";
  expect(drain().map(({ block }) => block)).toEqual([lineOf(full), "", missing]);
  push("two\n");
  expect(drain()[0]?.block).toBe("two\n");
  expect(told.length).toBe(2);
});
