/**
 * What only tests set, in the environment of a server and its workers. Without it, everything is as documented.
 *
 * @module
 */

/** By how much the times that a test would have to wait for are shortened. */
export const haste = Number(process.env["PIPECHAT_HASTE"]) || 1;
