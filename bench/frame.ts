#!/usr/bin/env bun
/**
 * The worker's pure hot parts, framing and cleaning, in MB/s.
 *
 *     bun bench/frame.ts
 *
 * The yardstick is a pass that only finds each newline with `indexOf`: nothing that cuts a stream into
 * lines can do less.
 *
 * @module
 */
import { bench, do_not_optimize, run, summary } from "mitata";
import { readCommandLine } from "../parts/shared/command-line.ts";
import { cleanText, createFramer } from "../parts/shared/text.ts";

readCommandLine(
  {
    head: "usage: bun bench/frame.ts\n",
    options: {},
    tail: `
How many MB/s a worker cuts into lines and cleans, beside a pass that only finds each newline.
`,
  },
  Bun.argv.slice(2),
  () => {},
);

const maxLine = 4096;
const blockSize = 65_536; // bytes
const newline = 0x0a;

const lines: Record<string, string> = {
  short: "yes, why not",
  ASCII: "What is said in a chat has about the length of this line, or a little more than it.",
  emoji: "Zoë said 👩‍👩‍👧‍👦 and then 🎉🎉🎉, ça va, naïve, 日本語 too, and that is all that there is",
  long: "It is a long line. ".repeat(200),
  hostile:
    "\x1b[2J\x1b]0;title\x07you \u202eare\u202c \x9b31mowned\x00\x08\x7f \x1b[999C and more of it",
};

function indexOfPass(chunk: Uint8Array): number {
  let count = 0;
  for (let at = -1; (at = chunk.indexOf(newline, at + 1)) >= 0;) count++;
  return count;
}

for (const [kind, line] of Object.entries(lines)) {
  // As much as a read of a busy socket gives: 64 KB of lines, the last one not whole.
  const size = Buffer.byteLength(line) + 1;
  const chunk = Buffer.from(`${line}\n`.repeat(blockSize / size + 1)).subarray(0, blockSize);
  const decoded = chunk.toString().split("\n");
  const frame = createFramer(maxLine);
  summary(() => {
    bench(`${kind}: indexOf`, () => do_not_optimize(indexOfPass(chunk))).baseline();
    bench(`${kind}: clean`, () => do_not_optimize(decoded.map(cleanText)));
    bench(`${kind}: frame and clean`, () => do_not_optimize(frame(chunk)));
  });
}

const { benchmarks } = await run({ throw: true });

console.log("\nMB/s, median");
for (const { runs } of benchmarks)
  for (const { name, stats } of runs) {
    const rate = (blockSize / stats!.p50) * 1000;
    console.log(`${name.padEnd(28)}${rate.toFixed().padStart(8)}`);
  }
