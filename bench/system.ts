/**
 * What the system says about processes: who belongs to a server, what it costs, who holds a socket. All
 * of it but the family needs Linux's /proc; elsewhere it is `undefined`.
 *
 * @module
 */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";

export const hasProc = existsSync("/proc/self/stat");

/** The fields of /proc/PID/stat behind the command's name; field 3 of proc(5) is the first. */
function stat(pid: number): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  return text.slice(text.lastIndexOf(")") + 2).split(" ");
}

/** Reads what may be gone the next moment. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** Every process with its parent. */
function parents(): [pid: number, parent: number][] {
  if (hasProc)
    return readdirSync("/proc").flatMap((entry) => {
      const pid = Number(entry);
      const fields = pid ? attempt(() => stat(pid)) : undefined;
      return fields ? [[pid, Number(fields[1])]] : [];
    });
  const { stdout } = Bun.spawnSync(["ps", "-A", "-o", "pid=,ppid="]);
  const all = stdout.toString().matchAll(/(\d+) +(\d+)/g);
  return Array.from(all, ([, pid, parent]) => [Number(pid), Number(parent)]);
}

/** A process, and whatever it has started that is not orphaned. */
export function family(pid: number): number[] {
  const all = parents();
  const below = (pid: number): number[] =>
    all.flatMap(([child, parent]) => (parent === pid ? [child, ...below(child)] : []));
  return [pid, ...below(pid)];
}

/** Whether a process runs, and is more than a zombie. */
export function isAlive(pid: number): boolean {
  if (hasProc) return !["Z", "X", undefined].includes(attempt(() => stat(pid)[0]));
  return attempt(() => process.kill(pid, 0)) ?? false;
}

/** CPU time, in ns, of a server and of its workers together. To the ns: /proc/PID/stat has 10 ms. */
export function cpuTime(pid: number): { server: number; workers: number } | undefined {
  if (!hasProc) return undefined;
  const [server = 0, ...workers] = family(pid).map((process) => {
    const threads = attempt(() => readdirSync(`/proc/${process}/task`)) ?? [];
    return threads.reduce((sum, thread) => {
      const path = `/proc/${process}/task/${thread}/schedstat`;
      return sum + (attempt(() => parseInt(readFileSync(path, "utf8"))) ?? 0);
    }, 0);
  });
  return { server, workers: workers.reduce((sum, time) => sum + time, 0) };
}

/** Memory that a server and its workers hold, in bytes; what they share counts once (PSS). */
export function memory(pid: number): number | undefined {
  if (!hasProc) return undefined;
  const kilobytes = family(pid).map((process) => {
    const rollup = attempt(() => readFileSync(`/proc/${process}/smaps_rollup`, "utf8")) ?? "";
    return Number(/^Pss: +(\d+)/m.exec(rollup)?.[1] ?? 0);
  });
  return 1024 * kilobytes.reduce((sum, size) => sum + size, 0);
}

/**
 * The process that serves a connection, looked at from outside: of those in the server's family that
 * hold the server's end of the socket, the youngest. A server may keep a copy.
 *
 * @param port the server's
 * @param remote the client's port
 */
export function servingProcess(server: number, port: number, remote: number): number | undefined {
  const sockets = ["tcp", "tcp6"].map(
    (table) => attempt(() => readFileSync(`/proc/net/${table}`, "utf8")) ?? "",
  );
  const hex = (number: number) => number.toString(16).toUpperCase().padStart(4, "0");
  const row = sockets
    .join("")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .find(([, from, to]) => from?.endsWith(`:${hex(port)}`) && to?.endsWith(`:${hex(remote)}`));
  if (!row) return undefined;
  const link = `socket:[${row[9]}]`;
  const holders = family(server).filter((pid) =>
    attempt(() =>
      readdirSync(`/proc/${pid}/fd`).some(
        (fd) => attempt(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) === link,
      ),
    ),
  );
  const started = (pid: number) => Number(attempt(() => stat(pid)[19]) ?? 0);
  return holders.sort((a, b) => started(b) - started(a) || b - a)[0];
}

/** The core on which a process ran last. */
export const coreOf = (pid: number): number | undefined => attempt(() => Number(stat(pid)[36]));
