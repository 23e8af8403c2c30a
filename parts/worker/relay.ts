/**
 * What carries bytes between a worker's client and the server.
 *
 * @module
 */
import type { Socket } from "node:net";

/** What the client says goes up to the server; what the others say comes down. */
export interface Relay {
  /** Bytes said to the server so far. */
  readonly said: number;
  /** Whether the client's connection was reset: what it said last may be lost. */
  readonly wasReset: boolean;
  /** Resolves when the server says nothing more and the client has everything, or is gone. */
  readonly closed: Promise<void>;
  /**
   * Begins to show the client what the others say.
   *
   * @param maxLine the longest of the client's own lines, bytes
   * @param torn called before the beginning of a line is taken without its end, and when it is whole
   */
  serve(client: Socket, maxLine: number, torn: (isTorn: boolean) => void): void;
  /** What the client says, in chunks, to its end or its reset. A chunk is valid until the next one. */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, void>;
  /** Lets timers run from now on: else they may wait until something else happens. */
  hurry(): void;
  /** Says whole lines to the server. Pending while it does not take them. Never rejects. */
  say(lines: string): Promise<void> | void;
}
