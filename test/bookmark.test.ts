import { expect, test } from "bun:test";
import { Bookmark } from "../parts/redis/bookmark.ts";

/** A bookmark behind the tenth entry, and a function that reads a server's entry: what is it? */
function reader() {
  const bookmark = new Bookmark("10-0", 10);
  const read = (position: number, from: string, number: number) => {
    const entry = { streamId: `${position}-0`, position, from, number, block: "line\n" };
    const { isNew, isGap } = bookmark.read(entry);
    return (isNew ? "new" : "again") + (isGap ? ", behind a gap" : "");
  };
  return { bookmark, read };
}

test("entries in their order are new, and an entry that was sent again is not", () => {
  const { read } = reader();
  expect([read(11, "a", 1), read(12, "b", 7), read(13, "a", 2)]).toEqual(["new", "new", "new"]);
  expect([read(14, "a", 2), read(15, "a", 1), read(16, "a", 3)]).toEqual(["again", "again", "new"]);
});

test("reading goes on behind the last entry, understood or not", () => {
  const { bookmark, read } = reader();
  expect(read(11, "a", 1)).toBe("new");
  expect(bookmark.streamId).toBe("11-0");
  bookmark.streamId = "11-1";
  expect(read(12, "a", 2)).toBe("new"); // who wrote the other did not count it
});

test("there is a gap where entries were trimmed, and where Redis has lost its end", () => {
  const { read } = reader();
  expect(read(12, "a", 1)).toBe("new, behind a gap");
  expect(read(13, "a", 2)).toBe("new");
  expect(read(13, "a", 3)).toBe("new, behind a gap"); // the number was given before
  expect(read(14, "a", 5)).toBe("new, behind a gap"); // and this server has appended one more
});

test.each([
  ["9-9", true],
  ["10-0", true],
  ["10-1", false],
  ["10-2", false],
  ["11-0", false],
])("whether a stream that ends at %s has lost what was read to 10-1: %p", (end, isBeyond) => {
  const { bookmark } = reader();
  bookmark.streamId = "10-1";
  expect(bookmark.isBeyond(end)).toBe(isBeyond);
});

test("the examples of the comment on read()", () => {
  const { read } = reader();
  read(10, "a", 4);
  expect([read(11, "a", 5), read(12, "b", 7), read(13, "a", 5)]).toEqual(["new", "new", "again"]);
  expect([read(15, "b", 8), read(16, "a", 7)]).toEqual(Array(2).fill("new, behind a gap"));
  expect(read(17, "b", 0)).toBe("new");
});

test("the last words in the name of a lost server are always new, and change no number", () => {
  const { read } = reader();
  read(11, "a", 5);
  expect([read(12, "a", 0), read(13, "a", 0), read(14, "b", 0)]).toEqual(["new", "new", "new"]);
  expect([read(15, "a", 5), read(16, "a", 6), read(17, "b", 3)]).toEqual(["again", "new", "new"]);
  expect(read(19, "a", 0)).toBe("new, behind a gap");
});
