/**
 * What only tests set, in a server's environment. Without it, everything is as documented.
 *
 * @module
 */

/** By how much the times that a test would have to wait for are shortened. */
export const haste = Number(process.env["PIPECHAT_HASTE"]) || 1;
