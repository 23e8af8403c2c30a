/**
 * Processes that are started ahead, so that a connection does not wait for one to start.
 *
 * @module
 */
import { log } from "./log.ts";
import { Refusal } from "./refusal.ts";

/** A process, as the pool needs it. */
export interface Startable {
  /** Resolves to true when it is ready to serve, or to false if it has died before. */
  readonly ready: Promise<boolean>;
  /** Resolves once it has died. */
  readonly ended: Promise<unknown>;
  kill(): void;
}

const refillDelay = 100; // the start of a spare must not slow down the client that took the last, ms
const maxFailures = 3; // starts that may fail before a connection is told
const retryDelay = 1000; // after a spare has died: perhaps none can live, ms

/** Spare processes, those that start, and the connections that wait for one. */
export class Pool<P extends Startable> {
  readonly #start: () => P;
  readonly #size: number;
  readonly #maxStarting: number;
  readonly #spares: P[] = []; // ready, oldest first
  readonly #starting = new Set<P>();
  readonly #waiting: PromiseWithResolvers<P>[] = []; // connections, longest first
  #failures = 0; // processes that died before they were ready, since the last that was
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

  /**
   * Gives a process that is ready: a spare, or the next that will be. Connections are served in the
   * order in which they came. Rejects with a Refusal if none can be had.
   */
  take(): Promise<P> {
    return this.#take((turn) => this.#waiting.push(turn));
  }

  /** The same for a connection that had a process and lost it: it does not wait behind the others. */
  takeNext(): Promise<P> {
    return this.#take((turn) => this.#waiting.unshift(turn));
  }

  #take(wait: (turn: PromiseWithResolvers<P>) => void): Promise<P> {
    if (this.#isClosed) return Promise.reject(new Refusal("server is shutting down"));
    const turn = Promise.withResolvers<P>();
    const spare = this.#spares.shift();
    if (spare) turn.resolve(spare);
    else wait(turn);
    this.#startWanted();
    this.#refillIn(refillDelay);
    return turn.promise;
  }

  /** Starts spares until there are enough, unless connections wait for a process more urgently. */
  refill(): void {
    const isEnough = () => this.#spares.length + this.#starting.size >= this.#size;
    while (!this.#isClosed && this.#waiting.length === 0 && !isEnough() && this.#mayStart)
      if (!this.#startOne()) return;
  }

  /** Kills every process that nobody has taken, and refuses every connection that waits for one. */
  close(): void {
    this.#isClosed = true;
    while (this.#waiting.length > 0) this.#refuse("server is shutting down");
    for (const process of [...this.#spares, ...this.#starting]) process.kill();
  }

  get #mayStart(): boolean {
    return this.#starting.size < this.#maxStarting;
  }

  #startWanted(): void {
    while (this.#starting.size < this.#waiting.length && this.#mayStart)
      if (!this.#startOne()) this.#refuse("no process can be started for you, try again later");
  }

  #refuse(reason: string): void {
    this.#waiting.shift()?.reject(new Refusal(reason));
  }

  #startOne(): boolean {
    try {
      void this.#follow(this.#start());
      return true;
    } catch (error) {
      log(`no worker can be started: ${(error as Error).message}`);
      return false;
    }
  }

  /** Follows a process from its start to the connection that takes it, or to its death as a spare. */
  async #follow(process: P): Promise<void> {
    this.#starting.add(process);
    const isReady = await process.ready;
    this.#starting.delete(process);
    this.#failures = isReady ? 0 : this.#failures + 1;
    if (!isReady && !this.#isClosed) log(`a worker could not start: ${await process.ended}`);
    const turn = isReady ? this.#waiting.shift() : undefined;
    if (turn) turn.resolve(process);
    else if (isReady) this.#spares.push(process);
    else if (this.#failures >= maxFailures)
      this.#refuse("your process could not start, try again later");
    this.#startWanted();
    this.#refillIn(isReady ? refillDelay : retryDelay);
    if (turn || !isReady) return;
    await process.ended;
    const place = this.#spares.indexOf(process);
    if (place < 0) return; // a connection has taken it
    this.#spares.splice(place, 1);
    this.#refillIn(retryDelay);
  }

  #refillIn(ms: number): void {
    setTimeout(() => this.refill(), ms).unref();
  }
}
