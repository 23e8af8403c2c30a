import { expect, test } from "bun:test";
import { createThrottle } from "../parts/throttle.ts";

/** A sender of 10 lines a second, on a clock that a test sets. */
function sender() {
  const clock = { ms: 1_000_000 };
  const throttle = createThrottle(10, () => clock.ms);
  const waits = (lines: number) => Array.from({ length: lines }, () => throttle());
  return { clock, throttle, waits };
}

const free = (lines: number) => Array.from({ length: lines }, () => 0);

test("a burst is free, up to two seconds' worth of lines, and each line after it waits longer", () => {
  const { waits } = sender();
  expect(waits(20)).toEqual(free(20));
  expect(waits(4)).toEqual([0, 100, 200, 300]);
});

test("who waits as told says as many lines a second as the rate allows", () => {
  const { clock, throttle, waits } = sender();
  waits(21);
  const start = clock.ms;
  for (let line = 0; line < 50; line++) clock.ms += throttle();
  expect(clock.ms - start).toBe(5000);
});

test("who speaks no faster than the rate never waits", () => {
  const { clock, waits } = sender();
  for (let line = 0; line < 1000; line++, clock.ms += 100) expect(waits(1)).toEqual([0]);
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
  for (let line = 0; line < 10_000; line++) expect(throttle()).toBe(0);
});
