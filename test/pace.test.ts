import { expect, test } from "bun:test";
import { Pace } from "../parts/shared/pace.ts";

/** A sender of 10 lines a second, on a clock that a test sets. */
function sender() {
  const clock = { ms: 1_000_000 };
  return { clock, pace: new Pace(10, () => clock.ms) };
}

test("the lines of two seconds are free, and the next one waits", () => {
  const { pace } = sender();
  expect([pace.lines, pace.wait]).toEqual([21, 0]); // the first is on schedule
  pace.spend(20);
  expect([pace.lines, pace.wait]).toEqual([1, 0]);
  pace.spend(1);
  expect([pace.lines, pace.wait]).toEqual([0, 100]);
});

test("who waits as told says as many lines a second as the rate allows", () => {
  const { clock, pace } = sender();
  pace.spend(21);
  for (let line = 0; line < 50; line++) {
    clock.ms += pace.wait;
    expect(pace.lines).toBe(1);
    pace.spend(1);
  }
  expect(clock.ms).toBe(1_005_000);
});

test("who was silent gets the burst back, and no more of it for a longer silence", () => {
  const { clock, pace } = sender();
  pace.spend(21);
  clock.ms += 1000;
  expect(pace.lines).toBe(10);
  clock.ms += 3_600_000;
  expect(pace.lines).toBe(21);
});

test("a rate of 0 is no limit", () => {
  const pace = new Pace(0, () => 0);
  pace.spend(1000);
  expect([pace.lines, pace.wait]).toEqual([Infinity, 0]);
});
