/**
 * The fast way between a worker's client and the server: while nothing else goes on in the worker, it
 * blocks in `poll(2)` over its three descriptors and moves bytes by system calls (native.ts says why).
 *
 * - A block from the server: `recv`, `send`, and back to `poll`.
 * - Lines from the client: the iterator gives them, and blocks again when it is asked for the next ones.
 * - IPC, a signal, the end of the server's bytes: back to the event loop, for one turn.
 *
 * The event loop runs, too, while the worker waits for an answer, a password or `--rate`: then nobody asks
 * for the next lines, and Bun's own sockets carry what comes from the server. So a timer or a promise
 * never waits for `poll`; the one exception asks for `hurry()`.
 *
 * Where bytes wait: what the client says waits in its socket, whose lines are taken only when they are
 * whole; what the others say waits in stdin; a block that the client's socket has not taken whole waits
 * here, and stdin is not read meanwhile. The same holds on the way up.
 *
 * @module
 */
import { ptr } from "bun:ffi";
import type { Socket } from "node:net";
import {
  type LibC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_PEEK,
  POLLIN,
  POLLOUT,
  POLLRDHUP,
  PollSet,
  setLowWatermark,
  shouldRetry,
} from "../shared/native.ts";
import type { Relay } from "./relay.ts";

/** Bun adopts an open descriptor; bun-types has the options but not this overload. */
declare module "bun" {
  function connect<Data = undefined>(options: FdSocketOptions<Data>): Promise<Socket<Data>>;
}

const [stdin, ipc] = [0, 3]; // Bun's IPC descriptor in a child is 3
const bufferSize = 65_536; // bytes that are moved at once
// Poll does not see a signal that came just before it; the event loop does. So poll gives up soon after a
// line, once, and then hardly ever. In an endless flood, signals wait for so many turns.
const [soon, hardlyEver, maxTurns] = [100, 30_000, 1000]; // ms, ms, turns

/** A TCP socket of Bun's own, below a `net.Socket`. */
type NativeSocket = Bun.Socket & { readonly fd: number };

export class NativeRelay implements Relay {
  said = 0;
  wasReset = false;
  readonly closed: Promise<void>;
  readonly #close: () => void;
  readonly #c: LibC;
  readonly #polled = new PollSet(3);
  readonly #buffer = Buffer.allocUnsafeSlow(bufferSize);
  readonly #address = ptr(this.#buffer);
  #server!: Bun.Socket;
  #client: NativeSocket | undefined; // undefined before it is here and after it has gone
  #down: Uint8Array | undefined; // what the client's socket has not taken
  #up: Uint8Array | undefined; // what the server has not taken
  #upTaken = Promise.withResolvers<void>();
  #maxPartial = 0; // bytes of a line without its end that stay in the client's socket
  #torn: (isTorn: boolean) => void = () => {};
  #isTorn = false; // the beginning of a line was taken, and its end not yet
  #watermark = 1; // bytes that the client's socket must hold before poll reports it
  #hasHungUp = false; // the server says nothing more
  #isQuiet = false; // nothing has come for a while
  #isHurried = false; // timers wait

  private constructor(c: LibC) {
    this.#c = c;
    ({ promise: this.closed, resolve: this.#close } = Promise.withResolvers<void>());
  }

  /** Adopts stdin, a socket pair, which is stdout as well. */
  static async open(c: LibC): Promise<NativeRelay> {
    const relay = new NativeRelay(c);
    relay.#server = await Bun.connect({
      fd: stdin,
      socket: {
        data: (_, chunk) => relay.#show(chunk),
        drain: () => relay.#flushUp(),
        close: () => relay.#hangUp(),
        error: () => {},
      },
    });
    return relay;
  }

  /** Takes over the client's native socket: it reports nothing to the `net.Socket` any more. */
  serve(client: Socket, maxLine: number, torn: (isTorn: boolean) => void): void {
    this.#torn = torn;
    this.#maxPartial = Math.min(maxLine + 1, bufferSize - 1);
    const { _handle } = client as unknown as { _handle: NativeSocket };
    this.#client = _handle;
    const gone = () => this.#lose();
    _handle.reload({
      socket: { data() {}, end() {}, error() {}, drain: () => this.#flushDown(), close: gone },
    });
    _handle.pause(); // it is read by #takeLines() alone
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      const lines = this.#block();
      if (this.#isHurried) await turn();
      if (lines === null) return;
      if (lines) yield lines;
      else if (this.#hasHungUp || !process.connected) return void (await this.closed);
      else await turn();
    }
  }

  hurry(): void {
    this.#isHurried = true;
  }

  say(lines: string): Promise<void> | undefined {
    const bytes = Buffer.from(lines);
    this.said += bytes.length;
    const taken = this.#server.write(bytes);
    if (taken === bytes.length) return undefined;
    this.#up = bytes.subarray(Math.max(0, taken));
    this.#upTaken = Promise.withResolvers();
    return this.#upTaken.promise;
  }

  #flushUp(): void {
    if (!this.#up) return;
    const taken = Math.max(0, this.#server.write(this.#up));
    this.#up = this.#up.subarray(taken);
    if (this.#up.length > 0) return;
    this.#up = undefined;
    this.#upTaken.resolve();
  }

  // --- In the event loop -------------------------------------------------------------------------

  /** Writes to the client; what its socket does not take waits, and the server is not read. */
  #show(chunk: Uint8Array): void {
    const taken = this.#client ? this.#client.write(chunk) : chunk.length;
    if (taken < 0) return this.#lose(); // Bun knows that it is closed
    if (taken === chunk.length) return;
    this.#down = Buffer.from(chunk.subarray(taken)); // a copy
    this.#server.pause();
  }

  #flushDown(): void {
    const bytes = this.#down;
    if (!bytes) return;
    this.#down = undefined;
    this.#show(bytes);
    if (!this.#down) this.#server.resume();
  }

  /** The client is gone: what is on its way to it goes nowhere. */
  #lose(): void {
    this.wasReset = true;
    this.#client = undefined;
    this.#flushDown();
  }

  /** The server has ended its bytes, behind which the client gets the end of its own. */
  #hangUp(): void {
    this.#hasHungUp = true;
    const client = this.#client;
    if (!client) return this.#close();
    const close = this.#close;
    client.reload({ socket: { data() {}, error() {}, end: close, close } });
    client.shutdown();
    client.resume(); // to see that the client closes, too, which it should do first
    setTimeout(close, 500);
  }

  // --- Blocking ----------------------------------------------------------------------------------

  /**
   * Moves what comes down until the client says something. Gives its lines; or null at its end; or
   * undefined if the event loop must run.
   */
  #block(): Uint8Array | null | undefined {
    for (let turns = 0; turns < maxTurns; turns++) {
      const client = this.#client;
      if (this.#hasHungUp || !process.connected) return undefined;
      if (!client) return null;
      const isFull = this.#down !== undefined;
      this.#polled.watch(0, stdin, isFull ? 0 : POLLIN);
      this.#polled.watch(1, client.fd, POLLIN | POLLRDHUP | (isFull ? POLLOUT : 0));
      this.#polled.watch(2, ipc, POLLIN);
      const patience = this.#isHurried ? soon / 5 : this.#isQuiet ? hardlyEver : soon;
      this.#isQuiet = !this.#polled.wait(this.#c, patience);
      if (this.#isQuiet || this.#polled.happened(2)) return undefined;
      if (this.#polled.happened(0) && !this.#relay(client.fd)) return undefined;
      const happened = this.#polled.happened(1);
      if (happened & POLLOUT) this.#flushDown();
      if (happened & ~POLLOUT) {
        const lines = this.#takeLines(client.fd, (happened & POLLRDHUP) !== 0);
        if (lines !== undefined) return lines;
      }
    }
    return undefined;
  }

  /** Moves a block from the server to the client; gives false if there is none. */
  #relay(client: number): boolean {
    const got = this.#c.recv(stdin, this.#address, bufferSize, MSG_DONTWAIT);
    if (got <= 0) return false;
    const sent = this.#c.send(client, this.#address, got, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent !== got) this.#show(this.#buffer.subarray(Math.max(0, sent), got));
    return true;
  }

  /**
   * Takes whole lines out of the client's socket; gives null at the end. The beginning of a line stays
   * there, so that it does not die with this process. But it is taken if it is too long for a line; and if the
   * kernel reports it again before there is more of it. That means that the client cannot send more: the
   * window is closed, because a few bytes can keep the memory of a large segment.
   */
  #takeLines(client: number, hasEnded: boolean): Uint8Array | null | undefined {
    const held = this.#c.recv(client, this.#address, bufferSize, MSG_PEEK | MSG_DONTWAIT);
    if (held === 0) return null;
    if (held < 0) {
      if (shouldRetry(this.#c)) return undefined;
      this.#client?.terminate(); // Bun does not look at a paused socket: it would not notice
      this.#lose();
      return null;
    }
    const end = this.#buffer.lastIndexOf(0x0a, held - 1) + 1;
    if (end === 0 && !hasEnded && held >= this.#watermark && held <= this.#maxPartial) {
      setLowWatermark(this.#c, client, (this.#watermark = held + 1));
      return undefined;
    }
    if (this.#watermark > 1) setLowWatermark(this.#c, client, (this.#watermark = 1));
    const taken = hasEnded || end === 0 ? held : end;
    if (end === 0 && !this.#isTorn) this.#torn((this.#isTorn = true));
    this.#c.recv(client, this.#address, taken, MSG_DONTWAIT);
    if (end > 0 && this.#isTorn) this.#torn((this.#isTorn = false));
    return this.#buffer.subarray(0, taken);
  }
}

/** Lets the event loop do what is due: first what it knows of, then what the kernel tells it. */
async function turn(): Promise<void> {
  await new Promise(setImmediate);
  await new Promise(setImmediate);
}
