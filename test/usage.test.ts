/** What processes use, as the person who asks is told. */
import { expect, test } from "bun:test";
import { createUsageReader } from "../parts/server/usage.ts";

test("a process has memory of its own, and its time grows with its work", async () => {
  const busy = Bun.spawn([process.execPath, "-e", "for (;;);"]);
  const idle = Bun.spawn([process.execPath, "-e", "setInterval(() => {}, 1e6)"]);
  const pids = [busy.pid, idle.pid];
  let usage = await createUsageReader()(pids);
  while ((usage.get(busy.pid)?.cpu ?? 0) < 0.3) {
    await Bun.sleep(10);
    usage = await createUsageReader()(pids);
  }
  expect(usage.get(idle.pid)!.cpu).toBeLessThan(usage.get(busy.pid)!.cpu);
  for (const { memory } of usage.values()) expect(memory).toBeWithin(100_000, 500_000_000);
  for (const child of [busy, idle]) child.kill();
});

test("a process that has ended is missing", async () => {
  const child = Bun.spawn([process.execPath, "-e", ""]);
  await child.exited;
  expect([...(await createUsageReader()([child.pid, process.pid])).keys()]).toEqual([process.pid]);
});

test("those who ask at the same time share an answer", async () => {
  const read = createUsageReader();
  expect(await read([process.pid])).toBe(await read([process.pid]));
});
