import { expect, test } from "bun:test";
import type { Request } from "../parts/shared/control.ts";
import { EndlessLine, Inlet, type Said } from "../parts/server/inlet.ts";

const who = (at: number): Request => ({ type: "who", at });

/** An inlet for lines of at most 8 bytes, and chunks that have come. */
function inletOf(...chunks: string[]) {
  const inlet = new Inlet(8);
  const push = (chunk: string) => inlet.push(Buffer.from(chunk));
  chunks.forEach(push);
  const heard: (string | number)[] = []; // blocks' texts and requests' places
  /** Deals with everything at once, until the end. */
  const all = async () => {
    await inlet.read((said) => void heard.push(textOf(said)));
    return heard;
  };
  /** Deals with one thing after the other, each when the test says so. */
  const slowly = () => {
    const dealt: PromiseWithResolvers<void>[] = [];
    void inlet.read((said) => {
      heard.push(textOf(said));
      dealt.push(Promise.withResolvers());
      return dealt.at(-1)!.promise;
    });
    return async () => {
      dealt.shift()!.resolve();
      await settle();
    };
  };
  return { inlet, push, heard, all, slowly };
}

const textOf = (said: Said) => (said instanceof Uint8Array ? `${Buffer.from(said)}` : said.at);
const settle = () => new Promise<void>((resolve) => void setImmediate(resolve));

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
  const { inlet, heard, slowly } = inletOf("one\n", "two\n");
  const next = slowly();
  inlet.ask(who(4));
  for (let count = 0; count < 2; count++) await next();
  expect(heard).toEqual(["one\n", 4, "two\n"]);
});

test("a stream has to wait until all that came of it is dealt with, each time", async () => {
  const { push, heard, slowly } = inletOf();
  const next = slowly();
  for (let round = 0; round < 2; round++) {
    heard.length = 0;
    expect(push("one\n")).toBeUndefined();
    const waits = [push("two\n")!, push("three\n")!];
    for (const said of ["one\n", "two\n", "three\n"]) {
      expect(heard.at(-1)).toBe(said);
      expect(waits.map(Bun.peek.status)).toEqual(["pending", "pending"]);
      await next();
    }
    await Promise.all(waits);
  }
});

test("an error in dealing with something ends the reading, and what comes then is dropped", async () => {
  const { inlet, push, heard } = inletOf("one\n", "two\n");
  const read = inlet.read((said) => {
    heard.push(textOf(said));
    return Promise.reject(new Error("a fault of ours"));
  });
  await expect(read).rejects.toThrow("a fault of ours");
  for (let count = 0; count < 3; count++) expect(push("three\n")).toBeUndefined();
  inlet.ask(who(0));
  inlet.end();
  expect(heard).toEqual(["one\n"]);
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
    await expect(inletOf(...chunks).all()).rejects.toBeInstanceOf(EndlessLine);
  const { inlet, all } = inletOf("12345678", "\n12345678", "\n");
  inlet.end();
  expect(await all()).toEqual(["12345678\n", "12345678\n"]);
});
