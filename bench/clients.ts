/**
 * Clients on real sockets: what they say, what they get, and whether that is what was said. All times
 * are in nanoseconds.
 */
import type { Wrong } from "./schema.ts";

// A client says "RRRR NNNNNNNN text" with the numbers of the run and of the line, and the others get it
// behind its name: "cSSSS: RRRR NNNNNNNN text". Every place is fixed, so it is known in advance which
// bytes come, and what comes is compared with them, as many lines at a time as have come: what counts
// millions of lines a second has no time to look into each.
const prefix = "c0000: ".length;
const stamp = "0000 00000000 ".length;
const filler = "What is said in a chat has about the length of this line, has it? ";

/** The least and the most bytes in a line; what pipechat takes with a name, and the floor's buffer. */
export const leastSize = stamp + 10;
export const mostSize = 4000;

const padded = (number: number, length: number) => String(number).padStart(length, "0");

/** `count` lines of `size` bytes, each behind a name. */
function linesOf(sender: number, run: number, count: number, size: number): Buffer {
  const words = filler.repeat(Math.ceil(size / filler.length)).slice(0, size - stamp - 1);
  const line = `c${padded(sender, 4)}: ${padded(run, 4)} 00000000 ${words}\n`;
  const block = Buffer.alloc(count * line.length, line);
  for (let n = 1; n < count; n++) block.write(padded(n, 8), n * line.length + prefix + 5, "latin1");
  return block;
}

/** Waits for a promise, but not longer than so many ms. Returns whether it was fulfilled by then. */
export async function inTime(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(resolve, ms, false);
  const isInTime = await Promise.race([promise.then(() => true), late]);
  clearTimeout(timer);
  return isInTime;
}

/** A client that is connected. */
export class Client {
  socket!: Bun.Socket;
  isOpen = true;
  heard = 0; // when a line of another came, if it joined last
  unsent: Buffer = Buffer.alloc(0); // what the kernel did not take yet
  carry: Buffer = Buffer.alloc(0); // a line that has begun

  constructor(readonly number: number) {} // in its name; its place in the room, if it stays

  /** Sends as much as the kernel takes now, and the rest when it takes more. */
  send(bytes?: Buffer): void {
    if (bytes) this.unsent = this.unsent.length ? Buffer.concat([this.unsent, bytes]) : bytes;
    if (this.unsent.length === 0 || !this.isOpen) return;
    this.unsent = this.unsent.subarray(Math.max(0, this.socket.write(this.unsent)));
  }
}

/** A server that runs. */
export interface Target {
  host: string;
  port: number;
  pid?: number; // of its first process, if it is ours
  sendNames?: boolean; // with each line: the plain relay needs them
}

/** Clients of a server. All stay, but newcomers that are measured. */
export class Room {
  readonly clients: Client[] = [];
  names = 0; // given so far; nobody gets one a second time
  victim = -1; // the number of the client to which something will happen
  run = 0;
  ledger: Ledger | undefined;
  now = 0; // when the bytes came that are looked at
  #came = ""; // the first that the clients got, for an error message
  onForeign = (_receiver: number, _line: string) => {}; // for a line that no client of ours has said

  constructor(
    readonly target: Target,
    readonly size = 80, // bytes in a line that a client says
    readonly patience = 2000, // ms without a line after which what is missing is lost
  ) {}

  nameOf = (client: number): string => `${client === this.victim ? "x" : "c"}${padded(client, 4)}`;

  /** Connects a client, which says its name, if any. */
  async connect(name = this.nameOf(this.names)): Promise<Client> {
    const client = new Client(this.names++);
    const { host: hostname, port } = this.target;
    const closed = () => void (client.isOpen = false); // what it does not get is counted as lost
    const data = (_: unknown, chunk: Buffer) => this.#hear(client, chunk);
    const drain = () => client.send();
    const socket = { data, drain, close: closed, end: closed, error: closed };
    client.socket = await Bun.connect({ hostname, port, socket });
    client.socket.setNoDelay(true);
    if (name) client.send(Buffer.from(`${name}\n`));
    return client;
  }

  #hear(client: Client, chunk: Buffer): void {
    this.now = Bun.nanoseconds();
    if (this.#came.length < 300) this.#came += chunk.toString("utf8", 0, 300);
    const bytes = client.carry.length > 0 ? Buffer.concat([client.carry, chunk]) : chunk;
    for (let start = 0; ;) {
      const taken = this.ledger?.take(client.number, bytes, start) ?? 0;
      start += taken;
      if (taken > 0) continue;
      const end = bytes.indexOf(0x0a, start);
      if (end < 0) return void (client.carry = Buffer.from(bytes.subarray(start)));
      const line = bytes.toString("latin1", start, end).replace(/\r$/, "");
      start = end + 1;
      if (line.startsWith("x")) {
        // Of a flood only what others have said is looked for.
        const next = bytes.indexOf("\nc", end);
        start = next < 0 ? bytes.lastIndexOf(0x0a) + 1 : next + 1;
      } else if (this.ledger?.judge(client.number, line)) client.heard ||= this.now;
      else this.onForeign(client.number, line);
    }
  }

  /** Lets clients in until there are `count`, all at once but the first two. Returns the ns it took. */
  async fill(count: number): Promise<number> {
    const isEmpty = this.clients.length === 0;
    while (this.clients.length < 2) this.clients.push(await this.connect());
    if (isEmpty) await this.meet(1);
    const newcomers = Array.from({ length: count }, (_, n) => n).slice(this.clients.length);
    const begin = Bun.nanoseconds();
    const { promise: all, resolve } = Promise.withResolvers<void>();
    let missing = newcomers.length;
    const ledger = new Ledger(this, newcomers, 1, (receiver) => {
      if (receiver === 0 && --missing === 0) resolve();
    });
    const greet = async () => {
      const client = await this.connect();
      this.clients[client.number] = client;
      client.send(ledger.line(client.number, 0));
    };
    await Promise.all(newcomers.map(greet));
    if (missing > 0 && !(await inTime(all, 60_000)))
      // processes take time to start
      throw new Error(`${missing} of ${newcomers.length} clients could not join`);
    const took = Bun.nanoseconds() - begin;
    await this.say(0); // behind it, nothing of what was said before is still on its way
    return took;
  }

  /** Waits until all who have joined are in: nobody knows before they have got a line of `sender`. */
  meet = (sender: number) => this.say(sender, [50, 100, 200, 400, 800, 1600, 3200]);

  /** One client says a line, perhaps repeatedly; resolves when all the others have it. */
  async say(sender: number, attempts = [9000]): Promise<void> {
    for (const ms of attempts) {
      const ledger = new Ledger(this, [sender], 1);
      this.clients[sender]!.send(ledger.line(sender, 0));
      if (await inTime(ledger.complete, ms)) return;
    }
    const { lost, cutOff } = this.ledger!.wrong;
    throw new Error(
      `it does not speak this protocol: of the others, ${lost} did not get 'name: text' of a line in time, and ` +
        `${cutOff} clients were cut off; what came first is ${quote(this.#came)}`,
    );
  }

  /** Ends all connections. */
  [Symbol.dispose](): void {
    for (const client of this.clients) client.socket.terminate();
  }
}

/** The last lines of what somebody printed, in one: the cause of an end is in them. */
export function quote(printed: string): string {
  const lines = printed
    .trim()
    .split(/\s*\n\s*/)
    .slice(-5);
  const text = lines.join(" / ").replaceAll(/\p{Cc}/gu, "�");
  return text === "" ? "nothing" : `'${text.length > 400 ? `…${text.slice(-400)}` : text}'`;
}

/**
 * What is said in a run, and what came of it. A run has its own number in each line, so that what is
 * late from an earlier one is not taken for this one's.
 */
export class Ledger {
  delivered = 0;
  readonly #done = Promise.withResolvers<void>();
  readonly complete = this.#done.promise; // when all is delivered
  readonly #wrong = { twice: 0, outOfOrder: 0, garbled: 0, cut: 0, echoed: 0 };
  readonly #expected: number;
  readonly #length: number; // bytes in a line as it comes
  readonly #blocks = new Map<number, Buffer>(); // what comes of each sender
  readonly #nth = new Int16Array(10_000).fill(-1); // of a client among the senders; -1 for none
  readonly #next: Int32Array; // of a receiver and sender: the line that comes next
  readonly #missing = new Map<number, Set<number>>(); // of the same: lines that were left out

  /** Begins a run; the one before ends. */
  constructor(
    readonly room: Room,
    readonly speakers: number[], // their numbers
    readonly count: number, // lines that each of them says
    readonly deliver = (_receiver: number, _sender: number, _first: number, _count: number) => {},
  ) {
    const receivers = room.clients.length;
    const staying = speakers.filter((number) => number < receivers).length;
    room.run = (room.run + 1) % 10_000;
    room.ledger = this;
    this.#length = prefix + room.size;
    this.#next = new Int32Array(receivers * speakers.length);
    this.#expected = count * (speakers.length * receivers - staying);
    for (const [nth, number] of speakers.entries()) {
      this.#nth[number] = nth;
      this.#blocks.set(number, linesOf(number, room.run, count, room.size));
    }
  }

  /** A line as a client says it. */
  line(speaker: number, which: number): Buffer {
    const from = which * this.#length + (this.room.target.sendNames ? 0 : prefix);
    return this.#blocks.get(speaker)!.subarray(from, (which + 1) * this.#length);
  }

  get wrong(): Wrong {
    const cutOff = this.room.clients.filter(({ isOpen }) => !isOpen).length;
    return { lost: this.#expected - this.delivered, ...this.#wrong, cutOff };
  }

  /** Waits until nothing is missing, or nothing has come for a while: then it is lost. */
  async settle(): Promise<void> {
    // If this process itself stands still, what has come meanwhile is not read yet: that is one tick.
    const tick = 20; // ms
    for (let silent = 0; this.delivered < this.#expected && silent < this.room.patience;) {
      const { delivered } = this;
      await inTime(this.complete, tick);
      silent = this.delivered > delivered ? 0 : silent + tick;
    }
  }

  /** Counts lines that are just what comes next of a sender, as many as come. Returns their bytes. */
  take(receiver: number, bytes: Buffer, start: number): number {
    const { speakers, count } = this;
    const length = this.#length;
    if (bytes.length - start < length) return 0;
    let sender = 0;
    for (let at = start + 1; at < start + 5; at++) sender = sender * 10 + bytes[at]! - 48;
    const nth = this.#nth[sender] ?? -1;
    const at = receiver * speakers.length + nth;
    if (nth < 0 || sender === receiver || at >= this.#next.length) return 0;
    const first = this.#next[at]!;
    const most = Math.min(Math.floor((bytes.length - start) / length), count - first);
    if (most === 0) return 0;
    const block = this.#blocks.get(sender)!.subarray(first * length);
    const isNext = (lines: number) =>
      bytes.compare(block, 0, lines * length, start, start + lines * length) === 0;
    let taken = 1; // or as many as are of the same sender
    const name = bytes.readUInt32BE(start + 1);
    while (taken < most && bytes.readUInt32BE(start + taken * length + 1) === name) taken++;
    if (!isNext(taken)) taken = isNext(1) ? 1 : 0;
    if (taken === 0) return 0;
    this.#next[at] = first + taken;
    this.#add(receiver, sender, first, taken);
    return taken * length;
  }

  /** Looks at a line that is not what was expected next. Returns false if none of ours has said it. */
  judge(receiver: number, line: string): boolean {
    const [, name, run, number] = /^c(\d{4}): (\d{4}) (\d{8}) /.exec(line) ?? [];
    const isOurs = /^c\d{4}: /.test(line) || line.includes(filler.slice(0, 9));
    const isGuest = receiver * this.speakers.length >= this.#next.length;
    const isLate = name && Number(run) !== this.room.run && line.length === this.#length - 1;
    if (!isOurs || isGuest) return isGuest; // a guest's are not counted
    const [sender, which] = [Number(name), Number(number)];
    if (sender === receiver) this.#wrong.echoed++;
    else if (!isLate) this.#compare(receiver, sender, which, line);
    return true;
  }

  #compare(receiver: number, sender: number, which: number, line: string): void {
    const wrong = this.#wrong;
    const block = this.#blocks.get(sender);
    if (!block || which >= this.count) {
      const isStart = /^c\d{4}: [\d ]*$/.test(line) && line.length < prefix + stamp;
      return void wrong[isStart ? "cut" : "garbled"]++;
    }
    const said = block.toString("latin1", which * this.#length, (which + 1) * this.#length - 1);
    if (line !== said) return void wrong[said.startsWith(line) ? "cut" : "garbled"]++;
    const at = receiver * this.speakers.length + this.#nth[sender]!;
    const next = this.#next[at]!;
    const missing = this.#missing.getOrInsertComputed(at, () => new Set());
    if (which < next) {
      if (!missing.delete(which)) return void wrong.twice++;
      wrong.outOfOrder++;
    } else {
      for (let skipped = next; skipped < which; skipped++) missing.add(skipped);
      this.#next[at] = which + 1;
    }
    this.#add(receiver, sender, which, 1);
  }

  #add(receiver: number, sender: number, first: number, count: number): void {
    this.delivered += count;
    this.deliver(receiver, sender, first, count);
    if (this.delivered === this.#expected) this.#done.resolve();
  }
}
