import { expect, test } from "bun:test";
import { Bookmark } from "../parts/redis/bookmark.ts";

test.each([
  ["the comment on read()", "11a5 12b7 13a5 15b8 16a7 17b0", "new new again gap gap new"],
  ["a Redis that has lost its end", "11a1 11a2 12a3", "new gap new"],
  ["a Redis that has lost everything", "11a1 1a2 2a3", "new gap new"],
  ["last words, which change no number", "11a5 12a0 13a0 14a6", "new new new new"],
  ["what no server wrote", "14- 15a0 17a0", "again new gap"],
])("%s: what is new, and where something is missing", (_, entries, said) => {
  const bookmark = new Bookmark("1000-10");
  const read = entries.split(" ").map((entry) => {
    const [, position, from, number] = /^(\d+)(\D)(\d*)$/.exec(entry) as string[];
    const streamId = `${1000 + Number(position)}-${position}`;
    const parsed = { from: from!, number: parseInt(number!), block: "line\n" };
    const { isNew, isGap } = bookmark.read({ streamId, ...parsed });
    expect(bookmark.streamId).toBe(streamId);
    return isNew ? (isGap ? "gap" : "new") : "again";
  });
  expect(read.join(" ")).toBe(said);
});

test.each([
  ["999-99", true],
  ["1000-9", true],
  ["1000-10", false],
  ["1001-1", false],
])("whether a stream that ends at %s has lost what was read: %p", (end, isLost) => {
  const bookmark = new Bookmark("1000-10");
  bookmark.endsAt(end);
  expect(bookmark.streamId).toBe(isLost ? end : "1000-10");
});
