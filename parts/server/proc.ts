/**
 * What the system says of processes. No other file reads /proc.
 *
 * @module
 */
import { readFileSync } from "node:fs";

/** What a process uses. */
export interface Usage {
  /** Memory that it shares with no other, bytes. */
  memory: number;
  /** Processor time since its start, seconds. */
  cpu: number;
}

const [pageSize, ticks] = [4096, 100]; // bytes; a second has as many (Linux's USER_HZ)

/** What a process uses; undefined if it is dead, and where there is no /proc. */
export function usageOf(pid: number): Usage | undefined {
  try {
    const pages = readFileSync(`/proc/${pid}/statm`, "utf8").split(" ").map(Number);
    // Behind the name, which may contain anything: the state, ten more fields, then the two times.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
    const [resident, shared] = [pages[1]!, pages[2]!];
    const cpu = (Number(fields[11]) + Number(fields[12])) / ticks;
    return { memory: (resident - shared) * pageSize, cpu };
  } catch {
    return undefined;
  }
}

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
