import { expect, test } from "bun:test";
import { Outlet } from "../parts/server/outlet.ts";

/** Takes as many bytes as it has room for. */
function sink(room = Infinity) {
  const state = { room, text: "", writes: 0 };
  const write = (bytes: Uint8Array) => {
    const taken = Math.min(bytes.length, state.room);
    state.room -= taken;
    state.text += Buffer.from(bytes.subarray(0, taken)).toString();
    state.writes++;
    return taken;
  };
  return Object.assign(state, { write });
}

/** An outlet to a sink, which a test may replace by another one; and blocks that have been pushed into it. */
function outletTo(to: ReturnType<typeof sink>, blocks: string[] = [], keep = 0) {
  let target = to;
  const outlet = new Outlet((bytes) => target.write(bytes), keep);
  for (const block of blocks) outlet.push(Buffer.from(block));
  const pour = (into: typeof to) => {
    target = into;
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
  const outlet = outletTo(first, [], 100);
  outlet.push(Buffer.from("ann: 1\nann: bob: 2\nann: 3\n"));
  outlet.push(Buffer.from("ann: 4\n"));
  outlet.beginLine();
  expect([first.text, outlet.lag]).toEqual(["ann: 1\nann:", 15]);
  outlet.pour(second);
  expect(second.text).toBe("\nann: 3\nann: 4\n");
  outlet.beginLine();
  outlet.pour(second);
  expect([second.text, outlet.lag]).toEqual(["\nann: 3\nann: 4\n\n", 0]);
});

test("what is kept of many blocks is the last of them, as much as it should be", () => {
  const outlet = outletTo(sink(), [], 8);
  for (let n = 0; n < 5000; n++) outlet.push(Buffer.from(String(n % 10)));
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
  expect(outlet.lag).toBe(0);
});
