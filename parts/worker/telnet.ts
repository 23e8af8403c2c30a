/**
 * What telnet(1) sends beside what its user types.
 *
 * @module
 */

/** Drops what telnet negotiates before a client says its name: IAC, a verb and an option each (RFC 854). */
export function withoutTelnet(chunk: Uint8Array): Uint8Array {
  let start = 0;
  while (chunk[start] === 0xff && chunk[start + 1]! >= 0xfb) start += 3;
  return chunk.subarray(start);
}
