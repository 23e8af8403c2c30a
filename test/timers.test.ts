import { expect, test } from "bun:test";
import { after } from "../parts/shared/timers.ts";

test("what comes later comes once, a second after a stop, and never if it is disposed of", async () => {
  const happened: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const add = (what: string) => after(10, () => void happened.push(what));
  {
    using _disposed = add("disposed of before its time");
  }
  using _late = add("late");
  {
    using _disposed = add("disposed of in its second more");
    after(10, resolve);
    Bun.sleepSync(600); // as if this process had been stopped when the time came
    await Bun.sleep(100);
    happened.push("heard");
  }
  await promise;
  expect(happened).toEqual(["heard", "late"]);
});
