/**
 * What the system lets a process do.
 *
 * @module
 */
import { readFileSync } from "node:fs";

/** How many files, sockets included, this process may have open; 256 if nobody says. */
export function maxOpenFiles(): number {
  try {
    const [, limit] = /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))!;
    return Number(limit);
  } catch {
    // There is no /proc. The limit belongs to the process and what it starts, so a shell can tell it.
    const shell = Bun.which("sh");
    return Number(shell && Bun.spawnSync([shell, "-c", "ulimit -n"]).stdout) || 256;
  }
}

/** Whether this process was started with a signal ignored, as nohup(1) does; false if nobody says. */
export function isIgnored(signal: number): boolean {
  try {
    const [, mask] = /^SigIgn:\s+([\da-f]+)/m.exec(readFileSync("/proc/self/status", "utf8"))!;
    return (BigInt(`0x${mask}`) & (1n << BigInt(signal - 1))) !== 0n;
  } catch {
    return false;
  }
}
