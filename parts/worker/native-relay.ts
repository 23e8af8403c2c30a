/**
 * The C way between a worker's client and the server: the process blocks in `relay()` of native.c, which
 * moves what comes down by itself, says plain lines, and returns with all else that the client has said. The
 * event loop runs in between, when something wants it: a control message, a signal, a timer.
 *
 * Where bytes wait: what the client says waits in its socket, from which whole lines are taken, no more than
 * can be said at once; what the others say waits in stdin, and one block of it here, while the client's
 * socket does not take it.
 *
 * @module
 */
import { readSync } from "node:fs";
import type { Socket } from "node:net";
import { Event, Field, type Native } from "../shared/native.ts";
import { descriptorOf } from "../shared/socket.ts";
import { bufferSize, type Ears, throttleTimeout } from "./relay.ts";
import type { Limits, Relay, Remains } from "./relay.ts";

const [stdin, ipc] = [0, 3]; // stdin is a socket, and stdout the same one; Bun's IPC descriptor in a child is 3
// poll(2) does not see a signal that came just before it; the event loop does. So a wait ends soon after a
// line, once, and then hardly ever.
const [soon, hardlyEver] = [100, 30_000]; // ms
const slice = 20; // between two turns of the event loop while a timer or a promise may be due, ms
const closeTimeout = 500; // for the client to close its end, which it should do first, ms
const recently = 1000; // what was said in this time before the server's death, it may not have passed on, ms
const newline = 0x0a;
const SHUT_WR = 1;

export class NativeRelay implements Relay {
  said = 0;
  readonly #c: Native;
  readonly #state = new Int32Array(Object.keys(Field).length);
  #down: Buffer;
  readonly #up: Buffer; // what was taken, and behind it the block that C makes of plain lines, with the name first
  #name = ""; // that C knows
  #isListening = true;
  #isHurried = false;
  #detaching: PromiseWithResolvers<void> | undefined; // resolved when nothing waits to be said
  #unsaid: Buffer[] = []; // lines that the server has not taken: it is dead
  #saidAt = -Infinity; // when something was said last, ms

  /** @param memory four times `bufferSize` */
  constructor(c: Native, memory: Buffer) {
    this.#c = c;
    this.#down = memory.subarray(0, bufferSize);
    this.#up = memory.subarray(bufferSize);
  }

  async run(client: Socket, ears: Ears, { maxLine, pace, telnet }: Limits): Promise<void> {
    const state = this.#state;
    state.set([stdin, this.#adopt(client), ipc]);
    const partial = Math.min(maxLine + 1, bufferSize - 1);
    state[Field.torn] = Number(telnet.isTorn);
    let busy: Promise<void> | undefined; // what the client said is being dealt with
    let rest = soon;
    let throttled = 0; // since the client is gone, ms
    const waitFor = async (dealt: Promise<void> | undefined) => {
      if (!dealt) return;
      busy = dealt.then(() => void (busy = undefined));
      await turn(); // it may not have to wait long
    };

    const leave = (wasReset: boolean) => {
      this.stopListening();
      return waitFor(ears.end(wasReset));
    };

    if (state[Field.client]! < 0) await leave(true); // it was gone before it got here
    while (busy || !this.#detaching) {
      if (!process.connected) state[Field.control] = -1;
      const mayListen = this.#isListening && !busy;
      const lines = mayListen ? Math.min(pace.lines, 2 ** 30) : 0;
      const isDue = busy || this.#isHurried || !process.connected;
      const wait = isDue ? slice : mayListen && lines === 0 ? Math.ceil(pace.wait) : rest;
      if (mayListen && lines === 0 && state[Field.left] && (throttled += wait) > throttleTimeout) {
        await leave(true);
        continue;
      }
      state[Field.partial] = telnet.isMidCommand ? 0 : partial;
      this.#setName(ears.name());
      const got = this.#relay(lines, wait);
      rest = got === Event.turn ? hardlyEver : soon;
      if (got <= 0) pace.spend(state[Field.taken]!);
      if (got === Event.hungUp) return await this.#hangUp();
      if (got === Event.gone) break;
      if (got === Event.torn) ears.hold("torn", true);
      else if (got === Event.turn) await turn();
      else if (got > 0) {
        const text = telnet.read(this.#up.subarray(0, got), state[Field.special] === 1);
        ears.hold("torn", telnet.isTorn);
        state[Field.torn] = Number(telnet.isTorn);
        const dealt = ears.hear(text); // before the pace, so that the others have it soon
        pace.spend(state[Field.taken]! + Number(telnet.hasCommands));
        await waitFor(dealt);
      } else await leave(got === Event.reset);
    }
    this.#detaching?.resolve();
    await busy; // which needs no server any more
    await turn();
    const remains = this.#collect();
    if (await ears.orphaned(remains)) return;
    this.#down = remains.unshown;
    [state[Field.from], state[Field.to]] = [0, remains.unshown.length];
    await this.#hangUp();
  }

  /** Reads what the server has written before its end, and waits for that if it has not come yet. */
  #collect(): Remains {
    const state = this.#state;
    const [from, to] = [state[Field.from]!, state[Field.to]!];
    const blocks = [this.#down.subarray(from, to)];
    let last = to > 0 ? this.#down[to - 1] : newline;
    let wasReset = false; // the server has not read everything
    try {
      for (let block; (block = readBlock()).length > 0; last = block.at(-1)) blocks.push(block);
    } catch {
      wasReset = true;
    }
    const isMidLine = last !== newline;
    const isBehind = from < to || blocks.length > 1 || isMidLine;
    return {
      client: state[Field.client]!,
      unsaid: `${Buffer.concat(this.#unsaid)}`,
      unshown: Buffer.concat(blocks),
      isTorn: state[Field.torn] === 1,
      isMidLine,
      mayMiss: isBehind && !this.#detaching, // more may have waited in the server
      mayLack: wasReset || (!this.#detaching && performance.now() - this.#saidAt < recently),
    };
  }

  stopListening(): void {
    this.#isListening = false;
  }

  hurry(): void {
    this.#isHurried = true;
  }

  detach(): Promise<void> {
    this.stopListening();
    this.#detaching = Promise.withResolvers();
    return this.#detaching.promise;
  }

  say(lines: string): undefined {
    const bytes = Buffer.from(lines);
    this.#count(bytes.length, bytes, this.#c.say(stdin, bytes, bytes.length));
  }

  /** Counts bytes that were said; of the last block, the server has taken the first `sent`. */
  #count(said: number, block: Buffer, sent: number): void {
    this.said += said;
    this.#saidAt = performance.now();
    if (sent < block.length) this.#unsaid.push(unsaidLines(block, sent));
  }

  #relay(lines: number, wait: number): number {
    const state = this.#state;
    state[Field.lines] = lines;
    const got = this.#c.relay(state, this.#down, this.#up, bufferSize, wait);
    if (state[Field.block]! > 0) {
      const block = this.#up.subarray(bufferSize, bufferSize + state[Field.block]!);
      this.#count(state[Field.said]!, block, state[Field.sent]!);
    }
    return got;
  }

  /** Tells C what goes before a plain line; without a name, it says none. */
  #setName(name: string): void {
    if (name === this.#name) return;
    this.#name = name;
    this.#state[Field.name] = name ? this.#up.write(`${name}: `, bufferSize) : 0;
  }

  /**
   * Duplicates the client's descriptor and lets Bun close its own: Bun would close the connection at a reset,
   * and what had arrived before would be lost.
   */
  #adopt(client: Socket): number {
    const fd = this.#c.dup(descriptorOf(client));
    client.on("error", () => {}).destroy();
    return fd;
  }

  /** The server has ended its lines: the client gets the rest of them, and the end behind it. */
  async #hangUp(): Promise<void> {
    const state = this.#state;
    [state[Field.server], state[Field.control], state[Field.name]] = [-1, -1, 0];
    while (state[Field.from]! < state[Field.to]!) {
      this.#relay(0, slice);
      await turn();
    }
    this.#c.shutdown(state[Field.client]!, SHUT_WR);
    // What the client still says is dropped. Unread, it would make the end a reset.
    const deadline = performance.now() + closeTimeout;
    for (let got = 0; performance.now() < deadline;)
      if ((got = this.#relay(bufferSize, slice)) === Event.ended || got === Event.reset) return;
  }
}

/** Which lines of a block are still to be said, if the server died when it had taken the first `sent` bytes. */
export function unsaidLines(block: Buffer, sent: number): Buffer {
  return block.subarray(block.subarray(0, sent).lastIndexOf(newline) + 1); // the last one may be begun
}

function readBlock(): Buffer {
  const block = Buffer.allocUnsafe(bufferSize);
  return block.subarray(0, readSync(stdin, block));
}

/** Lets the event loop do what is due: first what it knows of, then what the kernel tells it. */
async function turn(): Promise<void> {
  await new Promise(setImmediate);
  await new Promise(setImmediate);
}
