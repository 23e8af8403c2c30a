import { expect, test } from "bun:test";
import { Bookmark } from "../parts/redis/bookmark.ts";

/** Reads a server's entries behind the tenth: what is each? */
function read(...entries: [position: number, from: string, number: number][]): string[] {
  const bookmark = new Bookmark("1000-10");
  return entries.map(([position, from, number]) => {
    const entry = { streamId: `${1000 + position}-${position}`, from, number, block: "line\n" };
    const { isNew, isGap } = bookmark.read(entry);
    expect(bookmark.streamId).toBe(entry.streamId);
    return (isNew ? "new" : "again") + (isGap ? ", behind a gap" : "");
  });
}

test("the examples of the comment on read()", () => {
  const said = read(
    [11, "a", 5],
    [12, "b", 7],
    [13, "a", 5],
    [15, "b", 8],
    [16, "a", 7],
    [17, "b", 0],
  );
  const gap = "new, behind a gap";
  expect(said).toEqual(["new", "new", "again", gap, gap, "new"]);
});

test("a Redis that has lost its end, or everything, leaves a gap", () => {
  expect(read([11, "a", 1], [11, "a", 2], [1, "a", 3])[1]).toBe("new, behind a gap");
  expect(read([11, "a", 1], [1, "a", 2])[1]).toBe("new, behind a gap");
});

test("last words are always new and change no number; what no server wrote is never new", () => {
  expect(read([11, "a", 5], [12, "a", 0], [13, "a", 0], [14, "a", 6])).toEqual(
    Array(4).fill("new"),
  );
  expect(read([14, "", NaN], [15, "a", 0], [17, "a", 0])).toEqual([
    "again",
    "new",
    "new, behind a gap",
  ]);
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
  const entry = { streamId: "1002-10", from: "a", number: 1, block: "line\n" };
  expect(bookmark.read(entry)).toEqual({ isNew: true, isGap: true });
});
