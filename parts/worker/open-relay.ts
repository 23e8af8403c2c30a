/**
 * Opens what carries bytes between a worker's client and the server: the fast way, or the plain one.
 *
 * @module
 */
import { Socket } from "node:net";
import type { Relay } from "./relay.ts";

/** Opens stdin and stdout: the fast way if it can be had here. */
export async function openRelay(): Promise<Relay> {
  await rehearse();
  const { libc } = await import("../shared/native.ts");
  if (!libc) return new (await import("./plain-relay.ts")).PlainRelay();
  return (await import("./native-relay.ts")).NativeRelay.open(libc);
}

/** Loads what Bun loads when it makes the first socket, before a client has to wait for it: 7 ms. */
async function rehearse(): Promise<void> {
  const socket = new Socket();
  socket.push("line");
  socket.push(null);
  for await (const _ of socket.iterator({ destroyOnReturn: false }));
  socket.destroy();
}
