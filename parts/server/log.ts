/**
 * What the server tells the person who runs it, on stdout.
 *
 * @module
 */
import { write } from "node:fs";
import { isatty } from "node:tty";
import { cleanText } from "../shared/text.ts";

const maxWaiting = 65_536; // characters; while more than that waits, nothing is logged
const retryDelay = 100; // while stdout is full, ms

let waiting = ""; // lines that are not being written yet
let missing = 0; // lines that found too many waiting, or could not be written, since it was last said
let isWriting = false;
let drained = () => {}; // all is written

/** Prints a line, unless the terminal has stopped taking them: then they are counted. */
export function say(line: string): void {
  if (waiting.length > maxWaiting) return void missing++;
  if (missing > 0)
    waiting += `(${missing} ${missing > 1 ? "lines are" : "line is"} missing here)\n`;
  missing = 0;
  waiting += `${cleanText(line)}\n`;
  flush();
}

/** Logs an event, with the local time. */
export function log(event: string): void {
  say(`${new Date().toLocaleString("sv")} ${event}`); // Swedes write 2026-11-24 13:07:05
}

/** Ends the log. Resolves when all of it is written: never, if the terminal stays stopped. */
export function endLog(): Promise<void> {
  if (isatty(1)) waiting += "\nbye\n"; // behind the ^C that a terminal shows
  return new Promise((resolve) => {
    drained = resolve;
    flush();
  });
}

function flush(): void {
  if (isWriting) return;
  if (waiting === "") return drained();
  isWriting = true;
  const bytes = Buffer.from(waiting);
  waiting = "";
  print(bytes);
}

/**
 * Writes in another thread: a terminal stopped with Ctrl-S blocks every process that writes to it, through
 * console.log and Bun.stdout too.
 */
function print(bytes: Buffer): void {
  write(1, bytes, 0, bytes.length, null, (error, written) => {
    if (error?.code === "EAGAIN") return void setTimeout(print, retryDelay, bytes).unref();
    if (!error && written < bytes.length) return print(bytes.subarray(written));
    isWriting = false;
    // A full disk, say, which may have room for the next line.
    if (error) missing += countLines(bytes.toString());
    flush();
  });
}

/** How many lines would be lost with a text: also those that it says are missing. */
function countLines(text: string): number {
  const said = /^\((\d+) lines? (?:is|are) missing here\)\n/.exec(text);
  return text.split("\n").length - 1 + (said ? Number(said[1]) - 1 : 0);
}
