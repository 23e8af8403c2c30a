/**
 * What processes use, for those who ask.
 *
 * @module
 */
import { existsSync, readFileSync } from "node:fs";

/** What a process uses. */
export interface Usage {
  /** Memory that it shares with no other, bytes; where there is no /proc, all that it has in memory. */
  memory: number;
  /** Processor time since its start, seconds. */
  cpu: number;
}

const hasProc = existsSync("/proc/self/statm");
const [pageSize, ticks] = [4096, 100]; // bytes; a second has as many (Linux's USER_HZ)
const lifetime = 1000; // of an answer, ms: however many ask, reading must not slow down the server

/** Gives a function that reads what processes use; those that are dead are missing in the answer. */
export function createUsageReader(): (pids: number[]) => Promise<Map<number, Usage>> {
  let reading: Promise<Map<number, Usage>> | undefined;
  return function read(pids) {
    if (!reading) setTimeout(() => (reading = undefined), lifetime).unref();
    return (reading ??= hasProc ? fromProc(pids) : fromPs(pids));
  };
}

async function fromProc(pids: number[]): Promise<Map<number, Usage>> {
  const all = new Map<number, Usage>();
  for (const pid of pids) {
    try {
      const pages = readFileSync(`/proc/${pid}/statm`, "utf8").split(" ").map(Number);
      // Behind the name, which may contain anything: the state, ten more fields, then the two times.
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
      const [resident, shared] = [pages[1]!, pages[2]!];
      const cpu = (Number(fields[11]) + Number(fields[12])) / ticks;
      all.set(pid, { memory: (resident - shared) * pageSize, cpu });
    } catch {
      // It is dead.
    }
  }
  return all;
}

async function fromPs(pids: number[]): Promise<Map<number, Usage>> {
  const ps = Bun.which("ps");
  if (!ps || pids.length === 0) return new Map();
  const child = Bun.spawn([ps, "-o", "pid=,rss=,time=", "-p", pids.join(",")], {
    stderr: "ignore",
  });
  const rows = (await child.stdout.text()).matchAll(/(\d+) +(\d+) +([\d:.-]+)/g);
  return new Map(
    Array.from(rows, ([, pid, kilobytes, time]) => {
      const cpu = time!.split(/[:-]/).reduce((sum, part) => sum * 60 + Number(part), 0);
      return [Number(pid), { memory: Number(kilobytes) * 1024, cpu }];
    }),
  );
}
