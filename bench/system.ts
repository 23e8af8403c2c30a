/**
 * What the system says about processes: who belongs to a server, what it costs, who holds a socket. It
 * needs Linux's /proc.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { cpus } from "node:os";
import { sum } from "./stats.ts";

/** Looks at what may be gone the next moment. */
function attempt<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

const read = (path: string) => attempt(() => readFileSync(`/proc/${path}`, "utf8")) ?? "";
const list = (path: string) => attempt(() => readdirSync(`/proc/${path}`)) ?? [];
const link = (path: string) => attempt(() => readlinkSync(`/proc/${path}`));

/** A field of /proc/PID/stat, by its number in proc(5), from 3 on; undefined if the process is gone. */
function stat(pid: number, field: number): string | undefined {
  const text = read(`${pid}/stat`);
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[field - 3] || undefined;
}

/** A process, and whatever it has started that is not orphaned; nobody without a process. */
function family(pid?: number): number[] {
  const all = list("").filter(Number).map(Number);
  const parents = new Map(all.map((child) => [child, Number(stat(child, 4))]));
  const below = (pid: number): number[] =>
    all.flatMap((child) => (parents.get(child) === pid ? [child, ...below(child)] : []));
  return pid === undefined ? [] : [pid, ...below(pid)];
}

/** CPU time, in ns, of a server and of its workers together; NaN if it is not known. */
function cpuTime(pid?: number): number[] {
  const [server = NaN, ...workers] = family(pid).map((process) => {
    const threads = list(`${process}/task`); // /proc/PID/stat has it to 10 ms only
    return sum(threads.map((id) => parseInt(read(`${process}/task/${id}/schedstat`)) || 0));
  });
  return [server, server >= 0 ? sum(workers) : NaN];
}

/** Does something. Returns the CPU time that a server and its workers spend on it, ns. */
export async function spent(pid: number | undefined, run: () => Promise<unknown>) {
  const before = cpuTime(pid);
  await run();
  const [server, workers] = cpuTime(pid).map((time, nth) => time - before[nth]!);
  return { server: server!, workers: workers! };
}

/** Memory that a server and its workers hold, in bytes; what they share counts once (PSS). */
export function memory(pid?: number): number {
  const rollups = family(pid).map((process) => read(`${process}/smaps_rollup`));
  const kilobytes = rollups.map((text) => Number(/^Pss: +(\d+)/m.exec(text)?.[1] ?? 0));
  return 1024 * (sum(kilobytes) || NaN);
}

/**
 * The process that serves a connection from a client's port `remote` to a server's, looked at from
 * outside: of those that hold the server's end of the socket, the youngest. A server may keep a copy.
 */
export function servingProcess(server: number, port: number, remote: number): number | undefined {
  const hex = (number: number) => `:${number.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = (read("net/tcp") + read("net/tcp6")).split("\n");
  const row = rows
    .map((line) => line.trim().split(/\s+/))
    .find(([, from, to]) => from?.endsWith(hex(port)) && to?.endsWith(hex(remote)));
  const holders = family(server).filter((pid) =>
    list(`${pid}/fd`).some((fd) => link(`${pid}/fd/${fd}`) === `socket:[${row?.[9]}]`),
  );
  const started = (pid: number) => Number(stat(pid, 22));
  return holders.sort((a, b) => started(b) - started(a) || b - a)[0];
}

/** The core on which a process ran last. */
export const coreOf = (pid: number): number => Number(stat(pid, 39));

/** How many cores are busy, looked at for a second. */
export async function busyCores(): Promise<number> {
  const used = () => sum(cpus().map(({ times }) => times.user + times.nice + times.sys));
  const [before, begin] = [used(), performance.now()];
  await Bun.sleep(1000);
  return (used() - before) / (performance.now() - begin);
}
