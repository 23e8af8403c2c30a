import { expect, test } from "bun:test";
import type { Request } from "../parts/shared/control.ts";
import { EndlessLine, Inlet } from "../parts/server/inlet.ts";

const who = (at: number): Request => ({ type: "who", at });

/** An inlet for lines of at most 8 bytes, chunks that have come, and what is heard of them, when it is read. */
function inletOf(...chunks: string[]) {
  const inlet = new Inlet(8);
  const push = (chunk: string) => inlet.push(Buffer.from(chunk));
  chunks.forEach(push);
  const heard: (string | number)[] = []; // blocks' texts and requests' places
  const read = (deal: () => Promise<void> | undefined = () => undefined) =>
    inlet.read((said) => {
      heard.push(said instanceof Uint8Array ? `${Buffer.from(said)}` : said.at);
      return deal();
    });
  /** Deals with one thing after the other, each when the test says so. */
  const slowly = () => {
    const dealt: PromiseWithResolvers<void>[] = [];
    void read(() => dealt[dealt.push(Promise.withResolvers()) - 1]!.promise);
    return async () => {
      dealt.shift()!.resolve();
      await new Promise<void>((resolve) => void setImmediate(resolve));
    };
  };
  return { inlet, push, heard, read, slowly };
}

test("a stream comes as blocks of whole lines, wherever it is cut", async () => {
  const stream = "one\n\ntwo 12\nthree\n";
  for (let size = 1; size <= stream.length; size++) {
    const { inlet, heard, read } = inletOf(...stream.match(RegExp(`[^]{1,${size}}`, "g"))!);
    inlet.end();
    await read();
    expect(heard.join(""), `in pieces of ${size} bytes`).toBe(stream);
    for (const block of heard) expect(block).toEndWith("\n");
  }
});

test("each request comes in its place among the lines, however early it was asked", async () => {
  const { inlet, heard, read } = inletOf("one\ntwo\nth", "ree\nrest");
  for (const at of [0, 8, 8, 14, 18]) inlet.ask(who(at));
  inlet.end(); // drops a line without its end, and a request behind it
  await read();
  expect(heard).toEqual([0, "one\ntwo\n", 8, 8, "three\n", 14]);
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
  const { inlet, push, heard, read } = inletOf("one\n", "two\n");
  await expect(read(() => Promise.reject(new Error("a fault")))).rejects.toThrow("a fault");
  for (let count = 0; count < 3; count++) expect(push("three\n")).toBeUndefined();
  inlet.ask(who(0));
  inlet.end();
  expect(heard).toEqual(["one\n"]);
});

test("a line that goes on and on is an error, as soon as it is too long", async () => {
  for (const chunks of [["one\n12345678", "9"], ["1234", "5678", "9"], ["one\n123456789"]])
    await expect(inletOf(...chunks).read()).rejects.toBeInstanceOf(EndlessLine);
  const { inlet, heard, read } = inletOf("12345678", "\n12345678", "\n");
  inlet.end();
  await read();
  expect(heard).toEqual(["12345678\n", "12345678\n"]);
});
