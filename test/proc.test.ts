/** What a process uses, as the person who asks is told. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { usageOf } from "../parts/server/proc.ts";

const hasProc = existsSync("/proc/self/statm"); // elsewhere nobody says

test.skipIf(!hasProc)("a process has memory and time of its own, until it ends", async () => {
  const seconds = () => Object.values(process.cpuUsage()).reduce((sum, us) => sum + us / 1e6, 0);
  const before = seconds();
  const { cpu, memory } = usageOf(process.pid)!;
  expect(cpu).toBeWithin(before - 0.03, seconds() + 0.03); // it is told in 1/100 s
  expect(memory).toBeWithin(100_000, process.memoryUsage.rss());
  const child = Bun.spawn(["true"]);
  await child.exited;
  expect(usageOf(child.pid)).toBeUndefined();
});
