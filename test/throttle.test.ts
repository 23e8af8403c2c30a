import { expect, test } from "bun:test";
import { createThrottle } from "../parts/worker/throttle.ts";

/** A sender of 10 lines a second: the waits before so many lines, on a clock that a test sets. */
function sender() {
  const clock = { ms: 1_000_000 };
  const throttle = createThrottle(10, () => clock.ms);
  const waits = (lines: number) => Array.from({ length: lines }, throttle);
  return { clock, throttle, waits };
}

const free = (lines: number) => Array.from({ length: lines }, () => 0);

test("the lines of two seconds are free, and each line after them waits longer", () => {
  const { waits } = sender();
  expect(waits(24)).toEqual([...free(21), 100, 200, 300]); // the first is on schedule
});

test("who waits as told says as many lines a second as the rate allows", () => {
  const { clock, throttle, waits } = sender();
  waits(21);
  for (let line = 0; line < 50; line++) clock.ms += throttle();
  expect(clock.ms).toBe(1_005_000);
});

test("who was silent gets the burst back, and no more of it for a longer silence", () => {
  const { clock, waits } = sender();
  waits(21);
  clock.ms += 1000;
  expect(waits(11)).toEqual([...free(10), 100]);
  clock.ms += 3_600_000;
  expect(waits(22)).toEqual([...free(21), 100]);
});

test("a rate of 0 is no limit", () => {
  const throttle = createThrottle(0, () => 0);
  expect(Array.from({ length: 1000 }, throttle)).toEqual(free(1000));
});
