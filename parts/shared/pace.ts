/**
 * How fast one client may speak.
 *
 * @module
 */

const tolerance = 2000; // how far a line may be ahead of its schedule, ms: bursts of two seconds' lines

/**
 * Slows a sender to `rate` lines a second with bursts of twice that. This is the generic cell rate
 * algorithm (ITU-T I.371): each line has a place in a schedule, and may be early by the tolerance.
 */
export class Pace {
  readonly #interval: number; // between two lines on schedule, ms; 0 is no limit
  readonly #now: () => number;
  #due = 0; // when the next line is on schedule, ms

  /**
   * @param rate lines a second; 0 is no limit
   * @param now the clock, ms
   */
  constructor(rate: number, now = () => performance.now()) {
    this.#interval = rate > 0 ? 1000 / rate : 0;
    this.#now = now;
  }

  /** How many lines may be said now. */
  get lines(): number {
    if (this.#interval === 0) return Infinity;
    const early = Math.max(0, this.#due - this.#now());
    return early > tolerance ? 0 : Math.floor((tolerance - early) / this.#interval) + 1;
  }

  /** How long to wait until a line may be said, ms; 0 if one may be said now. */
  get wait(): number {
    return Math.max(0, this.#due - this.#now() - tolerance);
  }

  /** Counts lines that are said now. */
  spend(lines: number): void {
    this.#due = Math.max(this.#due, this.#now()) + lines * this.#interval;
  }
}
