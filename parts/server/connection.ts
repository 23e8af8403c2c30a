/**
 * A client's connection. A process serves it, and another one if that dies; what belongs to the client
 * stays here.
 *
 * @module
 */
import type { Socket } from "node:net";
import type { Order, Request } from "../shared/control.ts";
import { bytesWritten, libc } from "../shared/native.ts";
import { Outlet } from "./outlet.ts";
import type { WorkerProcess } from "./process.ts";
import type { Member } from "./room.ts";

// Between us and the client's socket there are at most what a socket pair holds, about 200 KB, and one
// read of the worker's, 64 KB.
const keep = 320 * 1024;
/**
 * What a client costs the server: descriptors of our copy of its socket, and of its process, the IPC and
 * the channel to it, which is one socket or two pipes.
 */
export const filesPerClient = libc ? 4 : 5;

const maxDeaths = 3; // of processes that serve it, within
const deathsWithin = 10_000; // ms

/** One client, from accept to its end. */
export class Connection implements Member {
  /** The client's IP address. */
  readonly address: string;
  /** Resolves when the client has left, or its last process has ended: it says no more. */
  readonly silent: Promise<void>;
  /** Marks it as silent. */
  readonly fallSilent: () => void;
  /** What its process has asked last, if anything yet. */
  asked: Request["type"] | undefined;
  readonly #maxLag: number;
  readonly #outlet = new Outlet(keep);
  readonly #socket: Socket; // a copy, which is never read: the process that serves the client has its own
  readonly #start: number | undefined; // bytes written to the socket before any process did
  readonly #deaths: number[] = []; // when processes died that served it, ms
  #process: WorkerProcess | undefined;
  #isClosing = false; // it takes nothing new, and ends when it has all that waits for it
  #reason = ""; // why it was killed

  /** @param maxLag bytes that may wait for it; with more, it is disconnected */
  constructor(socket: Socket, maxLag: number) {
    this.#socket = socket;
    this.address = `${socket.remoteAddress}`;
    this.#maxLag = maxLag;
    this.#start = this.#written();
    ({ promise: this.silent, resolve: this.fallSilent } = Promise.withResolvers<void>());
  }

  /** The process that serves it; 0 before there is one. */
  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Resolves when its process is reaped. */
  get ended(): Promise<unknown> {
    return Promise.resolve(this.#process?.ended);
  }

  get relayed(): { up: number; down: number } {
    return this.#process?.relayed ?? { up: 0, down: 0 };
  }

  get isClosing(): boolean {
    return this.#isClosing;
  }

  get isOpen(): boolean {
    return !this.#isClosing && this.#process?.isAlive === true;
  }

  get isBehind(): boolean {
    return this.#outlet.lag > this.#maxLag / 2;
  }

  /** Why it was killed; empty if it was not. */
  get reason(): string {
    return this.#reason;
  }

  /**
   * A process serves it from now on. What the dead one has not passed on goes there first; gives false
   * if that is not known, so that some of it may be missing.
   */
  serveBy(process: WorkerProcess): boolean {
    const written = this.#written();
    const isKnown = written !== undefined && this.#start !== undefined;
    const isWhole = !this.#process || (isKnown && this.#outlet.rewind(written - this.#start!));
    this.#process = process;
    process.connect(this.#outlet);
    return isWhole;
  }

  /** Its process has died: until another one serves it, everything waits here. */
  abandon(): void {
    this.#deaths.push(performance.now());
    this.#outlet.pour(() => 0);
  }

  /** Whether another process can serve it: the client is there. */
  get canBeServed(): boolean {
    return !this.#socket.destroyed && !this.#isClosing && this.#reason === "";
  }

  /** Why there should be no other process, if it is because too many have died; else empty. */
  get deathToll(): string {
    return this.#recentDeaths < maxDeaths ? "" : `, the third in ${deathsWithin / 1000} s`;
  }

  get #recentDeaths(): number {
    return this.#deaths.filter((time) => time > performance.now() - deathsWithin).length;
  }

  #written(): number | undefined {
    const { fd = -1 } = (this.#socket as { _handle?: { fd?: number } })._handle ?? {};
    return libc && bytesWritten(libc, fd);
  }

  deliver(block: Uint8Array): void {
    if (this.#isClosing) return;
    this.#outlet.push(block);
    const { lag } = this.#outlet;
    if (lag > Math.max(block.length, this.#maxLag)) this.kill(`was ${lag} bytes behind`);
  }

  ask(request: Request): void {
    this.#process?.ask(request);
  }

  /** Sends its process an order. */
  order(message: Order): void {
    this.#process?.order(message);
  }

  /** Closes it in order: it gets what waits for it, then the end; it has `grace` ms for both. */
  close(grace: number): void {
    this.#isClosing = true;
    void this.#outlet.emptied().then(() => this.#process?.end());
    setTimeout(() => this.kill(), grace).unref();
  }

  /** Ends it at once; `reason` is what it did. */
  kill(reason = ""): void {
    this.#reason ||= reason;
    this.#process?.kill(reason);
  }
}
