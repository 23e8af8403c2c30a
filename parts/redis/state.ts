/**
 * How well the link holds, and what the room is told about that.
 *
 * @module
 */
import { timing } from "./timing.ts";

/**
 *     steady ──slow answer──▶ slow            leave or keep: the link is closed; our people leave,
 *      ▲ ▲ │ ◀─quick answers── │              or keep their names for the next server
 *      │ │ └──────lost───▶ lost ◀──lost
 *      │ └───connected──────┘
 *
 * An event without an arrow changes nothing.
 */
type State = "steady" | "slow" | "lost" | "leave" | "keep";

/** The state of a link. Its methods are the events. */
export class LinkState {
  #state: State = "steady";
  #roundTrip = 0; // ms; a long one is forgotten slowly

  /** @param inform tells the room */
  constructor(private readonly inform: (text: string) => void) {}

  /** How the link is being closed, if it is. */
  get ending(): "leave" | "keep" | undefined {
    return this.#state === "leave" || this.#state === "keep" ? this.#state : undefined;
  }

  connected(): void {
    if (this.#state === "lost") this.#become("steady", "link is back");
  }

  /** The connection was lost, and another one could not be had at once. */
  lost(): void {
    this.#roundTrip = 0;
    if (this.#state === "steady" || this.#state === "slow")
      this.#become("lost", "link to other servers lost");
  }

  /** Redis has answered; that took so long, ms. */
  answered(roundTrip: number): void {
    this.#roundTrip = Math.max(roundTrip, 0.7 * this.#roundTrip);
    const late = `lines come about ${Math.round(roundTrip / 1000)} s late`;
    if (this.#state === "steady" && this.#roundTrip > timing.slow)
      this.#become("slow", `link to other servers is slow: ${late}`);
    if (this.#state === "slow" && this.#roundTrip <= timing.quick)
      this.#become("steady", "link is quick again");
  }

  close(how: "leave" | "keep"): void {
    this.#state = how;
  }

  #become(state: State, notice: string): void {
    this.#state = state;
    this.inform(notice);
  }
}
