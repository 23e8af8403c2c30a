/**
 * How well the link holds, and what the room is told about that.
 *
 * @module
 */
import { timing } from "./timing.ts";

/**
 *     lost ──connected──▶ new ──lasted──▶ steady ──late──▶ slow
 *      ▲                   │               ▲  │ ◀─quick──  │
 *      │                  lost          lasted│            │
 *      │                   ▼               │  │            │
 *      │                 shaky ────────────┘  │            │
 *      └────────────────── lost ──────────────┴────────────┘
 *
 * An event without an arrow changes nothing, and close() leads from everywhere to closing. Connections
 * of a shaky link are lost as soon as they are made: the room hears of it again when one lasts.
 */
type State = "lost" | "new" | "steady" | "slow" | "shaky" | "closing";

/** The state of a link. Its methods are the events. */
export class LinkState {
  #state: State = "steady"; // the first connection counts as one that has lasted
  #roundTrip = 0; // ms; a long one is forgotten slowly
  #pause = 0; // before the next attempt to connect, ms

  /** @param inform tells the room */
  constructor(private readonly inform: (text: string) => void) {}

  get isClosing(): boolean {
    return this.#state === "closing";
  }

  /** How long to wait before the next attempt to connect, ms: longer and longer, until one lasts. */
  nextPause(): number {
    const pause = this.#pause;
    this.#pause = Math.min(2 * pause || 100, timing.maxPause);
    return pause;
  }

  connected(): void {
    if (this.#state === "lost") this.#become("new", "link is back");
  }

  lost(): void {
    const notice = "link to other servers lost";
    if (this.#state === "new") this.#become("shaky", notice);
    if (this.#state === "steady" || this.#state === "slow") this.#become("lost", notice);
    this.#roundTrip = 0;
  }

  /** A connection has lasted for a beat, and a command took so long, ms. */
  lasted(roundTrip: number): void {
    if (this.#state === "new") this.#become("steady");
    if (this.#state === "shaky") this.#become("steady", "link is back");
    this.#pause = 0;
    this.#roundTrip = Math.max(roundTrip, 0.7 * this.#roundTrip);
    const late = `lines come about ${Math.round(roundTrip / 1000)} s late`;
    if (this.#state === "steady" && this.#roundTrip > timing.slow)
      this.#become("slow", `link to other servers is slow: ${late}`);
    if (this.#state === "slow" && this.#roundTrip <= timing.quick)
      this.#become("steady", "link is quick again");
  }

  close(): void {
    this.#become("closing");
  }

  /** The only place that changes the state. */
  #become(state: State, notice?: string): void {
    this.#state = state;
    if (notice) this.inform(notice);
  }
}
