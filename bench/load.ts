/**
 * The load, and what is measured with it: an open loop, lines flat out, newcomers. All times are in
 * nanoseconds.
 *
 * @module
 */
import { connect, Ledger, type Room, send } from "./clients.ts";
import type { Flood, Latency, Wrong } from "./schema.ts";
import { bucket } from "./stats.ts";

// --- An open loop --------------------------------------------------------------------------------

const talkers = 10; // clients that say something, in turn

/** What came of a talk; all by line. */
export interface Talk {
  ledger: Ledger;
  /** When it was due. */
  due(line: number): number;
  lines: number;
  /** Who said it. */
  speaker(line: number): number;
  /** When a client got it; NaN if it did not. */
  arrival(line: number, receiver: number): number;
  /** By how much the load itself was late, by line. */
  late: number[];
}

/**
 * Clients in turn say lines at a fixed rate, whether or not the last one has arrived, and a line's time
 * counts from when it was due. So a pause, of the server or of ours, costs every line in it.
 *
 * @param during is told when the first line is due
 */
export async function talk(
  room: Room,
  speakers: number[],
  rate: number,
  seconds: number,
  during: (begin: number) => void = () => {},
): Promise<Talk> {
  const each = Math.ceil((rate * seconds) / speakers.length);
  const [lines, receivers] = [each * speakers.length, room.clients.length];
  const arrivals = new Float64Array(lines * receivers).fill(NaN);
  const nth = new Map(speakers.map((number, nth) => [number, nth]));
  const ledger = new Ledger(room, speakers, each, (receiver, sender, first, count, now) => {
    for (let which = first; which < first + count; which++)
      arrivals[(which * speakers.length + nth.get(sender)!) * receivers + receiver] = now;
  });
  const begin = Bun.nanoseconds() + 20e6;
  const due = (line: number) => begin + (line * 1e9) / rate;
  const speaker = (line: number) => speakers[line % speakers.length]!;
  const late: number[] = [];
  during(begin);
  for (let line = 0; line < lines; line++) {
    // A timer may be late by some 0.5 ms; the rest of the wait goes round in the event loop.
    await Bun.sleep((due(line) - Bun.nanoseconds()) / 1e6 - 1);
    while (Bun.nanoseconds() < due(line)) await new Promise(setImmediate);
    late.push(Bun.nanoseconds() - due(line));
    const said = ledger.line(speaker(line), Math.floor(line / speakers.length));
    send(room.clients[speaker(line)]!, said);
  }
  await ledger.settle();
  const arrival = (line: number, receiver: number) => arrivals[line * receivers + receiver]!;
  return { ledger, due, lines, speaker, arrival, late };
}

const none = (): Wrong => ({ lost: 0, twice: 0, outOfOrder: 0, garbled: 0, cut: 0, cutOff: 0 });

/** Adds what went wrong; who is cut off stays so. */
function addUp(wrong: Wrong, more: Wrong): void {
  for (const key in wrong) wrong[key as keyof Wrong] += more[key as keyof Wrong];
  wrong.cutOff = more.cutOff;
}

/**
 * An open loop.
 *
 * @returns `run` for as many seconds as often as is wanted, and a `report` on all of them
 */
export function openLoop(room: Room, rate: number) {
  const [first, each, last, late]: [number[], number[], number[], number[]] = [[], [], [], []];
  const wrong = none();
  let delivered = 0;

  async function run(seconds: number): Promise<void> {
    const count = Math.min(talkers, room.clients.length - 1, Math.ceil(rate * seconds));
    const speakers = room.clients.slice(0, count).map(({ number }) => number);
    const said = await talk(room, speakers, rate, seconds);
    for (let line = 0; line < said.lines; line++) {
      const others = room.clients.filter(({ number }) => number !== said.speaker(line));
      const times = others.map(({ number }) => said.arrival(line, number) - said.due(line));
      const arrived = times.filter(Number.isFinite);
      for (const time of arrived) each.push(time);
      if (arrived.length > 0) first.push(Math.min(...arrived));
      if (arrived.length === others.length) last.push(Math.max(...arrived));
    }
    late.push(...said.late);
    delivered += said.ledger.delivered;
    addUp(wrong, said.ledger.wrong);
  }

  const report = (): Latency => ({
    first: bucket(first),
    each: bucket(each),
    last: bucket(last),
    late: bucket(late),
    delivered,
    wrong,
  });

  return { run, report };
}

// --- Flat out ------------------------------------------------------------------------------------

/** What a server has used of the processor so far, ns. */
type CpuTime = () => { server: number; workers: number } | undefined;

/** Some clients send `count` lines each as fast as they can. */
async function burst(room: Room, senders: number, count: number, cpuTime: CpuTime): Promise<Flood> {
  let end = 0;
  const speakers = room.clients.slice(0, senders);
  const numbers = speakers.map(({ number }) => number);
  const ledger = new Ledger(room, numbers, count, (_receiver, _sender, _first, _count, now) => {
    end = now;
  });
  const blocks = numbers.map((number) => ledger.lines(number));
  const before = cpuTime();
  const cpu = process.cpuUsage();
  const begin = Bun.nanoseconds();
  speakers.forEach((sender, n) => send(sender, blocks[n]));
  await ledger.settle();
  const took = Math.max(1, end - begin);
  const { user, system } = process.cpuUsage(cpu);
  const after = cpuTime();
  return {
    took,
    delivered: ledger.delivered,
    load: ((user + system) * 1000) / took,
    server: before && after ? (after.server - before.server) / took : null,
    workers: before && after ? (after.workers - before.workers) / took : null,
    wrong: ledger.wrong,
  };
}

/**
 * Flat out, in bursts: they double until one takes long enough to tell, and the one before it was not
 * much shorter; else it was not the lines that took so long.
 *
 * @returns `run` for one such burst as often as is wanted, and a `report` on the median one; what is
 *   wrong adds up over all, and the burst that loses something is the last
 */
export function openFlood(room: Room, senders: number, cpuTime: CpuTime) {
  const long: Flood[] = [];
  const wrong = none();
  let [count, before] = [Math.ceil(400 / senders), 0];
  const mostBytes = 64 * 2 ** 20; // that are said in a burst

  async function run(): Promise<void> {
    for (let isLong = false; !isLong && !wrong.lost;) {
      const result = await burst(room, senders, count, cpuTime);
      addUp(wrong, result.wrong);
      isLong = (result.took > 250e6 && before > 80e6) || result.took > 1e9;
      isLong ||= count * senders * room.size * 2 > mostBytes;
      before = result.took;
      if (isLong || wrong.lost) long.push(result);
      else count *= 2;
    }
  }

  function report(): Flood {
    const perSecond = ({ delivered, took }: Flood) => delivered / took;
    const sorted = long.toSorted((a, b) => perSecond(a) - perSecond(b));
    const shown = wrong.lost ? long.at(-1)! : sorted[sorted.length >> 1]!;
    return { ...shown, wrong };
  }

  return { run, report };
}

/** A newcomer: connect, name, line; gives the ns until another client has it. */
export async function join(room: Room): Promise<number> {
  const begin = Bun.nanoseconds();
  const { promise: heard, resolve } = Promise.withResolvers<number>();
  const number = room.names;
  const ledger = new Ledger(room, [number], 1, (_receiver, _sender, _first, _count, now) =>
    resolve(now),
  );
  const newcomer = await connect(room);
  send(newcomer, ledger.line(number, 0));
  const late = Bun.sleep(20_000).then(() => Promise.reject(new Error("a newcomer was not heard")));
  const took = (await Promise.race([heard, late])) - begin;
  newcomer.socket.end();
  await Bun.sleep(150); // the next one finds a server that has nothing else to do
  return took;
}
