/**
 * A worker process as the server holds it: written to, read, and reaped. It knows neither a client nor the
 * room.
 *
 * @module
 */
import type { Socket } from "node:net";
import { isMessage, type Order, type Request } from "../shared/control.ts";
import { Pace } from "../shared/pace.ts";
import { maxName } from "../shared/text.ts";
import { haste } from "../shared/testing.ts";
import { after } from "../shared/timers.ts";
import { type Channel, openChannel, type Stdio } from "./channel.ts";
import { EndlessLine, type Hear, Inlet } from "./inlet.ts";
import { logStderr, openStderr } from "./stderr.ts";

/** A process with IPC. bun-types does not know that Bun, from 1.4.0 on, passes a socket beside a message. */
export type Child = Bun.Subprocess & {
  send(message: Order, socket?: Socket, options?: { keepOpen: boolean }): void;
};

/** What `Bun.spawn` has to be given beside the command. */
export interface SpawnOptions {
  stdio: [...Stdio, stderr: number | "pipe"];
  /** The worker's arguments. */
  args: string[];
  ipc(message: unknown, child?: unknown, handle?: unknown): void;
  onDisconnect(): void;
}

/**
 * A worker's whole environment: the server's own may hold secrets. Bun documents none of these. Without the
 * collector's timer, and with what is freed kept for a second, a line costs a worker less CPU, and an idle worker
 * costs next to none. With a collection every 4 MiB, a flood stays in memory that the cache holds, and is a
 * fifth faster. In the mini mode, a worker needs 0.6 MB less, and a third less after a million lines. bun:ffi
 * needs the JIT compiler; two of its stages have little to do here, and a worker needs less memory without
 * them. With one thread for its few modules, a worker starts with a sixth less CPU and needs 0.6 MB less.
 */
export const workerEnvironment = {
  BUN_GC_TIMER_DISABLE: "1",
  MIMALLOC_PURGE_DELAY: "1000",
  BUN_FEATURE_FLAG_DISABLE_ASYNC_TRANSPILER: "1",
  BUN_JSC_largeHeapSize: "4194304",
  BUN_JSC_forceMiniVMMode: "1",
  BUN_JSC_useDFGJIT: "0",
  BUN_JSC_useBaselineJIT: "0",
  ...(haste !== 1 && { PIPECHAT_HASTE: `${haste}` }),
};

const startTimeout = 8000 / haste; // for a worker to start, which takes less than 100 ms, ms
const serveTimeout = 1000; // for a worker to take its client's socket, ms
const maxRequests = 3; // the one that is being answered, a leave, and a rename by the server

/**
 * A worker that runs.
 *
 *     starting ──"ready"──▶ spare ──serve()──▶ handed ──"serving"──▶ serving
 *         └───────────────────┴──────────────────┴─────────────────────┴───▶ killed (by us), or dead
 */
export class WorkerProcess {
  /** Resolves to true when it is ready to serve, or to false if it has died before. */
  readonly ready: Promise<boolean>;
  /** How it ended, such as "killed by SIGKILL", or why we killed it. Resolves once it is reaped. */
  readonly ended: Promise<string>;
  /** What it has relayed, in bytes: from its client, and to it. */
  readonly relayed = { up: 0, down: 0 };
  /** Called when more can be written. */
  onDrain = (): void => {};
  readonly #child: Child;
  readonly #inlet: Inlet;
  readonly #pace: Pace; // of its requests
  readonly #isReady = Promise.withResolvers<boolean>();
  readonly #isServing = Promise.withResolvers<boolean>();
  readonly #disconnected = Promise.withResolvers<void>(); // no more messages come
  #state: "starting" | "spare" | "handed" | "serving" | "killed" | "dead" = "starting";
  #reason = ""; // why we killed it
  #holds = { lines: false, torn: false };
  #channel: Channel | undefined; // undefined before it is open

  /**
   * @param spawn starts the process, and throws if the system cannot
   * @param maxLine bytes in the longest message; the relayed line is longer by the name
   * @param rate lines a second that its client may send
   * @param isPlain whether it uses streams and pipes in any case, as it must over TLS
   */
  constructor(
    spawn: (options: SpawnOptions) => Bun.Subprocess,
    { maxLine, rate, isPlain }: { maxLine: number; rate: number; isPlain: boolean },
  ) {
    this.#inlet = new Inlet(4 * maxName + ": ".length + maxLine);
    this.#pace = new Pace(2 * rate); // a name that breaks a rule is two requests
    const start = (stdio: Stdio) =>
      spawn({
        stdio: [...stdio, openStderr()],
        args: stdio[0] === "pipe" ? ["plain"] : [],
        ipc: (message, _child, handle) => this.#receive(message, handle),
        onDisconnect: () => this.#disconnected.resolve(),
      }) as Child;
    const events = {
      data: (chunk: Uint8Array) => this.#hear(chunk),
      drain: () => this.onDrain(),
    };
    const [child, channel] = openChannel(start, events, isPlain);
    this.#child = child;
    if (child.stderr instanceof ReadableStream) void logStderr(child.stderr);
    this.ready = this.#isReady.promise;
    this.ended = this.#end(channel);
    const late = after(startTimeout, () => this.kill("did not start"));
    void this.ready.then(() => late[Symbol.dispose]());
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** What may die with it: whole lines of its client, or the beginning of one. */
  get holds(): { lines: boolean; torn: boolean } {
    return this.#holds;
  }

  /** Whether it has come to its end in order: its client has got everything. */
  get hasFinished(): boolean {
    return this.#child.exitCode === 0;
  }

  /** Whether we have killed it. */
  get wasKilled(): boolean {
    return this.#state === "killed";
  }

  /** The socket to which its lines are written; -1 where there is none. */
  get descriptor(): number {
    return this.#isAlive ? (this.#channel?.descriptor ?? -1) : -1;
  }

  get #isAlive(): boolean {
    return this.#state !== "killed" && this.#state !== "dead";
  }

  /** Waits until its stdout has ended and it is reaped; gives how it ended. Never rejects. */
  async #end(channel: Promise<Channel>): Promise<string> {
    try {
      this.#channel = await channel;
      await this.#channel.ended;
    } catch (error) {
      this.kill(`could not be read: ${(error as Error).message}`);
    }
    // Where a supervisor has left SIGCHLD ignored, the system reaps it, and nobody knows how it ended.
    const code = await this.#child.exited.catch(() => undefined);
    await this.#disconnected.promise;
    if (this.#state !== "killed") this.#state = "dead";
    this.#inlet.end();
    this.#isReady.resolve(false);
    this.#isServing.resolve(false);
    const { signalCode } = this.#child;
    const ending = signalCode ? `killed by ${signalCode}` : `exited with code ${code}`;
    return this.#reason || (code === undefined ? "has ended" : ending);
  }

  #hear(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#state !== "serving") this.kill("spoke without a client");
    if (this.#state === "killed") return undefined;
    this.relayed.up += chunk.length;
    return this.#inlet.push(chunk);
  }

  #receive(message: unknown, handle: unknown): void {
    if (handle) {
      (handle as Socket).destroy?.();
      this.kill("sent a descriptor");
    }
    if (this.#state === "killed") return;
    if (!isMessage(message)) return this.kill("sent an unknown control message");
    if (message.type === "ready" && this.#state === "starting") {
      this.#state = "spare";
      this.#isReady.resolve(true);
    } else if (message.type === "serving" && this.#state === "handed") {
      this.#state = "serving";
      this.#isServing.resolve(true);
    } else if (message.type === "name" && this.#state === "starting") {
      this.order({ type: "done" }); // it rehearses
    } else if (message.type === "holds") this.#holds = message;
    else if (message.type === "ready" || message.type === "serving")
      this.kill("sent a control message out of turn");
    else if (this.#inlet.ask(message) > maxRequests) this.kill("asked for too much at once");
  }

  /** Passes on what it says and asks, in order, until it is reaped. Rejects if `hear` does. */
  async read(hear: Hear): Promise<void> {
    try {
      await this.#inlet.read((said) =>
        said instanceof Uint8Array ? hear(said) : this.#answer(said, hear),
      );
    } catch (error) {
      if (!(error instanceof EndlessLine)) throw error;
      this.kill("sent a line without end");
    }
    await this.ended;
  }

  /** Passes on a request, which may have to wait: a process that lies asks as fast as it is answered. */
  async #answer(request: Request, hear: Hear): Promise<void> {
    if (this.#pace.wait > 0) await Bun.sleep(this.#pace.wait);
    this.#pace.spend(1);
    if (!this.wasKilled) await hear(request); // one that was killed could join again
  }

  /**
   * Passes it a client's socket by `send`. Gives whether it has taken it; if not, it is dead or killed.
   * The socket may not be sent for want of a descriptor: then the process lives, and nobody has it.
   *
   * @param isTorn whether the beginning of a line is lost, whose end is still to come
   */
  async serve(send: (child: Child) => void, isTorn = false): Promise<boolean> {
    this.#holds.torn = isTorn;
    if (this.#state === "spare") this.#state = "handed";
    let timeout = serveTimeout;
    try {
      send(this.#child);
    } catch {
      timeout = 0;
    }
    using _late = after(timeout, () => this.kill("did not take its client"));
    return await this.#isServing.promise;
  }

  /** Sends an order; it may be dead already. */
  order(message: Order): void {
    try {
      this.#child.send(message);
    } catch {
      // It is.
    }
  }

  /** Writes as many bytes to its stdin as it takes at once; gives how many. */
  write(bytes: Uint8Array): number {
    const taken = this.#isAlive ? (this.#channel?.write(bytes) ?? 0) : 0;
    this.relayed.down += taken;
    return taken;
  }

  /** Ends its stdin, behind all that was written: it sends that to its client and exits. */
  end(): void {
    this.#channel?.end();
  }

  /** Kills it; `reason` is what it did. */
  kill(reason = ""): void {
    if (this.#state === "dead") return;
    this.#reason ||= reason;
    this.#state = "killed";
    this.#child.kill("SIGKILL");
  }
}
