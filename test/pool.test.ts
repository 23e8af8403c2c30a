import { afterEach, beforeEach, expect, jest, test } from "bun:test";
import { Pool, type Startable, type Wish } from "../parts/server/pool.ts";
import { Refusal } from "../parts/server/refusal.ts";

beforeEach(() => void jest.useFakeTimers());
afterEach(() => void jest.useRealTimers());
const later = () => void jest.runAllTimers(); // lets as much time go by as anything waits for

/** Lets everything happen that needs no time. */
const settle = () => new Promise<void>((resolve) => void setImmediate(resolve));

/** A process that becomes ready, and dies, when a test says so. */
function fake() {
  const ready = Promise.withResolvers<boolean>();
  const ended = Promise.withResolvers<string>();
  const become = (isReady: boolean) => {
    ready.resolve(isReady);
    if (!isReady) ended.resolve("exited with code 7");
    return settle();
  };
  const process = { isKilled: false, ready: ready.promise, ended: ended.promise, become };
  return Object.assign(process, { kill: () => void (process.isKilled = true) }) satisfies Startable;
}

/** A pool whose system starts so many processes and then no more; and connections that take them. */
function poolOf(size: number, { maxStarting = 10, supply = Infinity } = {}) {
  const started: ReturnType<typeof fake>[] = [];
  const system = { supply, attempts: 0 };
  const start = () => {
    if (++system.attempts > 100) throw new Error("it tries for ever");
    if (started.length >= system.supply) throw new Error("the test has no more");
    started.push(fake());
    return started.at(-1)!;
  };
  const pool = new Pool(start, size, maxStarting);
  const fates: unknown[] = []; // of connections: a process's number, or why there is none
  const take = async (count = 1, wish: Partial<Wish> = {}) => {
    for (; count > 0; count--) {
      const place = fates.push("waits") - 1;
      pool.take({ isUrgent: false, signal: new AbortController().signal, ...wish }).then(
        (process) => (fates[place] = started.indexOf(process)),
        (reason) => (fates[place] = reason instanceof Refusal ? reason.message : reason.name),
      );
    }
    await settle();
  };
  return { pool, started, system, take, fates };
}

const [ready, dead] = [true, false];

test("there are as many spares as wanted; one that was taken or has died is replaced, but not at once", async () => {
  const { pool, started, take, fates } = poolOf(2);
  pool.refill();
  pool.refill();
  for (const n of [0, 1]) await started[n]!.become(ready);
  later();
  await take();
  expect(started.length).toBe(2);
  later();
  expect(started.length).toBe(3);
  await started[1]!.become(dead);
  await started[2]!.become(dead); // while it starts
  expect(started.length).toBe(3);
  later();
  expect(started.length).toBe(5);
  await started[4]!.become(ready);
  await take();
  expect(fates).toEqual([0, 4]);
});

test("only so many processes start at the same time, for spares or for connections", async () => {
  const { pool, started, take, fates } = poolOf(3, { maxStarting: 2 });
  pool.refill();
  expect(started.length).toBe(2);
  await started[0]!.become(ready);
  later();
  await take(4);
  expect(started.length).toBe(3);
  await started[1]!.become(ready);
  expect(started.length).toBe(4);
  expect(fates).toEqual([0, 1, "waits", "waits"]);
});

test("a start that fails is tried again, after pauses that grow, while connections wait", async () => {
  const { started, take, fates } = poolOf(0, { maxStarting: 1 });
  await take(2);
  const failures: number[] = []; // when, on the clock that later() moves
  while (fates[1] === "waits" && failures.length < 50) {
    failures.push(performance.now());
    await started.at(-1)!.become(dead);
    expect(started.length).toBe(failures.length);
    later();
  }
  expect(fates).toEqual(Array(2).fill("your process could not start, try again later"));
  const pauses = failures.slice(1).map((at, n) => at - failures[n]!);
  expect(pauses).toEqual(pauses.toSorted((a, b) => a - b));
  expect(new Set(pauses).size).toBeGreaterThan(2);
});

test("the first that is ready is for who has lost one, then for who came first; who leaves gets none", async () => {
  const { started, take, fates } = poolOf(0);
  const leaver = new AbortController();
  await take(1, { signal: leaver.signal });
  await take(2);
  await take(1, { isUrgent: true });
  leaver.abort();
  for (const n of [2, 0, 1, 3]) await started[n]!.become(ready);
  expect(fates).toEqual(["AbortError", 0, 1, 2]);
  expect(started[3]!.isKilled).toBe(true); // nobody wants it
});

test("while the system starts no process, connections wait, and it is not asked for ever", async () => {
  const { started, system, take, fates } = poolOf(0, { supply: 0 });
  await take(2);
  expect([system.attempts, ...fates]).toEqual([1, "waits", "waits"]);
  system.supply = 2;
  later();
  for (const n of [0, 1]) await started[n]!.become(ready);
  await take();
  later();
  await settle();
  expect(fates).toEqual([0, 1, "no process can be started for you, try again later"]);
});

test("at the end, whoever waits or comes is refused, and what nobody has taken is killed", async () => {
  const { pool, started, take, fates } = poolOf(2);
  pool.refill();
  await started[0]!.become(ready);
  await take(2);
  pool.close();
  await take();
  expect(fates).toEqual([0, ...Array(2).fill("server is shutting down")]);
  expect(started.map(({ isKilled }) => isKilled)).toEqual([false, true]);
  for (const process of started) await process.become(dead);
  later();
  expect(started.length).toBe(2);
});
