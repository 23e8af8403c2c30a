import { expect, test } from "bun:test";
import { Outlet } from "../parts/server/outlet.ts";

/** Takes as many bytes as it has room for. */
const sink = (room = Infinity) => ({ room, text: "" });

/** An outlet to a sink, which `pour` replaces by another one; and blocks that have been pushed into it. */
function outletTo(sink: { room: number; text: string }, blocks: string[] = [], keep = 0) {
  const write = (bytes: Uint8Array) => {
    const taken = Math.min(bytes.length, sink.room);
    sink.room -= taken;
    sink.text += `${Buffer.from(bytes.subarray(0, taken))}`;
    return taken;
  };
  const outlet = new Outlet(write, keep);
  for (const block of blocks) outlet.push(Buffer.from(block));
  const pour = (into: typeof sink) => {
    sink = into;
    outlet.flush();
  };
  return Object.assign(outlet, { pour });
}

test("what is not taken waits, is counted, and goes out in order as there is room", () => {
  const to = sink(3);
  const outlet = outletTo(to, ["one\n", "two\n"], 1);
  expect([to.text, outlet.lag, outlet.isMidLine]).toEqual(["one", 5, true]);
  to.room = 2;
  outlet.flush();
  outlet.push(Buffer.from("three\n"));
  expect([to.text, outlet.lag]).toEqual(["one\nt", 9]);
  to.room = Infinity;
  outlet.push(Buffer.from("four\n")); // does not overtake what waits
  outlet.flush();
  expect([to.text, outlet.lag]).toEqual(["one\ntwo\nthree\nfour\n", 0]);
  expect(outlet.isMidLine).toBe(false);
});

test("what was written already counts as written, and the rest of it goes out", () => {
  const [to, next] = [sink(), sink()];
  const outlet = outletTo(to, [], 100);
  outlet.push(Buffer.from("one\n"), 4);
  expect([outlet.lag, outlet.isMidLine]).toEqual([0, false]);
  outlet.push(Buffer.from("two\n"), 1);
  expect([to.text, outlet.lag]).toEqual(["wo\n", 0]);
  expect(outlet.rewind(2)).toBe(true);
  outlet.pour(next);
  expect(next.text).toBe("e\ntwo\n");
});

test("what a dead process has not passed on goes out again, before what waits", () => {
  const [first, second, third, fourth] = [sink(12), sink(), sink(2), sink()];
  const outlet = outletTo(first, ["one\n", "two\n", "three\n"], 8);
  expect([outlet.rewind(13), outlet.rewind(3), outlet.lag]).toEqual([false, false, 2]); // taken: 12
  expect([outlet.rewind(12), outlet.lag]).toEqual([true, 2]);
  expect([outlet.rewind(6), outlet.lag]).toEqual([true, 8]);
  outlet.pour(second);
  outlet.push(Buffer.from("four\n"));
  expect([second.text, outlet.lag]).toEqual(["o\nthree\nfour\n", 0]);
  expect(outlet.rewind(10)).toBe(true);
  outlet.pour(third);
  expect([third.text, outlet.rewind(7)]).toEqual(["re", true]);
  outlet.pour(fourth);
  expect(fourth.text).toBe("\nthree\nfour\n");
});

test("where a line was cut, a new one begins, and the rest of the cut one is not written", () => {
  const [first, second] = [sink(11), sink()];
  const outlet = outletTo(first, ["ann: 1\nann: bob: 2\nann: 3\n", "ann: 4\n"], 100);
  outlet.beginLine();
  expect([first.text, outlet.lag]).toEqual(["ann: 1\nann:", 15]);
  outlet.pour(second);
  expect(second.text).toBe("\nann: 3\nann: 4\n");
  outlet.beginLine();
  outlet.pour(second);
  expect([second.text, outlet.lag]).toEqual(["\nann: 3\nann: 4\n\n", 0]);
});

test("what is kept of many blocks is the last of them, as much as it should be", () => {
  const digits = Array.from({ length: 5000 }, (_, n) => String(n % 10));
  const outlet = outletTo(sink(), digits, 8);
  expect([outlet.rewind(4991), outlet.rewind(4992), outlet.lag]).toEqual([false, true, 8]);
  const next = sink();
  outlet.pour(next);
  expect(next.text).toBe("23456789");
});

test("what is not kept any more costs no memory", async () => {
  const outlet = new Outlet((bytes) => bytes.length, 100_000);
  const blocks = Array.from({ length: 500 }, () => {
    const block = new Uint8Array(100_000);
    outlet.push(block);
    return new WeakRef(block);
  });
  await Bun.sleep(0); // until then, a WeakRef holds what it refers to
  Bun.gc(true);
  expect(blocks.filter((block) => block.deref()).length).toBeLessThan(50);
});
