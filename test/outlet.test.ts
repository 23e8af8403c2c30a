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

/** An outlet to a sink, and blocks that have been pushed into it. */
function outletTo(to: ReturnType<typeof sink>, ...blocks: string[]): Outlet {
  const outlet = new Outlet();
  outlet.pour(to.write);
  for (const block of blocks) outlet.push(Buffer.from(block));
  return outlet;
}

test("a block goes out at once if nothing waits", () => {
  const to = sink();
  expect(outletTo(to, "one\n", "two\n").lag).toBe(0);
  expect(to.text).toBe("one\ntwo\n");
});

test("what is not taken waits, is counted, and goes out in order as there is room", () => {
  const to = sink(3);
  const outlet = outletTo(to, "one\n", "two\n");
  expect([to.text, outlet.lag]).toEqual(["one", 5]);
  to.room = 2;
  outlet.flush();
  outlet.push(Buffer.from("three\n"));
  expect([to.text, outlet.lag]).toEqual(["one\nt", 9]);
  to.room = Infinity;
  outlet.push(Buffer.from("four\n")); // does not overtake what waits
  outlet.flush();
  expect([to.text, outlet.lag]).toEqual(["one\ntwo\nthree\nfour\n", 0]);
});

test("everything waits for the first one who takes it, and what is left for the next", () => {
  const [outlet, first, second] = [new Outlet(), sink(5), sink()];
  outlet.push(Buffer.from("one\n"));
  outlet.push(Buffer.from("two\n"));
  expect(outlet.lag).toBe(8);
  outlet.pour(first.write);
  outlet.pour(second.write);
  expect([first.text, second.text]).toEqual(["one\nt", "wo\n"]);
});

test("many small blocks that wait go out in one write, large ones in several", () => {
  const [small, large] = [sink(0), sink(0)];
  const lines = Array.from({ length: 1000 }, (_, n) => `line ${n}\n`);
  const blocks = ["a", "b", "c", "d", "e", "f"].map((letter) => letter.repeat(100_000));
  for (const [to, parts] of [
    [small, lines],
    [large, blocks],
  ] as const) {
    const outlet = outletTo(to, ...parts);
    [to.room, to.writes] = [50_000, 0];
    outlet.flush();
    to.room = Infinity;
    outlet.flush();
    expect(to.text === parts.join("")).toBe(true);
  }
  expect(small.writes).toBe(1);
  expect(large.writes).toBeGreaterThan(2);
});

test("it is emptied when nothing waits any more, each time", async () => {
  await new Outlet().emptied();
  const to = sink(0);
  const outlet = outletTo(to);
  for (const line of ["one\n", "two\n"]) {
    to.room = 1;
    outlet.push(Buffer.from(line));
    const emptied = outlet.emptied();
    outlet.flush();
    await Promise.resolve();
    expect(Bun.peek.status(emptied)).toBe("pending");
    to.room = Infinity;
    outlet.flush();
    await emptied;
  }
});

test("what a dead process has not passed on goes out again, before what waits", async () => {
  const [first, second, third, fourth] = [sink(12), sink(), sink(2), sink()];
  const outlet = new Outlet(8);
  outlet.pour(first.write);
  for (const line of ["one\n", "two\n", "three\n"]) outlet.push(Buffer.from(line));
  expect([outlet.rewind(13), outlet.rewind(3), outlet.lag]).toEqual([false, false, 2]); // taken: 12
  expect([outlet.rewind(12), outlet.lag]).toEqual([true, 2]);
  expect([outlet.rewind(6), outlet.lag]).toEqual([true, 8]);
  outlet.pour(second.write);
  outlet.push(Buffer.from("four\n"));
  expect([second.text, outlet.lag]).toEqual(["o\nthree\nfour\n", 0]);
  expect(outlet.rewind(10)).toBe(true);
  const emptied = outlet.emptied();
  await Promise.resolve();
  expect(Bun.peek.status(emptied)).toBe("pending");
  outlet.pour(third.write);
  expect([third.text, outlet.rewind(7)]).toEqual(["re", true]);
  outlet.pour(fourth.write);
  expect(fourth.text).toBe("\nthree\nfour\n");
});

test("what is kept of many blocks is the last of them, as much as it should be", () => {
  const outlet = new Outlet(8);
  outlet.pour(sink().write);
  for (let n = 0; n < 5000; n++) outlet.push(Buffer.from(String(n % 10)));
  expect([outlet.rewind(4991), outlet.rewind(4992), outlet.lag]).toEqual([false, true, 8]);
  const next = sink();
  outlet.pour(next.write);
  expect(next.text).toBe("23456789");
});

test("what a dead process has not passed on goes out again, exactly once, before what waits", () => {
  const outlet = new Outlet(10);
  const got: string[] = [];
  let room = 12;
  const write = (bytes: Uint8Array) => {
    const taken = Math.min(room, bytes.length);
    room -= taken;
    got.push(Buffer.from(bytes.subarray(0, taken)).toString());
    return taken;
  };
  outlet.pour(write);
  for (const block of ["abc\n", "defg\n", "hij\n", "k\n"]) outlet.push(Buffer.from(block));
  expect([got.join(""), outlet.lag]).toEqual(["abc\ndefg\nhij", 3]);
  outlet.pour(() => 0);
  expect(outlet.rewind(6)).toBe(true); // "abc\nde" has arrived
  expect(outlet.lag).toBe(9);
  [room, got.length] = [100, 0];
  outlet.pour(write);
  expect(got.join("")).toBe("fg\nhij\nk\n");
  // And again, from a later place.
  expect(outlet.rewind(13)).toBe(true);
  expect(outlet.rewind(13)).toBe(true); // nothing more to take back
  outlet.flush();
  expect(got.join("")).toBe("fg\nhij\nk\nk\n");
});

test("what is not kept any more cannot go out again", () => {
  const outlet = new Outlet(4);
  outlet.pour((bytes) => bytes.length);
  for (const block of ["aaa\n", "bbb\n", "ccc\n"]) outlet.push(Buffer.from(block));
  expect(outlet.rewind(8)).toBe(true);
  expect(outlet.rewind(3)).toBe(false);
  expect(outlet.rewind(99)).toBe(false);
});

test("a long stream keeps what it should", () => {
  const outlet = new Outlet(1000);
  outlet.pour((bytes) => bytes.length);
  for (let n = 0; n < 5000; n++) outlet.push(Buffer.from(`${String(n).padStart(9, "0")}\n`));
  let again = "";
  outlet.pour(() => 0);
  expect(outlet.rewind(50_000 - 1000)).toBe(true);
  outlet.pour((bytes) => ((again += Buffer.from(bytes).toString()), bytes.length));
  expect([again.length, again.slice(0, 10)]).toEqual([1000, "000004900\n"]);
});

test("what is not kept any more costs no memory", async () => {
  const outlet = new Outlet(100_000);
  outlet.pour((bytes) => bytes.length);
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
