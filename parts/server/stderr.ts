/**
 * What workers write to stderr, such as the error in a `worker.ts` that cannot start: lines of the log.
 *
 * A worker is not trusted. So its stderr is not the operator's terminal: what it writes is cleaned, and a
 * worker that writes without end has to wait.
 *
 * @module
 */
import { Pace } from "../shared/pace.ts";
import { createFramer } from "../shared/text.ts";
import { log } from "./log.ts";
import { socketPair } from "./sockets.ts";

const maxLine = 1000; // bytes; a longer line is not logged
const rate = 50; // lines a second, bursts of twice that
const maxLines = 2 * rate; // of what was read at once

let shared: number | undefined; // the end of a socket pair that all workers write to

/** What a worker gets as stderr: one socket for all or, where there is no socket pair, a pipe of its own. */
export function openStderr(): number | "pipe" {
  if (shared !== undefined) return shared;
  const pair = socketPair();
  if (!pair) return "pipe";
  void logStderr(Bun.file(pair[0]).stream());
  return (shared = pair[1]);
}

/** Logs what comes. While more comes than is logged, nothing is read: whoever writes it waits. */
export async function logStderr(stderr: ReadableStream<Uint8Array>): Promise<void> {
  const frame = createFramer(maxLine);
  const pace = new Pace(rate);
  for await (const chunk of stderr) {
    const lines = frame(chunk).filter((line) => line !== "");
    const logged = lines.slice(0, maxLines);
    for (const line of logged) log(`worker stderr: ${line ?? `(more than ${maxLine} bytes)`}`);
    if (lines.length > maxLines) log(`worker stderr: (${lines.length - maxLines} more lines)`);
    pace.spend(1 + logged.length); // a chunk without a newline counts, too
    await Bun.sleep(pace.wait);
  }
}
