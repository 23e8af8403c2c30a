/**
 * A worker process as the server holds it: started, given a socket, written to, heard, and reaped. Only
 * this file knows how bytes get to a worker and back.
 *
 * @module
 */
import type { Socket } from "node:net";
import { isMessage, type Order, type Request } from "./control.ts";
import { Inlet } from "./inlet.ts";
import type { Outlet } from "./outlet.ts";
import { maxName } from "./text.ts";

// The server's own environment may hold secrets, so workers do not get it. Bun documents none of
// these. Without the collector's timer and the allocator's purging, a line costs a worker a quarter
// less CPU, and an idle worker costs next to none. With a collection every 4 MiB, a flood stays in
// memory that the cache holds, and is a fifth faster. Without the JIT compiler a worker needs 1.5 MB
// less, and has less that can be attacked.
const environment = {
  BUN_GC_TIMER_DISABLE: "1",
  MIMALLOC_PURGE_DELAY: "-1",
  BUN_JSC_largeHeapSize: "4194304",
  BUN_JSC_useJIT: "0",
  // Only the tests set this: the worker uses no native sockets.
  ...(process.env["PIPECHAT_PLAIN"] && { PIPECHAT_PLAIN: "1" }),
};

const startTimeout = 30_000; // for a worker to start, which takes about 20 ms, ms
const maxRequests = 3; // the one that is being answered, a leave, and a rename by the server
const maxWrite = 65_536; // bytes given to the pipe's sink at once; it takes any amount

/** A worker that runs. The constructor throws if the system cannot start a process. */
export class WorkerProcess {
  /** Resolves to true when it is ready to serve, or to false if it has died before. */
  readonly ready: Promise<boolean>;
  /** How it ended, such as "killed by SIGKILL", or why we killed it. Resolves once it is reaped. */
  readonly ended: Promise<string>;
  readonly #child;
  readonly #inlet: Inlet;
  readonly #isReady = Promise.withResolvers<boolean>();
  #isSpare = true; // it has no client yet
  #reason = ""; // why we killed it
  #isFull = false; // its stdin has not taken the last write
  #outlet: Outlet | undefined; // where what it gets comes from

  /**
   * @param script the worker's code
   * @param maxLine bytes in the longest message; the relayed line is longer by the name
   */
  constructor(script: string, maxLine: number) {
    this.#inlet = new Inlet(4 * maxName + ": ".length + maxLine);
    this.#child = Bun.spawn({
      cmd: [process.execPath, script],
      cwd: "/",
      env: environment,
      stdio: ["pipe", "pipe", "inherit"],
      ipc: (message) => this.#receive(message),
    });
    this.ready = this.#isReady.promise;
    this.ended = this.#end();
    const late = setTimeout(() => this.kill("did not start"), startTimeout).unref();
    void this.ready.then(() => clearTimeout(late));
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Whether it lives, as far as we know, and is not being killed. */
  get isAlive(): boolean {
    return this.#reason === "" && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Reads its stdout to the end, waits until it is reaped, and gives how it ended. Never rejects. */
  async #end(): Promise<string> {
    for await (const chunk of this.#child.stdout) {
      if (this.#isSpare) this.kill("spoke without a client");
      await this.#inlet.push(chunk);
    }
    const code = await this.#child.exited;
    this.#inlet.end();
    this.#isReady.resolve(false);
    const { signalCode } = this.#child;
    return this.#reason || (signalCode ? `killed by ${signalCode}` : `exited with code ${code}`);
  }

  #receive(message: unknown): void {
    if (!isMessage(message)) this.kill("sent an unknown control message");
    else if (message.type === "ready") this.#isReady.resolve(true);
    else this.ask(message);
  }

  /** Asks something in the worker's name, behind what it has asked itself. */
  ask(request: Request): void {
    if (this.#inlet.ask(request) > maxRequests) this.kill("asked for too much at once");
  }

  /** What it says and asks, in order, until it is reaped. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array | Request, void> {
    try {
      yield* this.#inlet;
    } catch (error) {
      this.kill((error as Error).message);
    }
    await this.ended;
  }

  /** Sends an order, and a socket with it; false if the worker is dead. */
  order(message: Order, socket?: Socket): boolean {
    // bun-types does not know that Bun, from 1.4.0 on, passes a socket beside the message.
    const child: { send(message: Order, socket?: Socket): void } = this.#child;
    try {
      child.send(message, socket);
      this.#isSpare = false;
      return true;
    } catch {
      return false;
    }
  }

  /** Sends what comes from an outlet to its stdin, from now on. */
  connect(outlet: Outlet): void {
    this.#outlet = outlet;
    outlet.pour((bytes) => this.#write(bytes));
  }

  /**
   * The kernel holds about 200 KB for the worker. A write beyond that is a promise that resolves when
   * the pipe has taken all of it, or rejects with EPIPE when the worker dies. Until then, the sink would
   * buffer any amount: so it gets `maxWrite` bytes more than the kernel takes, and no more.
   */
  #write(bytes: Uint8Array): number {
    let taken = 0;
    while (!this.#isFull && taken < bytes.length) {
      const part = bytes.subarray(taken, taken + maxWrite);
      const written = this.#child.stdin.write(part);
      taken += part.length;
      if (written instanceof Promise) {
        this.#isFull = true;
        written.then(
          () => {
            this.#isFull = false;
            this.#outlet?.flush();
          },
          () => {}, // it is dead, and #end() reaps it
        );
      }
    }
    return taken;
  }

  /** Ends its stdin, behind all that was written: it sends that to its client and exits. */
  end(): void {
    void Promise.resolve(this.#child.stdin.end()).catch(() => {}); // EPIPE: it is dead
  }

  /** Kills it; `reason` is what it did. */
  kill(reason = ""): void {
    this.#reason ||= reason;
    this.#child.kill("SIGKILL");
  }
}
