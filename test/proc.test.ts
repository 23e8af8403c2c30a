/** What processes use, as the person who asks is told. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { usageOf } from "../parts/server/proc.ts";

const hasProc = existsSync("/proc/self/statm"); // elsewhere nobody says

test.skipIf(!hasProc)("a process has memory of its own, and its time grows", async () => {
  const busy = Bun.spawn([process.execPath, "-e", "for (;;);"]);
  const idle = Bun.spawn([process.execPath, "-e", "setInterval(() => {}, 1e6)"]);
  while ((usageOf(busy.pid)?.cpu ?? 0) < 0.3) await Bun.sleep(10);
  expect(usageOf(idle.pid)!.cpu).toBeLessThan(usageOf(busy.pid)!.cpu);
  for (const { pid } of [busy, idle]) expect(usageOf(pid)!.memory).toBeWithin(100_000, 500_000_000);
  for (const child of [busy, idle]) child.kill();
});

test("a process that has ended uses nothing that anybody knows", async () => {
  const child = Bun.spawn([process.execPath, "-e", ""]);
  await child.exited;
  expect(usageOf(child.pid)).toBeUndefined();
});
