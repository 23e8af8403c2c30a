import { expect, test } from "bun:test";
import { Pace } from "../parts/shared/pace.ts";

test("two seconds' lines are free, then the rate holds; who was silent gets the burst back, and no more", () => {
  let ms = 1_000_000;
  const pace = new Pace(10, () => ms);
  expect([pace.lines, pace.wait]).toEqual([21, 0]); // the first is on schedule
  pace.spend(20);
  expect([pace.lines, pace.wait]).toEqual([1, 0]);
  pace.spend(1);
  expect([pace.lines, pace.wait]).toEqual([0, 100]);
  for (let line = 0; line < 50; line++) {
    ms += pace.wait;
    expect(pace.lines).toBe(1);
    pace.spend(1);
  }
  expect(ms).toBe(1_005_000);
  ms += 1000;
  expect(pace.lines).toBe(10);
  ms += 3_600_000;
  expect(pace.lines).toBe(21);
});

test("a rate of 0 is no limit", () => {
  const pace = new Pace(0, () => 0);
  pace.spend(1000);
  expect([pace.lines, pace.wait]).toEqual([Infinity, 0]);
});
