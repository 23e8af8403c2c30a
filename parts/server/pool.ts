/**
 * Processes that are started ahead, so that a connection does not wait for one to start.
 *
 * @module
 */
import { haste } from "../shared/testing.ts";
import { log } from "./log.ts";
import { Refusal } from "./refusal.ts";

/** A process, as the pool needs it. */
export interface Startable {
  /** Resolves to true when it is ready to serve, or to false if it has died before. */
  readonly ready: Promise<boolean>;
  /** How it ended. Resolves once it has died. */
  readonly ended: Promise<string>;
  kill(): void;
}

/** A connection that wants a process. */
export interface Wish {
  /** Whether it had a process and lost it: then it does not wait behind the others. */
  isUrgent: boolean;
  /** Aborts when it does not want one any more. */
  signal: AbortSignal;
}

const refillDelay = 100 / haste; // the start of a spare must not slow down the client that took the last, ms
const spareDelay = 1000 / haste; // after a spare has died: perhaps none can live, ms
const [minPause, maxPause] = [100 / haste, 2000 / haste]; // after a start that failed, growing, ms
const patience = 10_000 / haste; // how long connections wait while none can be started, ms

/** Spare processes, those that start, and the connections that wait for one. */
export class Pool<P extends Startable> {
  readonly #start: () => P;
  readonly #size: number;
  readonly #maxStarting: number;
  readonly #spares: P[] = []; // ready, oldest first
  readonly #starting = new Set<P>();
  readonly #alive = new Set<P>(); // wherever they are
  readonly #waiting: PromiseWithResolvers<P>[] = []; // connections, longest first
  #trouble = ""; // why the last start has failed; empty if it has not
  #failingSince = 0; // when the first start has failed, if the last one has, ms
  #pause = minPause; // before the next start, if the last one has failed, ms
  #isPausing = false;
  #isClosed = false;

  /**
   * @param start starts a process; throws if the system has none for us
   * @param size how many spares there are
   * @param maxStarting how many may start at the same time: more than there are processors would only
   * slow everything down
   */
  constructor(start: () => P, size: number, maxStarting: number) {
    this.#start = start;
    this.#size = size;
    this.#maxStarting = maxStarting;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * Gives a process that is ready: a spare, or the next that will be. Connections get one in the order in
   * which they came. Rejects with a Refusal if none can be started for a while, or when the signal aborts.
   */
  async take({ isUrgent, signal }: Wish): Promise<P> {
    if (this.#isClosed) throw new Refusal("server is shutting down");
    signal.throwIfAborted();
    const spare = this.#spares.shift();
    this.#refillIn(refillDelay);
    if (spare) return spare;
    const turn = Promise.withResolvers<P>();
    if (isUrgent) this.#waiting.unshift(turn);
    else this.#waiting.push(turn);
    const leave = () => {
      const place = this.#waiting.indexOf(turn);
      if (place >= 0) this.#waiting.splice(place, 1);
      turn.reject(signal.reason);
    };
    signal.addEventListener("abort", leave, { once: true });
    this.#startWanted();
    try {
      return await turn.promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  /** Takes back a process that has no client yet. */
  put(process: P): void {
    void this.#follow(process);
  }

  /** Starts spares until there are enough, unless connections wait for a process more urgently. */
  refill(): void {
    const isEnough = () => this.#spares.length + this.#starting.size >= this.#size;
    while (this.#waiting.length === 0 && !isEnough() && this.#startOne());
  }

  /** Kills every process that nobody has taken, and refuses every connection that waits for one. */
  close(): void {
    this.#isClosed = true;
    this.#refuseAll("server is shutting down");
    for (const process of [...this.#spares, ...this.#starting]) process.kill();
  }

  /** Kills every process that it has started. */
  kill(): void {
    for (const process of this.#alive) process.kill();
  }

  #startWanted(): void {
    while (this.#starting.size < this.#waiting.length && this.#startOne());
  }

  #startOne(): boolean {
    if (this.#isClosed || this.#isPausing || this.#starting.size >= this.#maxStarting) return false;
    try {
      const process = this.#start();
      this.#alive.add(process);
      void process.ended.then(() => this.#alive.delete(process));
      void this.#follow(process);
      return true;
    } catch (error) {
      const reason = "no process can be started for you, try again later";
      this.#fail(`no worker can be started: ${(error as Error).message}`, reason);
      return false;
    }
  }

  /** Follows a process from its start to the connection that takes it, or to its death as a spare. */
  async #follow(process: P): Promise<void> {
    this.#starting.add(process);
    const isReady = await process.ready;
    this.#starting.delete(process);
    if (!isReady) {
      const reason = "your process could not start, try again later";
      return this.#fail(`a worker could not start: ${await process.ended}`, reason);
    }
    if (this.#trouble) log("workers start again");
    this.#trouble = "";
    const turn = this.#waiting.shift();
    if (turn) turn.resolve(process);
    else if (this.#spares.length < this.#size) this.#spares.push(process);
    else process.kill(); // whoever wanted it has gone
    this.#startWanted();
    this.#refillIn(refillDelay);
    if (turn) return;
    await process.ended;
    const place = this.#spares.indexOf(process);
    if (place < 0) return; // a connection has taken it
    this.#spares.splice(place, 1);
    this.#refillIn(spareDelay);
  }

  /** A start has failed: the next one comes after a pause, which grows; `reason` is for the clients. */
  #fail(trouble: string, reason: string): void {
    if (this.#isClosed || this.#isPausing) return; // several may fail at the same time
    if (trouble !== this.#trouble) log(`${trouble}, trying again`);
    if (!this.#trouble) this.#failingSince = performance.now();
    if (performance.now() - this.#failingSince > patience) this.#refuseAll(reason);
    this.#pause = this.#trouble ? Math.min(2 * this.#pause, maxPause) : minPause;
    this.#trouble = trouble;
    this.#isPausing = true;
    setTimeout(() => {
      this.#isPausing = false;
      this.#startWanted();
      this.refill();
    }, this.#pause).unref();
  }

  #refuseAll(reason: string): void {
    for (const turn of this.#waiting.splice(0)) turn.reject(new Refusal(reason));
  }

  #refillIn(ms: number): void {
    setTimeout(() => this.refill(), ms).unref();
  }
}
