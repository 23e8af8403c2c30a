/**
 * What the server tells the person who runs it, on stdout.
 *
 * @module
 */
import { createWriteStream } from "node:fs";

// A terminal stopped with Ctrl-S blocks every process that writes to it, through console.log and
// Bun.stdout too. This stream writes from another thread.
const stdout = createWriteStream("", { fd: 1 }).on("error", () => {});
const maxWaiting = 65_536; // bytes; while more than that waits, nothing is logged

/** Logs a line, unless the terminal has stopped taking them. */
export function log(line: string): void {
  if (stdout.writableLength < maxWaiting) stdout.write(`${line}\n`);
}

/** Ends the log. Resolves when all of it is written: never, if the terminal stays stopped. */
export function endLog(): Promise<void> {
  return new Promise((resolve) => stdout.end(resolve));
}
