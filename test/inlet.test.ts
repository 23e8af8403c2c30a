import { expect, test } from "bun:test";
import type { Request } from "../parts/shared/control.ts";
import { Inlet } from "../parts/server/inlet.ts";

const who = (at: number): Request => ({ type: "who", at });

/** An inlet for lines of at most 8 bytes, and chunks that have come. */
function inletOf(...chunks: string[]) {
  const inlet = new Inlet(8);
  const push = (chunk: string) => inlet.push(Buffer.from(chunk));
  chunks.forEach(push);
  const said = inlet[Symbol.asyncIterator]();
  /** What comes next: a block's text, a request's place, or nothing more. */
  const next = async () => {
    const { value } = await said.next();
    return value instanceof Uint8Array ? Buffer.from(value).toString() : value?.at;
  };
  /** All that comes until the end. */
  const all = async () => {
    const found: (string | number)[] = [];
    for (let item; (item = await next()) !== undefined;) found.push(item);
    return found;
  };
  return { inlet, push, next, all };
}

test("a stream comes as blocks of whole lines, wherever it is cut", async () => {
  const stream = Buffer.from("one\n\ntwo 😀\nthree\n");
  for (let size = 1; size <= stream.length; size++) {
    const { inlet, all } = inletOf();
    const found = all();
    for (let at = 0; at < stream.length; at += size)
      await inlet.push(stream.subarray(at, at + size));
    inlet.end();
    expect((await found).join(""), `in pieces of ${size} bytes`).toBe(stream.toString());
    for (const block of await found) expect(block).toEndWith("\n");
  }
});

test("each request comes in its place among the lines, however early it was asked", async () => {
  const { inlet, all } = inletOf("one\ntwo\nth", "ree\n");
  for (const at of [0, 8, 8, 14]) inlet.ask(who(at));
  inlet.end();
  expect(await all()).toEqual([0, "one\ntwo\n", 8, 8, "three\n", 14]);
});

test("a request that is late comes before the lines that wait", async () => {
  const { inlet, next } = inletOf("one\n", "two\n");
  expect(await next()).toBe("one\n");
  inlet.ask(who(4));
  expect([await next(), await next()]).toEqual([4, "two\n"]);
});

test("who waits for something gets whatever comes", async () => {
  const { inlet, push, next } = inletOf();
  const [request, block, end] = [next(), next(), next()];
  inlet.ask(who(0));
  expect(await request).toBe(0);
  push("one\n");
  expect(await block).toBe("one\n");
  inlet.end();
  expect(await end).toBeUndefined();
});

test("a stream has to wait until all that came of it is dealt with, each time", async () => {
  const { push, next } = inletOf();
  let line = next();
  for (let round = 0; round < 2; round++) {
    expect(push("one\n")).toBeUndefined();
    const room = [push("two\n")!, push("three\n")!];
    for (const said of ["one\n", "two\n", "three\n"]) {
      expect(await line).toBe(said);
      expect(room.map(Bun.peek.status)).toEqual(["pending", "pending"]);
      line = next();
    }
    await Promise.all(room);
  }
});

test("requests are counted until they are dealt with", async () => {
  const { inlet, next } = inletOf();
  expect([inlet.ask(who(0)), inlet.ask(who(0)), inlet.ask(who(9))]).toEqual([1, 2, 3]);
  await next();
  expect(inlet.ask(who(9))).toBe(4);
  await next();
  expect(inlet.ask(who(9))).toBe(4);
});

test("at the end, a line without its end is dropped, and so is a request behind it", async () => {
  const { inlet, all } = inletOf("one\ntwo");
  inlet.ask(who(4));
  inlet.ask(who(7));
  inlet.end();
  expect(await all()).toEqual(["one\n", 4]);
});

test("a line that goes on and on is an error, as soon as it is too long", async () => {
  for (const chunks of [["one\n12345678", "9"], ["1234", "5678", "9"], ["one\n123456789"]])
    await expect(inletOf(...chunks).all()).rejects.toThrow("sent a line without end");
  const { inlet, all } = inletOf("12345678", "\n12345678", "\n");
  inlet.end();
  expect(await all()).toEqual(["12345678\n", "12345678\n"]);
});
