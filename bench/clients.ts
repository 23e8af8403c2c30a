/**
 * Clients on real sockets: what they say, what they hear, and whether that is what was said.
 *
 * `fanout.ts` has them in its own process; for `compare.ts` they are in a process of their own
 * (`measure.ts`, `faults.ts`), so that their work is on nobody else's account. All times are in
 * nanoseconds.
 *
 * @module
 */
import type { Wrong } from "./schema.ts";

// --- Lines ---------------------------------------------------------------------------------------

// A client says "RRRR NNNNNNNN text" with the numbers of the run and of the line, and the others get it
// behind its name: "cSSSS: RRRR NNNNNNNN text". Every place is fixed, so it is known in advance which
// bytes come, and what comes is compared with them, as many lines at a time as have come: what counts
// millions of lines a second has no time to look into each.
const prefix = "c0000: ".length;
const stamp = "0000 00000000 ".length;
const newline = 0x0a;
const filler = "What is said in a chat has about the length of this line, has it? ";

/** The least and the most bytes in a line; what pipechat takes with a name, and the floor's buffer. */
export const leastSize = stamp + 10;
export const mostSize = 4000;

const nameOf = (client: number) => `c${String(client).padStart(4, "0")}`;

/** The name of a client to which something happens. What it says is not looked at. */
export const victimName = (client: number) => nameOf(client).replace("c", victimLetter);
const victimLetter = "x";

/** `count` lines of `size` bytes, each behind a name. */
function linesOf(sender: number, run: number, count: number, size: number): Buffer {
  const length = prefix + size;
  const words = filler.repeat(Math.ceil(size / filler.length)).slice(0, size - stamp - 1);
  const line = `${nameOf(sender)}: ${String(run).padStart(4, "0")} 00000000 ${words}\n`;
  const block = Buffer.alloc(count * length, line);
  for (let n = 1; n < count; n++)
    block.write(String(n).padStart(8, "0"), n * length + prefix + 5, "latin1");
  return block;
}

/** The same as it is said: without the names. */
function withoutNames(block: Buffer, size: number): Buffer {
  const length = prefix + size;
  const said = Buffer.alloc((block.length / length) * size);
  for (let from = 0, to = 0; from < block.length; from += length, to += size)
    block.copy(said, to, from + prefix, from + length);
  return said;
}

// --- Clients -------------------------------------------------------------------------------------

/** A client that is connected. */
export interface Client {
  /** In its name, and for one that stays, its place among the room's clients. */
  number: number;
  socket: Bun.Socket;
  /** What the kernel did not take yet. */
  unsent: Buffer;
  /** A line that has begun. */
  carry: Buffer;
  /** Whether the connection is still there. */
  isOpen: boolean;
}

/** What clients send: the plain relay needs the names, too. */
export type Form = "text" | "name: text";

/** Where a server listens, and what it is told. */
export interface Address {
  host: string;
  ports: number[];
  form: Form;
}

/** Clients of one server, or in turn of several that share the room; all stay. */
export interface Room extends Address {
  /** Bytes in a line that a client says. */
  size: number;
  clients: Client[];
  /** Names given so far; nobody gets one a second time. */
  names: number;
  /** The client to which something will happen. */
  victim: number;
  run: number;
  ledger: Ledger | undefined;
  /** Called for a line that no client of ours has said. */
  onForeign: (receiver: number, line: string) => void;
  /** How long nothing comes before what is missing is lost, ms. */
  patience: number;
  /** What the server itself said first, for an error message. */
  said: string;
}

/** Opens a room without anyone in it. */
export function openRoom(
  { host, ports, form }: Address = { host: "127.0.0.1", ports: [], form: "text" },
  size = 80,
  patience = 2000,
): Room {
  const empty = { clients: [], names: 0, victim: -1, run: 0, ledger: undefined, said: "" };
  return { host, ports, form, size, patience, ...empty, onForeign: () => {} };
}

/** Connects a client that has not said its name. */
export async function connectSilently(room: Room): Promise<Client> {
  const number = room.names++;
  const rest = { unsent: Buffer.alloc(0), carry: Buffer.alloc(0), isOpen: true };
  const client = { number, ...rest } as Client;
  client.socket = await Bun.connect({
    hostname: room.host,
    port: room.ports[number % room.ports.length]!,
    socket: {
      data: (_, chunk) => hear(room, client, chunk),
      drain: () => send(client),
      close: () => void (client.isOpen = false),
      end: () => void (client.isOpen = false),
      error: () => void (client.isOpen = false), // what it does not get is counted as lost
    },
  });
  client.socket.setNoDelay(true);
  return client;
}

/** Connects a client and says its name. */
export async function connect(room: Room): Promise<Client> {
  const client = await connectSilently(room);
  const name = client.number === room.victim ? victimName : nameOf;
  send(client, Buffer.from(`${name(client.number)}\n`));
  return client;
}

/** Sends as much as the kernel takes now, and the rest when it takes more. */
export function send(client: Client, bytes?: Buffer): void {
  if (bytes) client.unsent = client.unsent.length ? Buffer.concat([client.unsent, bytes]) : bytes;
  if (client.unsent.length === 0 || !client.isOpen) return;
  client.unsent = client.unsent.subarray(Math.max(0, client.socket.write(client.unsent)));
}

// --- What they hear ------------------------------------------------------------------------------

/** Says that a receiver has got `count` lines of a sender, from its line `first` on. */
type Deliver = (
  receiver: number,
  sender: number,
  first: number,
  count: number,
  now: number,
) => void;

/**
 * What is said in a run, and what came of it. A run has its own number in each line, so that what is
 * late from an earlier one is not taken for this one's.
 */
export class Ledger {
  delivered = 0;
  twice = 0;
  outOfOrder = 0;
  garbled = 0;
  cut = 0;
  /** Lines that came back to who had said them. */
  echoed = 0;
  readonly expected: number;
  /** Resolves when all is delivered. */
  readonly complete: Promise<void>;
  readonly #resolve: () => void;
  readonly #room: Room;
  readonly #run: number;
  readonly #length: number; // bytes in a line as it comes
  readonly #count: number; // lines that each sender says
  readonly #blocks = new Map<number, Buffer>(); // what comes of each sender
  readonly #senders: number;
  readonly #nth: Int16Array; // of a client among the senders; -1 for none
  readonly #next: Int32Array; // of a receiver and sender: the line that comes next
  readonly #missing = new Map<number, Set<number>>(); // of the same: lines that were left out
  readonly #deliver: Deliver;
  #hint = 1; // lines that came together last

  /**
   * Begins a run; the one before ends.
   *
   * @param speakers the numbers of the clients that say `count` lines each
   */
  constructor(room: Room, speakers: number[], count: number, deliver: Deliver = () => {}) {
    const receivers = room.clients.length;
    const staying = speakers.filter((number) => number < receivers);
    room.run = (room.run + 1) % 10_000;
    room.ledger = this;
    this.#room = room;
    this.#run = room.run;
    this.#length = prefix + room.size;
    this.#count = count;
    this.#senders = speakers.length;
    this.#nth = new Int16Array(10_000).fill(-1);
    this.#next = new Int32Array(receivers * speakers.length);
    this.#deliver = deliver;
    this.expected = count * (speakers.length * receivers - staying.length);
    ({ promise: this.complete, resolve: this.#resolve } = Promise.withResolvers<void>());
    for (const [nth, number] of speakers.entries()) {
      this.#nth[number] = nth;
      this.#blocks.set(number, linesOf(number, room.run, count, room.size));
    }
  }

  /** A line as a client says it. */
  line(speaker: number, which: number): Buffer {
    const from = which * this.#length + (this.#room.form === "text" ? prefix : 0);
    return this.#blocks.get(speaker)!.subarray(from, (which + 1) * this.#length);
  }

  /** All lines of a client, as it says them. */
  lines(speaker: number): Buffer {
    const block = this.#blocks.get(speaker)!;
    return this.#room.form === "text" ? withoutNames(block, this.#room.size) : block;
  }

  /** Deliveries that are missing. */
  get lost(): number {
    return this.expected - this.delivered;
  }

  get wrong(): Wrong {
    const { lost, twice, outOfOrder, garbled, cut } = this;
    const cutOff = this.#room.clients.filter(({ isOpen }) => !isOpen).length;
    return { lost, twice, outOfOrder, garbled, cut, cutOff };
  }

  /** Waits until nothing is missing, or nothing has come for a while: then it is lost. */
  async settle(): Promise<void> {
    const { patience } = this.#room;
    for (let before = -1; this.lost > 0 && this.delivered > before;) {
      const began = performance.now();
      const delivered = this.delivered;
      const { promise: late, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, patience);
      await Promise.race([this.complete, late]);
      clearTimeout(timer);
      // If this process itself stood still, what has come meanwhile is not read yet.
      if (performance.now() - began < 1.2 * patience) before = delivered;
    }
  }

  /**
   * Takes lines that are just what comes next of a sender, as many as there are.
   *
   * @returns how many bytes they have
   */
  take(receiver: number, bytes: Buffer, start: number, now: number): number {
    const length = this.#length;
    if (bytes.length - start < length || receiver * this.#senders >= this.#next.length) return 0;
    const sender = digits(bytes, start + 1, start + 5);
    const nth = this.#nth[sender] ?? -1;
    if (nth < 0 || sender === receiver) return 0;
    const at = receiver * this.#senders + nth;
    const first = this.#next[at]!;
    const most = Math.min(Math.floor((bytes.length - start) / length), this.#count - first);
    const block = this.#blocks.get(sender)!;
    let [taken, step, isGrowing] = [0, Math.min(most, this.#hint), true];
    while (step > 0) {
      const [from, to] = [(first + taken) * length, start + taken * length];
      const bytesOf = step * length;
      if (
        taken + step <= most &&
        bytes.compare(block, from, from + bytesOf, to, to + bytesOf) === 0
      ) {
        taken += step;
        if (isGrowing) step *= 2;
      } else {
        isGrowing = false;
        step >>= 1;
      }
    }
    if (taken === 0) return 0;
    this.#hint = taken;
    this.#next[at] = first + taken;
    this.#add(receiver, sender, first, taken, now);
    return taken * length;
  }

  /** Looks at a line that is not what was expected next. */
  judge(receiver: number, line: string, now: number): void {
    if (receiver * this.#senders >= this.#next.length) return; // a guest: it is not counted
    const [, name, run, number] = /^c(\d{4}): (\d{4}) (\d{8}) /.exec(line) ?? [];
    const sender = Number(name);
    const isOurs = /^c\d{4}: /.test(line) || line.includes(filler.slice(0, 9));
    if (!isOurs) return this.#room.onForeign(receiver, line);
    const nth = name ? this.#nth[sender]! : -1;
    const isWhole = line.length === this.#length - 1;
    if (name && Number(run) !== this.#run && isWhole) return; // late, of an earlier run
    const block = this.#blocks.get(sender);
    if (nth < 0 || !block || Number(number) >= this.#count) {
      const isStart = /^c\d{4}: [\d ]*$/.test(line) && line.length < prefix + stamp;
      return void (isStart ? this.cut++ : this.garbled++);
    }
    const which = Number(number);
    const said = block.toString("latin1", which * this.#length, (which + 1) * this.#length - 1);
    if (line !== said) return void (said.startsWith(line) ? this.cut++ : this.garbled++);
    if (sender === receiver) return void this.echoed++;
    const at = receiver * this.#senders + nth;
    const next = this.#next[at]!;
    const missing = this.#missing.get(at) ?? new Set();
    this.#missing.set(at, missing);
    if (which < next) {
      if (!missing.delete(which)) return void this.twice++;
      this.outOfOrder++;
    } else {
      for (let skipped = next; skipped < which; skipped++) missing.add(skipped);
      this.#next[at] = which + 1;
    }
    this.#add(receiver, sender, which, 1, now);
  }

  #add(receiver: number, sender: number, first: number, count: number, now: number): void {
    this.delivered += count;
    this.#deliver(receiver, sender, first, count, now);
    if (this.delivered === this.expected) this.#resolve();
  }
}

function digits(bytes: Uint8Array, from: number, to: number): number {
  let number = 0;
  for (let at = from; at < to; at++) number = number * 10 + bytes[at]! - 48;
  return number;
}

function hear(room: Room, client: Client, chunk: Buffer): void {
  const now = Bun.nanoseconds();
  const bytes = client.carry.length > 0 ? Buffer.concat([client.carry, chunk]) : chunk;
  for (let start = 0; ;) {
    const taken = room.ledger?.take(client.number, bytes, start, now) ?? 0;
    start += taken;
    if (taken > 0) continue;
    const end = bytes.indexOf(newline, start);
    if (end < 0) return void (client.carry = Buffer.from(bytes.subarray(start)));
    const line = bytes.toString("latin1", start, end).replace(/\r$/, "");
    start = end + 1;
    if (line.startsWith(victimLetter)) {
      // Of a flood only what others have said is looked for.
      const next = bytes.indexOf("\nc", end);
      start = next < 0 ? bytes.lastIndexOf(newline) + 1 : next + 1;
    } else if (room.ledger) room.ledger.judge(client.number, line, now);
    else room.onForeign(client.number, line);
  }
}

// --- Filling a room ------------------------------------------------------------------------------

/** Lets clients in until the room has `count`, all at once but the first two; gives the ns it took. */
export async function fill(room: Room, count: number): Promise<number> {
  if (room.clients.length < 2) await meet(room);
  const from = room.clients.length;
  const newcomers = Array.from({ length: Math.max(0, count - from) }, (_, n) => from + n);
  const begin = Bun.nanoseconds();
  const { promise: all, resolve } = Promise.withResolvers<void>();
  let missing = newcomers.length;
  const ledger = new Ledger(room, newcomers, 1, (receiver) => {
    if (receiver === 0 && --missing === 0) resolve();
  });
  const greet = async () => {
    const client = await connect(room);
    room.clients[client.number] = client;
    send(client, ledger.line(client.number, 0));
  };
  await Promise.all(newcomers.map(greet));
  for (let before = Infinity; missing > 0 && missing < before;) {
    before = missing;
    await Promise.race([all, Bun.sleep(30_000)]); // processes take time to start
  }
  if (missing > 0) throw new Error(`${missing} of ${newcomers.length} clients could not join`);
  const took = Bun.nanoseconds() - begin;
  await say(room, 0); // behind it, nothing of what was said before is still on its way
  return took;
}

/** The first two: nobody knows when they are in before one has heard the other. */
async function meet(room: Room): Promise<void> {
  room.onForeign = (_, line) => void (room.said += `${line}\n`);
  while (room.clients.length < 2) room.clients.push(await connect(room));
  const patience = 5000; // ms
  const ledger = new Ledger(room, [1], patience / 20);
  for (let which = 0; ledger.delivered === 0; which++) {
    const gone = room.clients.some(({ isOpen }) => !isOpen);
    const echoed = ledger.echoed > 0;
    if (gone || echoed || which === patience / 20) {
      const said =
        room.said || room.clients.map(({ carry }) => carry.toString("latin1")).join("\n");
      const what = gone
        ? "it ended the connection of a client that said its name and a line"
        : echoed
          ? "it gave a line back to who had said it"
          : `nobody got 'name: text' within ${patience / 1000} s of a line`;
      throw new Error(`it does not speak this protocol: ${what}; it said ${quote(said)}`);
    }
    send(room.clients[1]!, ledger.line(1, which));
    await Promise.race([ledger.complete, Bun.sleep(20)]);
  }
  room.onForeign = () => {};
  await say(room, 1);
}

/** One client says a line; resolves when all the others have it. */
export async function say(room: Room, sender: number): Promise<void> {
  const ledger = new Ledger(room, [sender], 1);
  send(room.clients[sender]!, ledger.line(sender, 0));
  const { promise: late, reject } = Promise.withResolvers<never>();
  const error = () => new Error(`within 9 s a line reached all clients but ${ledger.lost}`);
  const timer = setTimeout(() => reject(error()), 9000);
  await Promise.race([ledger.complete, late]).finally(() => clearTimeout(timer));
}

/** Ends all connections. */
export function closeRoom(room: Room): void {
  for (const client of room.clients) client.socket.terminate();
}

/** What somebody said, in one short line. */
export function quote(said: string): string {
  const line = said.trim().replaceAll(/\s*\n\s*/g, " / ");
  if (line === "") return "nothing";
  return `'${line.length > 120 ? `${line.slice(0, 120)}…` : line}'`;
}
