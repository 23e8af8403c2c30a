/**
 * A client's connection. A process serves it, and another one if that dies; what belongs to the client
 * stays here.
 *
 * @module
 */
import type { Order } from "../shared/control.ts";
import { native } from "../shared/native.ts";
import { after } from "../shared/timers.ts";
import { log } from "./log.ts";
import { Outlet } from "./outlet.ts";
import type { WorkerProcess } from "./process.ts";
import type { Member } from "./room.ts";
import { bytesWritten, type SocketCopy } from "./sockets.ts";

// Between us and the client's socket, at most 200 KB in the socket pair and 64 KB in one read are in flight.
const keep = 320 * 1024;

/**
 * What a client costs the server: descriptors of our copy of its socket, and of its process, the IPC and
 * the channel to it, which is one socket or, with its stderr, three pipes.
 */
export const filesPerClient = native ? 4 : 6;

/**
 * A connection moves through these, from left to right only; any of them may be skipped:
 *
 *     new ──▶ heard ──▶ named ──▶ silent ──▶ closing ──▶ closed
 *
 * - `new`: its client has said nothing yet.
 * - `heard`: its client has said something, which was not its name.
 * - `named`: its client has said its name, and joins or chats.
 * - `silent`: its client says nothing more, and still gets what the others say.
 * - `closing`: it takes nothing new, and ends when the client has all that waits for it.
 * - `closed`: it has ended, or was killed.
 */
const states = ["new", "heard", "named", "silent", "closing", "closed"] as const;
type State = (typeof states)[number];

/** One client, from accept to its end. */
export class Connection implements Member {
  /** A copy of its socket, which is never read: the process that serves the client has its own. */
  readonly client: SocketCopy;
  /** Resolves when it is over, and its last process is reaped. */
  life: Promise<void> = Promise.resolve();
  /** Resolves when the client says nothing more, or is gone. */
  readonly silent: Promise<void>;
  /** Resolves when it was closed in order and its process has got everything. */
  readonly passed: Promise<void>;
  /** Aborts when it is closed: then nothing need be done for it any more. */
  readonly closed: AbortSignal;
  readonly #closing = new AbortController();
  readonly #isSilent = Promise.withResolvers<void>();
  readonly #isPassed = Promise.withResolvers<void>();
  readonly #maxLag: number;
  readonly #outlet = new Outlet((bytes) => this.#worker?.write(bytes) ?? 0, keep);
  readonly #start: number | undefined; // bytes written to the socket before any process did
  #state: State = "new";
  #name = "";
  #reason = ""; // why it was killed
  #worker: WorkerProcess | undefined; // the last one, which may be dead

  /** @param maxLag bytes that may wait for it; with more, it is disconnected */
  constructor(client: SocketCopy, maxLag: number) {
    this.client = client;
    this.silent = this.#isSilent.promise;
    this.passed = this.#isPassed.promise;
    this.closed = this.#closing.signal;
    this.#maxLag = maxLag;
    this.#start = bytesWritten(client.descriptor);
  }

  /** Moves on to a state; gives false, and does nothing, if it is as far as that already. */
  move(to: State): boolean {
    if (!this.isBefore(to)) return false;
    this.#state = to;
    if (!this.isBefore("silent")) this.#isSilent.resolve();
    if (to === "closed") this.#isPassed.resolve();
    if (to === "closed") this.#closing.abort();
    return true;
  }

  isBefore(state: State): boolean {
    return states.indexOf(this.#state) < states.indexOf(state);
  }

  get isOpen(): boolean {
    return this.isBefore("silent");
  }

  /** The client's IP address. */
  get address(): string {
    return this.client.address;
  }

  /** What the client is called; empty before it has joined, and after it has left. */
  get name(): string {
    return this.#name;
  }

  /** Gives the client its name in the room, or another one; its process says its lines under that. */
  setName(name: string): void {
    this.#name = name;
    this.order({ type: "name", name });
  }

  get pid(): number {
    return this.#worker?.pid ?? 0;
  }

  get relayed(): { up: number; down: number } {
    return this.#worker?.relayed ?? { up: 0, down: 0 };
  }

  get isBehind(): boolean {
    return this.#outlet.lag > this.#maxLag / 2;
  }

  /** Why it was killed; empty if it was not. */
  get reason(): string {
    return this.#reason;
  }

  /** Whether its client may have got the beginning of a line only. */
  get isMidLine(): boolean {
    return this.#outlet.isMidLine;
  }

  /**
   * A process has it from now on. What a dead one has not passed on goes there first; gives false if that
   * is not known, so that some of it may be missing.
   */
  give(worker: WorkerProcess): boolean {
    // How much the client has got: what was ever written to its socket, without what was before us.
    const written = bytesWritten(this.client.descriptor);
    const isKnown = written !== undefined && this.#start !== undefined;
    const isWhole = !this.#worker || (isKnown && this.#outlet.rewind(written - this.#start));
    if (!isWhole) this.#outlet.beginLine();
    worker.onDrain = () => this.#flush();
    this.#worker = worker;
    if (this.#name) this.setName(this.#name); // it may have changed while nobody served it
    if (this.#state === "closed") worker.kill(); // it was killed while nobody served it
    this.#flush();
    return isWhole;
  }

  get descriptor(): number {
    const isIdle = this.#outlet.lag === 0 && this.isBefore("closing");
    return isIdle ? (this.#worker?.descriptor ?? -1) : -1;
  }

  push(block: Uint8Array, written = 0): void {
    if (!this.isBefore("closing")) return;
    if (this.#worker) this.#worker.relayed.down += written;
    this.#outlet.push(block, written);
    const { lag } = this.#outlet;
    if (lag > Math.max(block.length, this.#maxLag)) this.kill(`was ${lag} bytes behind`);
  }

  tell(text: string): void {
    this.push(Buffer.from(`* ${text}\n`));
  }

  /** Tells its client what may be lost: its `own` (`lines`, `a line` or nothing), and lines of `others`. */
  tellLosses(own: string, others: boolean): void {
    if (own) this.tell(`${own} of yours may be lost`);
    if (others) this.tell("lines of others may be missing here");
  }

  /** Answers telnet's DO TIMING-MARK (RFC 860): IAC WILL TIMING-MARK. A line has to follow. */
  mark(): void {
    this.push(Uint8Array.of(255, 251, 6));
  }

  /** Sends its process an order. */
  order(message: Order): void {
    this.#worker?.order(message);
  }

  /** Closes it in order: it gets what waits for it, then the end; it has `grace` ms for both. */
  close(grace: number): void {
    if (!this.move("closing")) return;
    this.#flush();
    after(grace, () => this.kill());
  }

  /** Tells the log and the client why it is not served, and closes it in order. */
  refuse(reason: string): void {
    log(`${this.address} was refused: ${reason}`);
    this.sendAway(reason);
  }

  /** Tells the client why it is disconnected, and closes it in order. */
  sendAway(reason: string): void {
    this.tell(reason);
    this.close(1000);
  }

  /** Ends it at once; `reason` is what it did. */
  kill(reason = ""): void {
    this.move("closed");
    this.#reason ||= reason;
    this.#worker?.kill(reason);
  }

  #flush(): void {
    this.#outlet.flush();
    if (this.#state !== "closing" || this.#outlet.lag > 0) return;
    this.#worker?.end();
    this.#isPassed.resolve();
  }
}
