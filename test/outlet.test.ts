import { expect, test } from "bun:test";
import { Outlet } from "../parts/outlet.ts";

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
