/**
 * Writes one block to many workers.
 *
 * @module
 */
import { native } from "../shared/native.ts";

let descriptors = new Int32Array(64);
let written = new Int32Array(64);

/**
 * Writes a block to everyone who has a descriptor, by one call of C: a system call for each, and nothing
 * else. Gives how many bytes each has taken; 0 where that cannot be had. The array is valid until the next
 * call.
 */
export function broadcast(
  block: Uint8Array,
  receivers: readonly { readonly descriptor: number }[],
): Int32Array {
  const count = receivers.length;
  if (count > descriptors.length)
    [descriptors, written] = [new Int32Array(2 * count), new Int32Array(2 * count)];
  for (let at = 0; at < count; at++) descriptors[at] = receivers[at]!.descriptor;
  if (count > 0) native?.broadcast(descriptors, count, block, block.length, written);
  return written;
}
