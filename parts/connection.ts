/**
 * A client's connection. A process serves it; what belongs to the client stays here.
 *
 * @module
 */
import type { Order, Request } from "./control.ts";
import { Outlet } from "./outlet.ts";
import type { WorkerProcess } from "./process.ts";
import type { Member } from "./room.ts";

/** One client, from accept to its end. */
export class Connection implements Member {
  /** The client's IP address. */
  readonly address: string;
  /** Resolves when the client has left, or its process has ended: it says no more. */
  readonly silent: Promise<void>;
  /** Marks it as silent. */
  readonly fallSilent: () => void;
  readonly #maxLag: number;
  readonly #outlet = new Outlet();
  #process: WorkerProcess | undefined;
  #isClosing = false; // it takes nothing new, and ends when it has all that waits for it

  /** @param maxLag bytes that may wait for it; with more, it is disconnected */
  constructor(address: string, maxLag: number) {
    this.address = address;
    this.#maxLag = maxLag;
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

  get isClosing(): boolean {
    return this.#isClosing;
  }

  get isOpen(): boolean {
    return !this.#isClosing && this.#process?.isAlive === true;
  }

  get isBehind(): boolean {
    return this.#outlet.lag > this.#maxLag / 2;
  }

  /** A process serves it from now on; what waits goes there first. */
  serveBy(process: WorkerProcess): void {
    this.#process = process;
    process.connect(this.#outlet);
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
    this.#process?.kill(reason);
  }
}
