/**
 * Connections that cannot be served, and are told why.
 *
 * @module
 */
import type { Connection } from "./connection.ts";
import { log } from "./log.ts";

/** Why a client is not served, in words for the client. */
export class Refusal extends Error {}

let waiting = 0; // connections that were refused and are still open

/**
 * Disconnects a client that is not served, and tells it and the log why. An error that is no Refusal is
 * ours: the log gets its stack.
 *
 * @param maxWaiting connections that may stay open for a moment after they were refused
 * @param silently whether nothing is sent: in TLS, only a worker could speak to the client
 */
export function refuse(
  { client, address, name, isMidLine }: Connection,
  error: unknown,
  { maxWaiting, silently }: { maxWaiting: number; silently: boolean },
): void {
  const who = name ? `${name} (${address})` : address;
  const isOurs = !(error instanceof Refusal);
  const reason = isOurs ? "the server has failed to serve you, try again" : error.message;
  log(`${who} was refused: ${isOurs ? Bun.inspect(error) : reason}`);
  const socket = client.release();
  socket.end(silently ? "" : `${isMidLine ? "\n" : ""}* ${reason}\n`);
  // Closed at once, with bytes unread, the connection would be reset, and the reason lost.
  const delay = ++waiting > maxWaiting ? 0 : 500;
  setTimeout(() => {
    waiting--;
    socket.destroy();
  }, delay);
}
