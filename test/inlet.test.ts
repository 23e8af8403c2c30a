import { expect, test } from "bun:test";
import type { Request } from "../parts/control.ts";
import { Inlet } from "../parts/inlet.ts";

const bytes = (text: string) => Buffer.from(text);
const who = (at: number): Request => ({ type: "who", at });

/** What comes next: a block as its text, a request as its place. */
async function next(said: AsyncGenerator<Uint8Array | Request, void>) {
  const { value } = await said.next();
  return value instanceof Uint8Array ? Buffer.from(value).toString() : value?.at;
}

/** Everything that comes. */
async function all(inlet: Inlet): Promise<(string | number)[]> {
  const said = inlet[Symbol.asyncIterator]();
  const found: (string | number)[] = [];
  for (let item; (item = await next(said)) !== undefined;) found.push(item);
  return found;
}

test("a stream comes as blocks of whole lines, wherever it is cut", async () => {
  const stream = bytes("one\n\ntwo 😀\nthree, a longer one\n");
  for (let size = 1; size <= stream.length; size++) {
    const inlet = new Inlet(100);
    const found = all(inlet);
    for (let at = 0; at < stream.length; at += size)
      await inlet.push(stream.subarray(at, at + size));
    inlet.end();
    const blocks = await found;
    expect(blocks.join(""), `in pieces of ${size} bytes`).toBe(stream.toString());
    for (const block of blocks) expect(block).toEndWith("\n");
  }
});

test("lines that come together stay together", async () => {
  const inlet = new Inlet(100);
  inlet.push(bytes("one\ntwo\nthr"));
  inlet.push(bytes("ee\nfour\n"));
  inlet.end();
  expect(await all(inlet)).toEqual(["one\ntwo\n", "three\nfour\n"]);
});

test("a request is given in its place among the lines, however early it comes", async () => {
  const inlet = new Inlet(100);
  for (const at of [0, 4, 4, 8]) inlet.ask(who(at));
  inlet.push(bytes("one\ntw"));
  inlet.push(bytes("o\n"));
  inlet.end();
  expect(await all(inlet)).toEqual([0, "one\n", 4, 4, "two\n", 8]);
});

test("a request that comes late is given before the lines that wait", async () => {
  const inlet = new Inlet(100);
  inlet.push(bytes("one\n"));
  const said = inlet[Symbol.asyncIterator]();
  expect(await next(said)).toBe("one\n");
  inlet.push(bytes("two\n"));
  inlet.ask(who(4));
  expect([await next(said), await next(said)]).toEqual([4, "two\n"]);
});

test("who waits for something gets whatever comes", async () => {
  const inlet = new Inlet(100);
  const said = inlet[Symbol.asyncIterator]();
  const [request, block, end] = [next(said), next(said), next(said)];
  inlet.ask(who(0));
  expect(await request).toBe(0);
  inlet.push(bytes("one\n"));
  expect(await block).toBe("one\n");
  inlet.end();
  expect(await end).toBeUndefined();
});

test("the stream is read on only when what was read is dealt with", async () => {
  const inlet = new Inlet(100);
  expect(inlet.push(bytes("one\n"))).toBeUndefined();
  const room = [inlet.push(bytes("two\n"))!, inlet.push(bytes("three\n"))!];
  const said = inlet[Symbol.asyncIterator]();
  for (const line of ["one\n", "two\n", "three\n"]) {
    expect(await next(said)).toBe(line);
    expect(room.map(Bun.peek.status)).toEqual(["pending", "pending"]);
  }
  const later = next(said); // so the last line is dealt with
  await Promise.all(room);
  expect(inlet.push(bytes("four\n"))).toBeUndefined();
  expect(inlet.push(bytes("five\n"))).toBeInstanceOf(Promise);
  expect(await later).toBe("four\n");
});

test("requests are counted until they are dealt with", async () => {
  const inlet = new Inlet(100);
  expect([inlet.ask(who(0)), inlet.ask(who(0)), inlet.ask(who(9))]).toEqual([1, 2, 3]);
  const said = inlet[Symbol.asyncIterator]();
  await next(said);
  expect(inlet.ask(who(9))).toBe(4);
  await next(said);
  expect(inlet.ask(who(9))).toBe(4);
});

test("at the end, a line without its end is dropped, and so is a request behind it", async () => {
  const inlet = new Inlet(100);
  inlet.push(bytes("one\ntwo"));
  inlet.ask(who(4));
  inlet.ask(who(7));
  inlet.end();
  expect(await all(inlet)).toEqual(["one\n", 4]);
});

test("a line that goes on and on is an error, as soon as it is too long", async () => {
  for (const chunks of [["one\n12345678", "9"], ["1234", "5678", "9"], ["one\n123456789"]]) {
    const inlet = new Inlet(8);
    chunks.forEach((chunk) => inlet.push(bytes(chunk)));
    await expect(all(inlet)).rejects.toThrow("sent a line without end");
  }
  const inlet = new Inlet(8);
  ["12345678", "\n12345678", "\n"].forEach((chunk) => inlet.push(bytes(chunk)));
  inlet.end();
  expect(await all(inlet)).toEqual(["12345678\n", "12345678\n"]);
});
