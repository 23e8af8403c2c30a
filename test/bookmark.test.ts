import { expect, test } from "bun:test";
import { Bookmark } from "../parts/link.ts";

/** A bookmark behind the tenth entry of a stream, and a function that reads on. */
function reader() {
  const bookmark = new Bookmark();
  bookmark.set("10-0", 10);
  const read = (position: number, from: string, number: number) =>
    bookmark.move({ streamId: `${position}-0`, position, from, number, block: "line\n" });
  return { bookmark, read };
}

const fresh = { isNew: true, isGap: false };
const again = { isNew: false, isGap: false };
const gap = { isNew: true, isGap: true };

test("entries in their order are new, and nothing is missing", () => {
  const { read } = reader();
  const found = [read(11, "a", 1), read(12, "b", 7), read(13, "a", 2), read(14, "b", 8)];
  expect(found).toEqual([fresh, fresh, fresh, fresh]);
});

test("reading goes on behind the last entry, whether it was understood or not", () => {
  const { bookmark, read } = reader();
  expect(bookmark.streamId).toBe("10-0");
  read(11, "a", 1);
  expect(bookmark.streamId).toBe("11-0");
  bookmark.skip("11-1");
  expect(bookmark.streamId).toBe("11-1");
  expect(read(12, "a", 2)).toEqual(fresh); // who wrote the other did not count it
});

test("reading begins at our first entry; later ones do not move the bookmark", () => {
  const { bookmark, read } = reader();
  bookmark.set("12-0", 12);
  expect(bookmark.streamId).toBe("10-0");
  expect(read(11, "a", 1)).toEqual(fresh);
});

test("an entry that was sent again is not new, and nothing is missing after it", () => {
  const { read } = reader();
  read(11, "a", 5);
  expect([read(12, "a", 5), read(13, "a", 4), read(14, "a", 6)]).toEqual([again, again, fresh]);
});

test("entries that were trimmed are missing", () => {
  const { read } = reader();
  expect([read(12, "a", 1), read(13, "a", 2)]).toEqual([gap, fresh]);
});

test("entries that Redis has forgotten are missing: its count is back, or a server's jumps", () => {
  const { read } = reader();
  read(11, "a", 1);
  read(12, "a", 2);
  expect(read(12, "a", 3)).toEqual(gap);
  expect(read(13, "a", 5)).toEqual(gap);
  expect(read(14, "a", 6)).toEqual(fresh);
});

test("the last words in the name of a lost server are new each time, and change no number", () => {
  const { read } = reader();
  read(11, "a", 5);
  expect([read(12, "a", 0), read(13, "a", 0), read(14, "b", 0)]).toEqual([fresh, fresh, fresh]);
  expect([read(15, "a", 5), read(16, "a", 6), read(17, "b", 3)]).toEqual([again, fresh, fresh]);
  expect(read(19, "a", 0)).toEqual(gap);
});
