import { afterEach, beforeEach, expect, jest, test } from "bun:test";
import { Pool, Refusal, type Startable } from "../parts/pool.ts";

beforeEach(() => void jest.useFakeTimers());
afterEach(() => void jest.useRealTimers());

/** A process that becomes ready, and dies, when a test says so. */
class Fake implements Startable {
  isKilled = false;
  readonly #ready = Promise.withResolvers<boolean>();
  readonly #ended = Promise.withResolvers<void>();
  readonly ready = this.#ready.promise;
  readonly ended = this.#ended.promise;

  becomeReady(): Promise<void> {
    this.#ready.resolve(true);
    return settle();
  }

  die(): Promise<void> {
    this.#ready.resolve(false);
    this.#ended.resolve();
    return settle();
  }

  kill(): void {
    this.isKilled = true;
  }
}

/** Lets everything happen that needs no time. */
const settle = () => new Promise<void>((resolve) => void setImmediate(resolve));

/** Lets as much time go by as anything waits for. */
const later = () => void jest.runAllTimers();

/** A pool whose system starts so many processes and then no more; and the connections that take them. */
function poolOf(size: number, { maxStarting = 10, supply = Infinity } = {}) {
  const started: Fake[] = [];
  const system = { supply, attempts: 0 };
  const start = () => {
    if (++system.attempts > 100) throw new Error("it tries for ever");
    if (started.length >= system.supply) throw new Error("the test has no more");
    started.push(new Fake());
    return started.at(-1)!;
  };
  const pool = new Pool(start, size, maxStarting);
  const turns: Promise<Fake | Refusal>[] = [];
  const take = (count = 1) => {
    while (count-- > 0) turns.push(pool.take().catch((refusal: Refusal) => refusal));
  };
  /** What the connections got: a process's number, the words of a refusal, or nothing yet. */
  const fates = async () => {
    await settle();
    return turns.map((turn) => {
      const fate = Bun.peek(turn);
      if (fate instanceof Refusal) return fate.message;
      return fate instanceof Fake ? started.indexOf(fate) : "waits";
    });
  };
  return { pool, started, system, take, fates };
}

test("there are as many spares as wanted, and no more", async () => {
  const { pool, started } = poolOf(3);
  pool.refill();
  pool.refill();
  await started[0]!.becomeReady();
  later();
  expect(started.length).toBe(3);
});

test("a connection gets the spare that has been ready for longest", async () => {
  const { pool, started, take, fates } = poolOf(2);
  pool.refill();
  await started[1]!.becomeReady();
  await started[0]!.becomeReady();
  take(2);
  expect(await fates()).toEqual([1, 0]);
});

test("a spare that was taken is replaced, but not at once", async () => {
  const { pool, started, take } = poolOf(1);
  pool.refill();
  await started[0]!.becomeReady();
  later();
  take();
  expect(started.length).toBe(1);
  later();
  expect(started.length).toBe(2);
});

test("a spare that has died is replaced, but not at once, and nobody gets it", async () => {
  const { pool, started, take, fates } = poolOf(2);
  pool.refill();
  for (const process of started) await process.becomeReady();
  later();
  await started[0]!.die();
  expect(started.length).toBe(2);
  later();
  expect(started.length).toBe(3);
  await started[2]!.becomeReady();
  take(2);
  expect(await fates()).toEqual([1, 2]);
});

test("a spare that dies while it starts is replaced, but not at once", async () => {
  const { pool, started } = poolOf(1);
  pool.refill();
  await started[0]!.die();
  expect(started.length).toBe(1);
  later();
  expect(started.length).toBe(2);
});

test("a process that was taken costs no spare when it dies", async () => {
  const { pool, started, take, fates } = poolOf(2);
  pool.refill();
  for (const process of started) await process.becomeReady();
  take();
  await started[0]!.die();
  take();
  expect(await fates()).toEqual([0, 1]);
});

test("connections are served in the order in which they came, by whatever is ready first", async () => {
  const { started, take, fates } = poolOf(0);
  take(3);
  expect(started.length).toBe(3);
  await started[2]!.becomeReady();
  expect(await fates()).toEqual([2, "waits", "waits"]);
  await started[0]!.becomeReady();
  await started[1]!.becomeReady();
  expect(await fates()).toEqual([2, 0, 1]);
});

test("a connection that comes while a spare starts gets that one", async () => {
  const { pool, started, take, fates } = poolOf(1);
  pool.refill();
  take();
  expect(started.length).toBe(1);
  await started[0]!.becomeReady();
  expect(await fates()).toEqual([0]);
});

test("no spare is started while a connection waits, but when it is served", async () => {
  const { pool, started, take } = poolOf(1);
  take();
  pool.refill();
  later();
  expect(started.length).toBe(1);
  await started[0]!.becomeReady();
  later();
  expect(started.length).toBe(2);
});

test("only so many processes start at the same time", async () => {
  const spares = poolOf(3, { maxStarting: 2 });
  spares.pool.refill();
  expect(spares.started.length).toBe(2);
  await spares.started[0]!.becomeReady();
  later();
  expect(spares.started.length).toBe(3);

  const { started, take, fates } = poolOf(0, { maxStarting: 2 });
  take(4);
  expect(started.length).toBe(2);
  await started[0]!.becomeReady();
  expect(await fates()).toEqual([0, "waits", "waits", "waits"]);
  expect(started.length).toBe(3);
});

test("if a process dies while it starts, one connection is refused, and the next is served", async () => {
  const { started, take, fates } = poolOf(0, { maxStarting: 1 });
  take(2);
  await started[0]!.die();
  const refused = "your process could not start, try again later";
  expect(await fates()).toEqual([refused, "waits"]);
  await started[1]!.becomeReady();
  expect(await fates()).toEqual([refused, 1]);
});

test("if the system starts no process, connections are refused, and it is not asked for ever", async () => {
  const { pool, started, system, take, fates } = poolOf(3, { supply: 0 });
  pool.refill();
  expect(system.attempts).toBe(1);
  take(2);
  const refused = "no process can be started for you, try again later";
  expect(await fates()).toEqual([refused, refused]);
  system.supply = Infinity;
  later();
  expect(started.length).toBe(3);
});

test("what nobody has taken is killed at the end, and no spare is started any more", async () => {
  const { pool, started, take } = poolOf(3);
  pool.refill();
  await started[0]!.becomeReady();
  await started[1]!.becomeReady();
  take();
  pool.close();
  expect(started.map(({ isKilled }) => isKilled)).toEqual([false, true, true]);
  for (const process of started) await process.die();
  later();
  expect(started.length).toBe(3);
});
