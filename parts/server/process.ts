/**
 * A worker process as the server holds it: started, given a socket, written to, heard, and reaped. Only
 * this file knows how bytes get to a worker and back.
 *
 * @module
 */
import type { Socket } from "node:net";
import { type Channel, spawnWithChannel } from "./channel.ts";
import {
  type Heritage,
  isMessage,
  type Order,
  type Request,
  type Terms,
} from "../shared/control.ts";
import { Inlet } from "./inlet.ts";
import type { Outlet } from "./outlet.ts";
import { maxName } from "../shared/text.ts";
import { after } from "../shared/timers.ts";

// The server's own environment may hold secrets, so workers do not get it. Bun documents none of
// these. Without the collector's timer and the allocator's purging, a line costs a worker a quarter
// less CPU, and an idle worker costs next to none. With a collection every 4 MiB, a flood stays in
// memory that the cache holds, and is a fifth faster. In the mini mode, a worker needs 0.6 MB less, and a
// third less after a million lines. bun:ffi needs the JIT compiler; two of its stages
// have little to do here, and a worker needs less memory without them.
const environment = {
  BUN_GC_TIMER_DISABLE: "1",
  MIMALLOC_PURGE_DELAY: "-1",
  BUN_JSC_largeHeapSize: "4194304",
  BUN_JSC_forceMiniVMMode: "1",
  BUN_JSC_useDFGJIT: "0",
  BUN_JSC_useBaselineJIT: "0",
};

const startTimeout = 5000; // for a worker to start, which takes about 20 ms, ms
const serveTimeout = 1000; // for a worker to take its client's socket, ms
const maxRequests = 3; // the one that is being answered, a leave, and a rename by the server

/** A worker that runs. The constructor throws if the system cannot start a process. */
export class WorkerProcess {
  /** Resolves to true when it is ready to serve, or to false if it has died before. */
  readonly ready: Promise<boolean>;
  /** How it ended, such as "killed by SIGKILL", or why we killed it. Resolves once it is reaped. */
  readonly ended: Promise<string>;
  readonly #child: Bun.Subprocess;
  readonly #inlet: Inlet;
  readonly #isReady = Promise.withResolvers<boolean>();
  readonly #isServing = Promise.withResolvers<boolean>();
  readonly #disconnected = Promise.withResolvers<void>(); // no more messages come
  /** What it has relayed, in bytes: from its client, and to it. */
  readonly relayed = { up: 0, down: 0 };
  #isTorn = false;
  #isSpare = true; // it has no client yet
  #reason = ""; // why we killed it
  #channel: Channel | undefined; // undefined before it is open
  #outlet: Outlet | undefined; // where what it gets comes from

  /**
   * @param script the worker's code
   * @param maxLine bytes in the longest message; the relayed line is longer by the name
   * @param plain whether it uses streams and pipes, as it must over TLS
   */
  constructor(script: string, { maxLine, plain }: { maxLine: number; plain: boolean }) {
    this.#inlet = new Inlet(4 * maxName + ": ".length + maxLine);
    const options = {
      cmd: [process.execPath, script],
      cwd: "/",
      env: environment,
      ipc: (message: unknown) => this.#receive(message),
      // A session of its own: a signal to the server's group (Ctrl-C, timeout(1)) is for the server,
      // which ends its workers in order.
      detached: true,
      onDisconnect: () => this.#disconnected.resolve(),
    };
    const events = {
      data: (chunk: Uint8Array) => this.#hear(chunk),
      drain: () => this.#outlet?.flush(),
    };
    const { child, channel } = spawnWithChannel(options, events, plain);
    this.#child = child;
    this.ready = this.#isReady.promise;
    this.ended = this.#end(channel);
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

  /** Waits until its stdout has ended and it is reaped; gives how it ended. Never rejects. */
  async #end(channel: Promise<Channel>): Promise<string> {
    this.#channel = await channel;
    await this.#channel.ended;
    const code = await this.#child.exited;
    await this.#disconnected.promise;
    this.#inlet.end();
    this.#isReady.resolve(false);
    this.#isServing.resolve(false);
    const { signalCode } = this.#child;
    return this.#reason || (signalCode ? `killed by ${signalCode}` : `exited with code ${code}`);
  }

  #hear(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#isSpare) this.kill("spoke without a client");
    this.relayed.up += chunk.length;
    return this.#inlet.push(chunk);
  }

  #receive(message: unknown): void {
    if (!isMessage(message)) this.kill("sent an unknown control message");
    else if (message.type === "ready") this.#isReady.resolve(true);
    else if (message.type === "serving") this.#isServing.resolve(true);
    else if (message.type === "torn") this.#isTorn = message.isTorn;
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

  /** Whether it may have died with the beginning of a line in its hands. */
  get isTorn(): boolean {
    return this.#isTorn;
  }

  /** Whether we have killed it. */
  get wasKilled(): boolean {
    return this.#reason !== "";
  }

  /**
   * Passes it its client's socket, of which we keep a copy. Gives false if it is dead, or does not take
   * the socket in time: then it is killed.
   */
  async serve(terms: Terms, socket: Socket, heritage?: Heritage): Promise<boolean> {
    this.#isSpare = false;
    const order: Order = { type: "serve", ...terms, ...(heritage && { heritage }) };
    const isSent = this.order(order, socket);
    // The socket may not be sent for want of a descriptor: then the process lives, and nobody has it.
    const kill = () => this.kill("did not take its client");
    using _late = after(isSent ? serveTimeout : 0, kill);
    return await this.#isServing.promise;
  }

  /** Sends an order, and a copy of a socket with it; false if that cannot be sent, or the worker is dead. */
  order(message: Order, socket?: Socket): boolean {
    // bun-types does not know that Bun, from 1.4.0 on, passes a socket beside the message.
    const child = this.#child as {
      send(message: Order, socket?: Socket, options?: { keepOpen: boolean }): void;
    };
    try {
      child.send(message, socket, { keepOpen: true });
      return true;
    } catch {
      return false;
    }
  }

  /** Sends what comes from an outlet to its stdin, from now on. */
  connect(outlet: Outlet): void {
    this.#outlet = outlet;
    outlet.pour((bytes) => {
      const taken = this.#channel?.write(bytes) ?? 0;
      this.relayed.down += taken;
      return taken;
    });
  }

  /** Ends its stdin, behind all that was written: it sends that to its client and exits. */
  end(): void {
    this.#channel?.end();
  }

  /** Kills it; `reason` is what it did. */
  kill(reason = ""): void {
    this.#reason ||= reason;
    this.#child.kill("SIGKILL");
  }
}
