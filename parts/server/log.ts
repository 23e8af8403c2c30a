/**
 * What the server tells the person who runs it, on stdout.
 *
 * @module
 */
import { createWriteStream } from "node:fs";
import { isatty } from "node:tty";

// A terminal stopped with Ctrl-S blocks every process that writes to it, through console.log and
// Bun.stdout too. This stream writes from another thread.
const stdout = createWriteStream("", { fd: 1 }).on("error", () => {});
const maxWaiting = 65_536; // bytes; while more than that waits, nothing is logged

/** Prints a line, unless the terminal has stopped taking them. */
export function say(line: string): void {
  if (stdout.writableLength < maxWaiting) stdout.write(`${line}\n`);
}

/** Logs an event, with the local time. */
export function log(event: string): void {
  say(`${new Date().toLocaleString("sv")} ${event}`); // Swedes write 2026-11-24 13:07:05
}

/** Ends the log. Resolves when all of it is written: never, if the terminal stays stopped. */
export function endLog(): Promise<void> {
  const last = isatty(1) ? "\nbye\n" : ""; // behind the ^C that a terminal shows
  return new Promise((resolve) => stdout.end(last, () => resolve()));
}
