import { expect, test } from "bun:test";
import { LinkState } from "../parts/redis/state.ts";

const lost = "link to other servers lost";
const back = "link is back";
const slow = (seconds: number) =>
  `link to other servers is slow: lines come about ${seconds} s late`;

/** Lets events happen to a link, a number being an answer's round trip; gives what the room was told. */
function told(...events: ("connected" | "lost" | "close" | number)[]): string[] {
  const notices: string[] = [];
  const state = new LinkState((text) => notices.push(text));
  for (const event of events)
    if (typeof event === "number") state.answered(event);
    else if (event === "close") state.close("leave");
    else state[event]();
  return notices;
}

test.each([
  ["a link that found another node in time is not lost", ["connected", 5, "connected"], []],
  ["a link between quick and slow stays what it was", [1900, 2001, 1500, 1001], [slow(2)]],
  ["one quick answer does not make it quick", [4000, 5, 5, 5], [slow(4)]],
  ["a link that is back has no past", [4000, "lost", "connected", 5, 5], [slow(4), lost, back]],
  ["of a link that is closed nothing is told", ["close", "lost", "connected", 5000], []],
] as const)("%s", (_, events, notices) => {
  expect(told(...events)).toEqual([...notices]);
});
