/**
 * What Bun's sockets do not have: their descriptor, and a limit for a peer that has vanished.
 *
 * @module
 */
import { dlopen, ptr } from "bun:ffi";
import type { Socket } from "node:net";

/** The descriptor of an open socket; -1 if it is closed. */
export function descriptorOf(socket: Socket): number {
  return (socket as { _handle?: { fd?: number } })._handle?.fd ?? -1;
}

const [IPPROTO_TCP, TCP_USER_TIMEOUT] = [6, 18];
const longest = Int32Array.of(120_000); // ms
const calls = {
  setsockopt: { args: ["int", "int", "int", "ptr", "int"], returns: "int" },
} as const;
let libc: { setsockopt: (...args: any[]) => number } | undefined;

/**
 * Ends a connection when the peer's system has not answered for two minutes, though something was sent to it:
 * the peer has vanished. Left to itself, Linux goes on for a quarter of an hour (tcp(7)). Keep-alive looks for
 * a peer to which nothing is sent.
 */
export function limitSilence(socket: Socket): void {
  if (process.platform !== "linux") return;
  try {
    libc ??= dlopen("libc.so.6", calls).symbols;
    libc.setsockopt(descriptorOf(socket), IPPROTO_TCP, TCP_USER_TIMEOUT, ptr(longest), 4);
  } catch {
    // Another C library.
  }
}
