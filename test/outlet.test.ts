import { expect, test } from "bun:test";
import { Outlet } from "../parts/outlet.ts";

/** Takes as many bytes as there is room for. */
class Sink {
  room = Infinity;
  text = "";
  sizes: number[] = []; // of the writes

  write = (bytes: Uint8Array): number => {
    const taken = Math.min(bytes.length, this.room);
    this.room -= taken;
    this.text += Buffer.from(bytes.subarray(0, taken)).toString();
    this.sizes.push(bytes.length);
    return taken;
  };
}

function pouring(room = Infinity): { outlet: Outlet; sink: Sink; push(text: string): void } {
  const [outlet, sink] = [new Outlet(), new Sink()];
  sink.room = room;
  outlet.pour(sink.write);
  return { outlet, sink, push: (text) => outlet.push(Buffer.from(text)) };
}

test("a block goes out at once if nothing waits", () => {
  const { outlet, sink, push } = pouring();
  push("one\n");
  push("two\n");
  expect(sink.text).toBe("one\ntwo\n");
  expect(outlet.lag).toBe(0);
});

test("what is not taken waits, is counted, and goes out in order as there is room", () => {
  const { outlet, sink, push } = pouring(3);
  push("one\n");
  push("two\n");
  expect([sink.text, outlet.lag]).toEqual(["one", 5]);
  sink.room = 2;
  outlet.flush();
  expect([sink.text, outlet.lag]).toEqual(["one\nt", 3]);
  outlet.flush();
  push("three\n");
  expect([sink.text, outlet.lag]).toEqual(["one\nt", 9]);
  sink.room = Infinity;
  outlet.flush();
  expect([sink.text, outlet.lag]).toEqual(["one\ntwo\nthree\n", 0]);
});

test("nothing overtakes what waits, not even when there is room again", () => {
  const { outlet, sink, push } = pouring(0);
  push("one\n");
  sink.room = Infinity;
  push("two\n");
  outlet.flush();
  expect(sink.text).toBe("one\ntwo\n");
});

test("everything waits for the first one who takes it, and what is left for the next", () => {
  const [outlet, first, second] = [new Outlet(), new Sink(), new Sink()];
  outlet.push(Buffer.from("one\n"));
  outlet.push(Buffer.from("two\n"));
  expect(outlet.lag).toBe(8);
  first.room = 5;
  outlet.pour(first.write);
  outlet.pour(second.write);
  outlet.push(Buffer.from("three\n"));
  expect([first.text, second.text]).toEqual(["one\nt", "wo\nthree\n"]);
});

test("many small blocks that wait go out in one write, large ones in several", () => {
  const { outlet, sink, push } = pouring(0);
  const lines = Array.from({ length: 1000 }, (_, n) => `line ${n}\n`);
  lines.forEach(push);
  [sink.room, sink.sizes] = [Infinity, []];
  outlet.flush();
  expect(sink.sizes).toEqual([lines.join("").length]);
  expect(sink.text).toBe(lines.join(""));

  sink.room = 0;
  for (let n = 0; n < 10; n++) push("x".repeat(100_000));
  [sink.room, sink.sizes] = [Infinity, []];
  outlet.flush();
  expect(sink.sizes.length).toBeGreaterThan(2);
  expect(outlet.lag).toBe(0);
});

test("it is emptied when nothing waits any more, each time", async () => {
  const { outlet, sink, push } = pouring();
  await outlet.emptied();
  for (const line of ["one\n", "two\n"]) {
    sink.room = 1;
    push(line);
    const emptied = outlet.emptied();
    sink.room = 1;
    outlet.flush();
    await Promise.resolve();
    expect(Bun.peek.status(emptied)).toBe("pending");
    sink.room = Infinity;
    outlet.flush();
    await emptied;
  }
});
