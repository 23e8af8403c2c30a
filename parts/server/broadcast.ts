/**
 * Writes one block to many workers.
 *
 * @module
 */
import { native } from "../shared/native.ts";

let descriptors = new Int32Array(64);
let written = new Int32Array(64);

/** Somebody who gets blocks. */
export interface Receiver {
  /** The socket to which a block can be written at once; -1 if it has to wait. */
  readonly descriptor: number;
  /** Sends it whole lines, of which the first bytes may be written already. */
  push(block: Uint8Array, written?: number): void;
}

/**
 * Writes a block to everyone who has a descriptor, by one call of C: a system call for each, and nothing
 * else. Whoever has not taken all of it sends the rest by itself.
 */
export function broadcast(block: Uint8Array, receivers: readonly Receiver[]): void {
  const count = receivers.length;
  if (count > descriptors.length)
    [descriptors, written] = [new Int32Array(2 * count), new Int32Array(2 * count)];
  for (let at = 0; at < count; at++) descriptors[at] = receivers[at]!.descriptor;
  if (count > 0) native?.broadcast(descriptors, count, block, block.length, written);
  receivers.forEach((receiver, at) => receiver.push(block, written[at]));
}
