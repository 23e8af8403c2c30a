/**
 * The servers that are measured: how each is started, and that each is stopped.
 *
 * All speak pipechat's protocol: a client's first line is its name, and of every further line the
 * others get `name: text`. Each is told its port, in `PORT` or where its command has `{port}`.
 */
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { quote, type Target } from "./clients.ts";
import type { Entry } from "./schema.ts";

/** How to get at a server: one that runs, or a command, in which `{port}` is a port of our choice. */
export type Start = { host: string; port: number } | string[];

/** A server to measure. */
export interface Contender extends Entry {
  /** What starts it for so many clients. Throws an error if nothing can on this machine. */
  start(clients: number): Start;
  /** The same with the limits that it has by default, if without it a client says what it likes. */
  limited?: Start;
  isOwn?: true;
}

const here = (...path: string[]) => join(import.meta.dir, ...path);
const server = [process.execPath, here("..", "server.ts"), "--port", "{port}"];
const peer = (file: string) => [process.execPath, here("peers", file)];

/** The first line of what a command prints; empty if there is no such command. */
function output(...cmd: string[]): string {
  if (!Bun.which(cmd[0]!)) return "";
  return Bun.spawnSync(cmd, { stderr: "ignore" }).stdout.toString().split("\n")[0]!;
}

function need(program: string): true {
  if (Bun.which(program)) return true;
  throw new Error(`there is no ${program} on this machine`);
}

export const contenders: Contender[] = [
  {
    ...{ name: "pipechat", mark: "🟥", colour: "#dd2e44" },
    title: "this chat: `server.ts`, a Bun process per connection",
    start: (n) => [...server, "--rate", "0", "--max-clients", `${Math.max(256, n + 50)}`],
    limited: server,
  },
  {
    ...{ name: "floor", mark: "🟫", colour: "#a0603f" },
    title: "the least that a process per connection costs: C, fork, pipes, epoll",
    start: compile,
  },
  {
    ...{ name: "processes", mark: "🟪", colour: "#aa8ed6" },
    title: "the article's design: Ruby, a fork and two threads per connection, pipes",
    start: () => need("ruby") && ["ruby", here("peers", "processes.rb")],
  },
  {
    ...{ name: "node", mark: "🟩", colour: "#78b159" },
    title: "pipechat's shape on Node: `child_process`, a process per connection",
    start: () => need("node") && ["node", here("peers", "node-processes.mjs")],
  },
  {
    ...{ name: "evented", mark: "🟦", colour: "#55acee" },
    title: "one Bun process for all, `Bun.listen`",
    start: () => peer("evented.ts"),
  },
  {
    ...{ name: "threads", mark: "🟧", colour: "#f4900c" },
    title: "one Bun process, a `Worker` thread per connection",
    start: () => peer("threads.ts"),
  },
];

/** Relays without a look at what it relays: what is measured with it is the load generator's limit. */
export const plain = [...peer("evented.ts"), "--plain"];

const marks = ["🟨 #e3b505", "🔴 #8b0000", "🟢 #2f6f4f", "🔵 #1f4fa3", "🟣 #6a3fa0"];

/** The user's server: one that runs, or the text of a command line for a shell. */
export function ownContender(name: string, nth: number, given: string, address?: Start): Contender {
  const [mark = "", colour = ""] = marks[nth % marks.length]!.split(" ");
  // `exec`, so that the process is the server, and not a shell that waits for it.
  const start = address ?? ["sh", "-c", /[;&|]/.test(given) ? given : `exec ${given}`];
  return { name, mark, colour, title: `\`${given}\``, start: () => start, isOwn: true };
}

let floor = "";

/** Compiles the floor, once. Returns its command. */
function compile(): string[] {
  if (floor) return [floor];
  need("cc");
  const folder = mkdtempSync(join(tmpdir(), "pipechat-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "floor");
  const { success } = Bun.spawnSync(["cc", "-O2", "-o", path, here("peers", "floor.c")]);
  if (!success) throw new Error("cc cannot compile it here: it needs Linux");
  return [(floor = path)];
}

/** Versions of what the servers run on. */
export const versions = (): string[] =>
  [`Bun ${Bun.version}`, output("cc", "--version"), output("ruby", "--version")]
    .concat(output("node", "--version").replace("v", "Node "))
    .map((line) => line.replace(/ (\(\d.*|\[.*)/, ""))
    .filter(Boolean);

/** A server that was started, or that ran already. */
export type Server = Target & AsyncDisposable;

const running = new Set<number>(); // process groups: a server and its workers

/** Sends a signal to a process group. Returns false if nobody is left. */
function kill(leader: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(-leader, signal);
  } catch {
    return false;
  }
}

// Whatever ends this process, no server outlives it. A moment before, each may put away its files.
process.on("exit", () => {
  for (const leader of running) kill(leader, "SIGTERM");
  if (running.size > 0) Bun.sleepSync(200);
  for (const leader of running) kill(leader, "SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));

function accepts(hostname: string, port: number): Promise<boolean> {
  const connected = Bun.connect({ hostname, port, socket: { data() {} } });
  return connected.then((socket) => socket.terminate() === undefined).catch(() => false);
}

function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  listener.stop(true);
  return listener.port;
}

/** Starts a server and waits until it listens. Throws an error that says what it did instead. */
export async function startServer(start: Start): Promise<Server> {
  if (!Array.isArray(start)) {
    const { host, port } = start;
    if (!(await accepts(host, port))) throw new Error(`nobody listens at ${host}:${port}`);
    return { host, port, [Symbol.asyncDispose]: async () => {} };
  }
  const [host, port, patience] = ["127.0.0.1", freePort(), 10];
  const path = join(tmpdir(), `pipechat-bench-${port}.log`);
  const log = openSync(path, "w+");
  unlinkSync(path);
  const child = Bun.spawn(
    start.map((word) => word.replaceAll("{port}", `${port}`)),
    // Detached, it is a process group, with its workers.
    { env: { ...process.env, PORT: `${port}` }, stdio: ["ignore", log, log], detached: true },
  );
  running.add(child.pid);
  async function stop(): Promise<void> {
    const signal = (ms: number) => (ms < 1000 ? "SIGTERM" : "SIGKILL");
    for (let ms = 0; ms < 3000 && kill(child.pid, signal(ms)); ms += 10) await Bun.sleep(10);
    if (running.delete(child.pid)) closeSync(log);
  }
  const end = performance.now() + patience * 1000;
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
  while (!hasEnded() && performance.now() < end) {
    const isThere = await accepts(host, port);
    // If it has ended meanwhile, whoever listens there is somebody else.
    if (isThere && !hasEnded()) return { host, port, pid: child.pid, [Symbol.asyncDispose]: stop };
    await Bun.sleep(10);
  }
  const what = hasEnded()
    ? `it ended with ${child.signalCode ?? `exit code ${child.exitCode}`} before it listened`
    : `it did not listen on port ${port} within ${patience} s`;
  const printed = Buffer.alloc(10_000);
  const size = readSync(log, printed, 0, printed.length, Math.max(0, fstatSync(log).size - 10_000));
  await stop();
  throw new Error(`${what}; it said ${quote(printed.toString("utf8", 0, size))}`);
}
