/**
 * The client's side of TLS, in this process and no other.
 *
 * @module
 */
import { once } from "node:events";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";

/** The first byte of a client that speaks TLS (RFC 8446, 5.1). */
export const handshake = 0x16;

/**
 * Begins TLS 1.2 or later with a client. Gives undefined if that speaks something else, which stays in its
 * socket, or is gone.
 *
 * @param pem the certificate and its key
 */
export async function encrypt(
  socket: Socket,
  pem: { cert: string; key: string },
): Promise<Socket | undefined> {
  await Promise.race([once(socket, "readable"), once(socket, "close")]).catch(() => {}); // or a reset
  const bytes: Buffer | null = socket.read();
  if (bytes) socket.unshift(bytes);
  if (bytes?.[0] !== handshake) return undefined;
  return new TLSSocket(socket, { isServer: true, minVersion: "TLSv1.2", ...pem });
}
