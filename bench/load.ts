/**
 * The load: clients on real sockets, and everything that is measured with them.
 *
 * `fanout.ts` uses it in its own process; for `compare.ts` it runs in a process of its own
 * (`measure.ts`), so that the clients' work is on nobody else's account. All times are in nanoseconds.
 *
 * @module
 */
import { createHistogram, type RecordableHistogram } from "node:perf_hooks";

// --- Lines ---------------------------------------------------------------------------------------

// A client sends 80 bytes, "RRRR NNNNNNNN text" with the numbers of the run and of the line, and the
// others get them behind its name: "cSSSS: RRRR NNNNNNNN text". Every place is fixed, because what
// counts millions of lines a second has no time to search.
const text = "0000 00000000 What is said in a chat has about the length of this line, has it?\n";
const prefix = "c0000: ".length;
const heardLength = prefix + text.length;
const newline = 0x0a;
const firstByte = 0x63; // c
const lastByte = text.charCodeAt(text.length - 2);

/** `count` lines, numbered from `first`, each behind the name if there is one. */
function lines(run: number, first: number, count: number, name = ""): Buffer {
  const line = name + text;
  const block = Buffer.alloc(count * line.length, line);
  for (let n = 0; n < count; n++) {
    const at = n * line.length + name.length;
    block.write(String(run).padStart(4, "0"), at);
    block.write(String(first + n).padStart(8, "0"), at + 5);
  }
  return block;
}

function digits(bytes: Uint8Array, from: number, to: number): number {
  let number = 0;
  for (let at = from; at < to; at++) number = number * 10 + bytes[at]! - 48;
  return number;
}

// --- Clients -------------------------------------------------------------------------------------

interface Client {
  number: number; // in its name, and for one that stays, its place among the room's clients
  says: string; // what it puts before each line; empty, unless it has to do the server's work
  socket: Bun.Socket;
  unsent: Buffer; // what the kernel did not take yet
  carry: Buffer; // a line that has begun
}

/** What clients send: the plain relay needs the names, too. */
export type Form = "text" | "name: text";

/** Clients of one server, or in turn of several that share the room; all stay. */
export interface Room {
  ports: number[];
  form: Form;
  clients: Client[];
  names: number; // given so far; nobody gets one a second time
  run: number; // lines of an earlier run, and lines that are none of ours, are not heard
  heard: (receiver: number, sender: number, line: number) => void;
}

/** Starts a run: from now on `heard` is called for each of its lines that a client gets. */
function listen(room: Room, heard: Room["heard"]): number {
  room.heard = heard;
  return (room.run = (room.run + 1) % 10_000);
}

async function connect(room: Room): Promise<Client> {
  const number = room.names++;
  const name = `c${String(number).padStart(4, "0")}`;
  const says = room.form === "text" ? "" : `${name}: `;
  const client = { number, says, unsent: Buffer.alloc(0), carry: Buffer.alloc(0) } as Client;
  client.socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: room.ports[number % room.ports.length]!,
    socket: {
      data: (_, chunk) => hear(room, client, chunk),
      drain: () => send(client),
      error: () => {}, // what it does not get is counted as lost
    },
  });
  client.socket.setNoDelay(true);
  send(client, Buffer.from(`${name}\n`));
  return client;
}

function send(client: Client, bytes?: Buffer): void {
  if (bytes) client.unsent = client.unsent.length ? Buffer.concat([client.unsent, bytes]) : bytes;
  if (client.unsent.length === 0) return;
  client.unsent = client.unsent.subarray(Math.max(0, client.socket.write(client.unsent)));
}

function speak(client: Client, run: number, line = 0): void {
  send(client, lines(run, line, 1, client.says));
}

function hear(room: Room, client: Client, chunk: Buffer): void {
  const bytes = client.carry.length > 0 ? Buffer.concat([client.carry, chunk]) : chunk;
  let start = 0;
  for (let end; ; start = end) {
    end = start + heardLength;
    // From its first byte to its last two; what is not whole may be a notice, or two lines mixed.
    const whole =
      bytes[end - 1] === newline && bytes[end - 2] === lastByte && bytes[start] === firstByte;
    if (!whole) end = bytes.indexOf(newline, start) + 1;
    if (end === 0) break;
    if (!whole || digits(bytes, start + prefix, start + prefix + 4) !== room.run) continue;
    const sender = digits(bytes, start + 1, start + 5);
    room.heard(client.number, sender, digits(bytes, start + prefix + 5, start + prefix + 13));
  }
  client.carry = Buffer.from(bytes.subarray(start));
}

/** Waits until nothing is missing any more, or nothing has come for a while: then it is lost. */
async function settle(missing: () => number, all: Promise<void>, patience = 2000): Promise<void> {
  for (let before = Infinity; missing() > 0 && missing() < before;) {
    before = missing();
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, patience);
    await Promise.race([all, late.promise]);
    clearTimeout(timer);
  }
}

/** Opens a room without anyone in it. */
export function openRoom(ports: number[], form: Form = "text"): Room {
  return { ports, form, clients: [], names: 0, run: 0, heard: () => {} };
}

/** Lets clients in until the room has `count`, all at once but the first two; gives the ns it took. */
export async function fill(room: Room, count: number): Promise<number> {
  while (room.clients.length < 2) room.clients.push(await connect(room));
  // A client is in when another has heard it, and nobody knows when that is for the first two.
  let heard = false;
  const first = listen(room, () => (heard = true));
  for (; !heard; await Bun.sleep(20)) speak(room.clients[1]!, first);
  await say(room, 1);
  const from = room.clients.length;
  const begin = Bun.nanoseconds();
  const all = Promise.withResolvers<void>();
  let missing = count - from;
  const run = listen(room, (receiver) => receiver === 0 && --missing === 0 && all.resolve());
  const greet = async () => {
    const client = await connect(room);
    room.clients[client.number] = client;
    speak(client, run);
  };
  await Promise.all(Array.from({ length: missing }, greet));
  if (missing > 0) await settle(() => missing, all.promise, 20_000); // processes take time to start
  if (missing > 0) throw new Error(`${missing} of ${count - from} clients could not join`);
  const took = Bun.nanoseconds() - begin;
  await say(room, 0); // behind it, nothing of what was said before is still on its way
  return took;
}

/** One client says a line; resolves when all the others have it. */
export async function say(room: Room, sender: number): Promise<void> {
  const all = Promise.withResolvers<void>();
  let missing = room.clients.length - 1;
  const run = listen(room, () => --missing === 0 && all.resolve());
  const late = () => all.reject(new Error(`${missing} clients did not get a line`));
  const timer = setTimeout(late, 9000);
  speak(room.clients[sender]!, run);
  await all.promise.finally(() => clearTimeout(timer));
}

/** Ends all connections. */
export function closeRoom(room: Room): void {
  for (const client of room.clients) client.socket.terminate();
}

// --- What is measured ----------------------------------------------------------------------------

/** Of one distribution, in ns. */
export interface Times {
  p50: number;
  p99: number;
  max: number;
}

const summarize = (all: RecordableHistogram): Times => ({
  p50: all.count ? all.percentile(50) : NaN,
  p99: all.count ? all.percentile(99) : NaN,
  max: all.count ? all.max : NaN,
});

const talkers = 10; // clients that say something, in turn
const linesASecond = 50;

/**
 * An open loop: lines are due at a fixed rate, whether or not the last one has arrived, and a line's
 * time counts from when it was due. So a pause, of the server or of ours, costs every line in it.
 *
 * @returns `run` for as many seconds as often as is wanted, and a `report` on all of them
 */
export function openLoop(room: Room) {
  const figures = { figures: 4 };
  const distributions = {
    first: createHistogram(figures),
    each: createHistogram(figures),
    last: createHistogram(figures),
    late: createHistogram(figures), // how late the load itself was
  };
  const { first, each, last, late } = distributions;
  let [delivered, lost] = [0, 0];

  async function run(seconds: number): Promise<void> {
    const [count, others] = [Math.round(seconds * linesASecond), room.clients.length - 1];
    const all = Promise.withResolvers<void>();
    const arrived = new Uint32Array(count);
    let missing = count * others;
    const begin = Bun.nanoseconds() + 20e6;
    const due = (line: number) => begin + (line * 1e9) / linesASecond;
    const run = listen(room, (_receiver, _sender, line) => {
      if (line >>> 0 >= count) return; // garbled, so what it was is lost
      const took = Math.max(1, Math.round(Bun.nanoseconds() - due(line)));
      const nth = (arrived[line] = arrived[line]! + 1);
      each.record(took);
      if (nth === 1) first.record(took);
      if (nth === others) last.record(took);
      if (--missing === 0) all.resolve();
    });
    for (let line = 0; line < count; line++) {
      // A timer may be late by some 0.5 ms; the rest of the wait goes round in the event loop.
      await Bun.sleep((due(line) - Bun.nanoseconds()) / 1e6 - 1);
      while (Bun.nanoseconds() < due(line)) await new Promise(setImmediate);
      late.record(Math.max(1, Math.round(Bun.nanoseconds() - due(line))));
      speak(room.clients[line % Math.min(talkers, others)]!, run, line);
    }
    await settle(() => missing, all.promise);
    delivered += count * others - missing;
    lost += missing;
  }

  function report() {
    const summaries = Object.entries(distributions).map(([name, of]) => [name, summarize(of)]);
    const times = Object.fromEntries(summaries) as Record<keyof typeof distributions, Times>;
    return { ...times, delivered, lost };
  }

  return { run, report };
}

/** Some clients send `count` lines each as fast as they can; counts what comes of it. */
async function burst(room: Room, senders: number, count: number) {
  const receivers = room.clients.length;
  const expected = senders * count * (receivers - 1);
  const all = Promise.withResolvers<void>();
  const seen = room.clients.map(() => new Uint8Array(senders * count));
  const newest = room.clients.map(() => new Int32Array(senders).fill(-1));
  let [delivered, twice, outOfOrder, end] = [0, 0, 0, 0];
  const run = listen(room, (receiver, sender, line) => {
    if (sender >>> 0 >= senders || line >>> 0 >= count) return; // garbled, so what it was is lost
    if (line < newest[receiver]![sender]!) outOfOrder++;
    else newest[receiver]![sender] = line;
    const at = sender * count + line;
    if (seen[receiver]![at]) return void twice++;
    seen[receiver]![at] = 1;
    // The clock is read for some lines only: it would cost as much as all the rest here.
    if (++delivered % 256 === 0 || delivered === expected) end = Bun.nanoseconds();
    if (delivered === expected) all.resolve();
  });
  const speakers = room.clients.slice(0, senders);
  const blocks = speakers.map(({ says }) => lines(run, 0, count, says));
  const cpu = process.cpuUsage();
  const begin = Bun.nanoseconds();
  speakers.forEach((sender, n) => send(sender, blocks[n]));
  await settle(() => expected - delivered, all.promise);
  const took = end - begin;
  const { user, system } = process.cpuUsage(cpu);
  const busy = ((user + system) * 1000) / took; // this process: near 1, it is what limits
  return {
    took,
    perSecond: (delivered * 1e9) / took,
    lost: expected - delivered,
    twice,
    outOfOrder,
    busy,
  };
}

/**
 * Flat out, in bursts: they double until one takes long enough to tell, and the one before it was not
 * much shorter; else it was not the lines that took so long.
 *
 * @returns `run` for one such burst as often as is wanted, and a `report` on the median one; what is
 *   wrong adds up over all, and the burst that loses something is the last
 */
export function openFlood(room: Room, senders: number) {
  const long: Awaited<ReturnType<typeof burst>>[] = [];
  const wrong = { lost: 0, twice: 0, outOfOrder: 0 };
  let [count, before] = [Math.ceil(400 / senders), 0];

  async function run(): Promise<void> {
    for (let isLong = false; !isLong && !wrong.lost;) {
      const result = await burst(room, senders, count);
      for (const key of ["lost", "twice", "outOfOrder"] as const) wrong[key] += result[key];
      isLong = (result.took > 250e6 && before > 80e6) || result.took > 1e9;
      before = result.took;
      if (isLong || wrong.lost) long.push(result);
      else count *= 2;
    }
  }

  function report() {
    const sorted = long.toSorted((a, b) => a.perSecond - b.perSecond);
    const shown = wrong.lost ? long.at(-1) : sorted[sorted.length >> 1];
    return { ...shown!, ...wrong };
  }

  return { run, report };
}

/** A newcomer: connect, name, line; gives the ns until another client has it. */
export async function join(room: Room): Promise<number> {
  const begin = Bun.nanoseconds();
  const heard = Promise.withResolvers<number>();
  const run = listen(room, () => heard.resolve(Bun.nanoseconds()));
  const newcomer = await connect(room);
  speak(newcomer, run);
  const took = (await heard.promise) - begin;
  newcomer.socket.end();
  await Bun.sleep(150); // the next one finds a server that has nothing else to do
  return took;
}
