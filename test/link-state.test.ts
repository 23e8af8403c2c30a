import { expect, test } from "bun:test";
import { LinkState } from "../parts/redis/state.ts";

const lost = "link to other servers lost";
const back = "link is back";
const slow = (seconds: number) =>
  `link to other servers is slow: lines come about ${seconds} s late`;
const quick = "link is quick again";

/** Lets events happen to a link, one after the other; gives what the room was told. */
function told(...events: ("connected" | "lost" | "close" | number)[]): string[] {
  const notices: string[] = [];
  const state = new LinkState((text) => notices.push(text));
  for (const event of events)
    if (typeof event === "number") state.lasted(event);
    else state[event]();
  return notices;
}

test.each([
  ["a link that is lost and back is told so", ["lost", "connected", 5], [lost, back]],
  ["a link that found another node in time is not", ["connected", 5, "connected"], []],
  ["attempts that fail are told once", ["lost", "lost", "lost", "connected"], [lost, back]],
  [
    "a link that is lost as soon as it is made is back when it lasts",
    ["lost", "connected", "lost", "connected", "lost", "connected", 5, "lost"],
    [lost, back, lost, back, lost],
  ],
  ["slow, and quick again: each is told once", [2001, 2500, 5, 5, 5, 5], [slow(2), quick]],
  ["a link between quick and slow stays what it was", [1900, 2001, 1500, 1001], [slow(2)]],
  ["one quick answer does not make it quick", [4000, 5, 5, 5], [slow(4)]],
  ["a link that is back has no past", [4000, "lost", "connected", 5, 5], [slow(4), lost, back]],
  ["of a link that is closed nothing is told", ["close", "lost", "connected", 5000], []],
] as const)("%s", (_, events, notices) => {
  expect(told(...events)).toEqual([...notices]);
});

test("pauses between attempts grow to 2 s, until a connection has lasted", () => {
  const state = new LinkState(() => {});
  const pauses = (count: number) => Array.from({ length: count }, () => state.nextPause());
  expect(pauses(8)).toEqual([0, 100, 200, 400, 800, 1600, 2000, 2000]);
  state.connected();
  expect(pauses(1)).toEqual([2000]);
  state.lasted(5);
  expect(pauses(2)).toEqual([0, 100]);
});
