/**
 * Clients that cannot be served, and are told why.
 *
 * @module
 */
import type { Socket } from "node:net";
import { log } from "./log.ts";

/** Why a client is not served, in words for the client. */
export class Refusal extends Error {}

/** The connections that are being refused. */
export class Refusals {
  readonly #maxWaiting: number;
  #waiting = 0;

  /** @param maxWaiting connections that may stay open for a moment after they were refused */
  constructor(maxWaiting: number) {
    this.#maxWaiting = maxWaiting;
  }

  /** Tells a client, and the log, why it is not served, and disconnects it. Throws what is no Refusal. */
  refuse(socket: Socket, reason: unknown, { silently = false } = {}): void {
    if (!(reason instanceof Refusal)) throw reason;
    log(`${socket.remoteAddress ?? "a client that is gone"} was refused: ${reason.message}`);
    socket.end(silently ? "" : `* ${reason.message}\n`);
    // Closed at once, with bytes unread, the connection would be reset, and the reason lost.
    const delay = ++this.#waiting > this.#maxWaiting ? 0 : 500;
    setTimeout(() => {
      this.#waiting--;
      socket.destroy();
    }, delay);
  }
}
