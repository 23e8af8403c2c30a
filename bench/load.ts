/** The load: an open loop, lines flat out, newcomers. All times are in nanoseconds. */
import { inTime, Ledger, type Room } from "./clients.ts";
import type { Wrong } from "./schema.ts";
import { bucket, sum } from "./stats.ts";
import { spent } from "./system.ts";

/** What came of a talk: each line, when it was due, who said it, and when each client got it or NaN. */
export interface Talk {
  delivered: number;
  wrong: Wrong;
  lines: { due: number; speaker: number; arrivals: Float64Array }[];
  spent: { server: number; workers: number }; // the server's CPU time, ns
}

/**
 * Clients in turn say lines at a fixed rate, whether or not the last one has arrived, and a line's time
 * counts from when it was due. So a pause, of the server or of ours, costs every line in it.
 *
 * @param speakers their numbers
 * @param during is called with the time at which the first line is due
 */
export async function talk(
  room: Room,
  speakers: number[],
  rate: number,
  seconds: number,
  during: (begin: number) => void = () => {},
): Promise<Talk> {
  const each = Math.ceil((rate * seconds) / speakers.length);
  const begin = Bun.nanoseconds() + 50e6;
  const lines = Array.from({ length: each * speakers.length }, (_, line) => ({
    due: begin + (line * 1e9) / rate,
    speaker: speakers[line % speakers.length]!,
    arrivals: new Float64Array(room.clients.length).fill(NaN),
  }));
  const ledger = new Ledger(room, speakers, each, (receiver, sender, first, count) => {
    for (let which = first; which < first + count; which++)
      lines[which * speakers.length + speakers.indexOf(sender)]!.arrivals[receiver] = room.now;
  });
  during(begin);
  async function speak(): Promise<void> {
    for (const [at, { due, speaker }] of lines.entries()) {
      // A timer may be late by about 0.5 ms; the rest of the wait goes round in the event loop.
      await Bun.sleep((due - Bun.nanoseconds()) / 1e6 - 1);
      while (Bun.nanoseconds() < due) await new Promise(setImmediate);
      room.clients[speaker]!.send(ledger.line(speaker, Math.floor(at / speakers.length)));
    }
    await ledger.settle();
  }
  const cpu = await spent(room.target.pid, speak);
  return { lines, spent: cpu, delivered: ledger.delivered, wrong: ledger.wrong };
}

/** Adds up what goes wrong in several runs; a client that is cut off stays so. */
export function addUp(all: Wrong[]): Wrong {
  const kinds = ["lost", "twice", "outOfOrder", "garbled", "cut", "echoed"] as const;
  const sums = kinds.map((kind) => [kind, sum(all.map((wrong) => wrong[kind]))]);
  return { ...Object.fromEntries(sums), cutOff: all.at(-1)?.cutOff ?? 0 } as Wrong;
}

/** An open loop of at most ten speakers. */
export function openLoop(room: Room, rate: number, seconds: number): Promise<Talk> {
  const count = Math.min(10, room.clients.length - 1, Math.ceil(rate * seconds));
  const speakers = room.clients.slice(0, count).map(({ number }) => number);
  return talk(room, speakers, rate, seconds);
}

/** How long lines took until their first, each and the last receiver had them. */
export function timesOf(talks: Talk[]) {
  const times = talks.flatMap(({ lines }) =>
    lines.map(({ due, arrivals }) => arrivals.map((arrival) => arrival - due)),
  );
  const arrived = times.map((times) => Array.from(times.filter(Number.isFinite)));
  const whole = arrived.filter((all, line) => all.length === times[line]!.length - 1);
  return {
    first: bucket(arrived.map((all) => Math.min(...all))),
    each: bucket(arrived.flat()),
    last: bucket(whole.map((all) => Math.max(...all))),
  };
}

/** A burst of lines; CPU time is in parts of a core. */
export type Flood = Awaited<ReturnType<typeof burst>>;

/**
 * Lines flat out, in bursts: they double until one takes long enough to tell, and the one before it was
 * not much shorter; else it was not the lines that took so long. Yields those that are long enough; what
 * went wrong adds up. One that loses something is the last.
 */
export async function* bursts(room: Room, senders: number) {
  const wrong: Wrong[] = [];
  for (let [count, before] = [Math.ceil(400 / senders), 0]; ;) {
    const flood = await burst(room, senders, count);
    const { took, wrong: latest } = flood;
    wrong.push(latest);
    const isLong = (took > 250e6 && before > 80e6) || took > 1e9;
    if (isLong || latest.lost > 0 || count * senders * room.size > 32e6)
      yield { ...flood, wrong: addUp(wrong) };
    else count *= 2;
    if (latest.lost > 0) return;
    before = took;
  }
}

/** Some clients send `count` lines each as fast as they can. */
async function burst(room: Room, senders: number, count: number) {
  let end = 0;
  const speakers = room.clients.slice(0, senders);
  const numbers = speakers.map(({ number }) => number);
  const ledger = new Ledger(room, numbers, count, () => (end = room.now));
  const blocks = numbers.map((speaker) =>
    Buffer.concat(Array.from({ length: count }, (_, which) => ledger.line(speaker, which))),
  );
  let [begin, load] = [0, process.cpuUsage()];
  const { server, workers } = await spent(room.target.pid, async () => {
    [begin, load] = [Bun.nanoseconds(), process.cpuUsage()];
    speakers.forEach((speaker, n) => speaker.send(blocks[n]));
    await ledger.settle();
    load = process.cpuUsage(load);
  });
  const took = Math.max(1, end - begin);
  return {
    ...{ took, perSecond: (ledger.delivered / took) * 1e9, wrong: ledger.wrong },
    ...{ server: server / took, workers: workers / took },
    load: ((load.user + load.system) * 1000) / took,
  };
}

/** A newcomer: connect, name, line. Returns the ns until another client has it. */
export async function join(room: Room): Promise<number> {
  const begin = Bun.nanoseconds();
  const { promise, resolve } = Promise.withResolvers<void>();
  let heard = 0;
  const ledger = new Ledger(room, [room.names], 1, () => {
    heard ||= room.now;
    resolve();
  });
  const newcomer = await room.connect();
  newcomer.send(ledger.line(newcomer.number, 0));
  if (!(await inTime(promise, 20_000))) throw new Error("a newcomer was not heard");
  newcomer.socket.end();
  await Bun.sleep(150); // the next one finds a server that has nothing else to do
  return heard - begin;
}
