/**
 * Situations that several tests begin with.
 *
 * @module
 */
import { afterAll, afterEach, test } from "bun:test";
import { allHave, Client, descriptors, isAlive, long, numbered } from "./helpers.ts";
import { type Server, state, until } from "./helpers.ts";

/** What is said after a fault, in long lines: more than one block. */
export const after = 200;

/** More than the kernel holds between two people, in long lines: 6 MB. */
export const flood = 3000;

/** Two people who chat on a server while something goes wrong with others. */
export interface Room extends Disposable {
  ann: Client;
  bob: Client;
  /** Says numbered long lines as ann, and checks that bob has all of them since the beginning. */
  talk(lines: number): Promise<void>;
  /** Waits until the server is as it was with ann and bob alone: no process or descriptor more. */
  settled(): Promise<void>;
  /** Forgets everything that was said, when ann and bob have heard all of it. */
  forget(): Promise<void>;
}

/** Lets ann and bob join a server on which nobody else is, and waits for its spares. */
export async function openRoom(server: Server, spares = 1): Promise<Room> {
  const ann = await Client.connect(server, "ann");
  const bob = await Client.connect(server, "bob");
  await server.hasWorkers(2 + spares);
  await until(() => server.log.all.some((line) => /bob joined/.test(line)), "the log");
  const before = descriptors(server.pid);
  let said = 0;
  return {
    ann,
    bob,
    async talk(lines) {
      ann.send(numbered(lines, said, long));
      said += lines;
      await allHave([bob], "ann", said, long);
    },
    async settled() {
      const now = () => [server.workers().map(state), descriptors(server.pid)];
      const calm = () => {
        const workers = server.workers();
        if (workers.length !== 2 + spares || !workers.every(isAlive)) return false; // or not reaped
        return descriptors(server.pid) <= before;
      };
      await until(calm, `${2 + spares} living workers and ${before} descriptors`, now);
    },
    async forget() {
      ann.send("and so on\n");
      bob.send("and so on\n");
      await bob.line("ann: and so on");
      await ann.line("bob: and so on");
      for (const { lines } of [ann, bob]) lines.all.length = 0;
      ann.received = bob.received = said = 0;
      // But who serves them, and errors that nobody foresaw.
      const kept = /^worker (stderr:|\d+ \(\S+\): (worker \d+ of )?(ann|bob)) /;
      server.log.all.splice(0, Infinity, ...server.log.all.filter((line) => kept.test(line)));
    },
    [Symbol.dispose]() {
      ann[Symbol.dispose]();
      bob[Symbol.dispose]();
    },
  };
}

/**
 * Lets ann and bob join a server and stay there while all tests of a file do something to others. After each
 * test, the server has to be as it was with the two alone, unless the test has ended it. To be called while the
 * file is loaded.
 */
export async function sharedRoom(server: Server, spares = 1): Promise<Room> {
  const room = await openRoom(server, spares);
  afterEach(async () => {
    if (server.process.exitCode !== null) return;
    await room.settled();
    await room.forget();
  });
  afterAll(async () => {
    room[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });
  return room;
}

export const isPlain = process.env["PIPECHAT_PLAIN"] !== undefined; // without system calls, more may be lost

/** A test of what plain streams cannot do: they have read, and hold, what would have to wait in the kernel. */
export const testNatively = isPlain ? () => {} : test;
