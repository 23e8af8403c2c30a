/**
 * The servers that are measured: how each is started, and that each is stopped.
 *
 * All speak pipechat's protocol: a client's first line is its name, and of every further line the
 * others get `name: text`. The built-in ones take a free port and say so in their first line; servers
 * that are linked say both.
 *
 * @module
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../test/helpers.ts";
import { quote } from "./clients.ts";
import { family, isAlive } from "./system.ts";

const peer = (file: string) => join(import.meta.dir, "peers", file);
const output = (...cmd: string[]) =>
  Bun.which(cmd[0]!) ? Bun.spawnSync(cmd, { stderr: "ignore" }).stdout.toString().trim() : "";

/** A server to measure. */
export interface Contender {
  /** What it is, for the report. */
  title: string;
  /** Its colour, in text and in charts. Mermaid draws no legend. */
  mark: string;
  colour: string;
  /**
   * What starts it, or why nothing can on this machine. Throws if it cannot be built.
   *
   * @param limits whether it has those that it has by default; else a client says what it likes
   */
  start(clients: number, limits?: "default"): Start | string;
}

/**
 * How to get at a server: one that runs, or a command. `given` is a command with `{port}` for a port of
 * our choice; one that is `guessed` may print other numbers, too, so it is tried which is its port.
 */
export type Start = { host: string; port: number } | { cmd: string[]; port?: "given" | "guessed" };

const bun = (...args: string[]): Start => ({ cmd: [process.execPath, ...args] });

export const contenders: Record<string, Contender> = {
  pipechat: {
    title: "this chat: `server.ts`, a Bun process per connection",
    mark: "🟥",
    colour: "#dd2e44",
    start: (clients, limits) =>
      bun(
        ...[join(import.meta.dir, "..", "server.ts"), "--port", "0"],
        ...["--max-clients", String(Math.max(256, clients + 50))],
        ...(limits ? [] : ["--rate", "0"]),
      ),
  },
  linked: {
    title: "two of this chat's servers that share the room over Redis, half of the clients each",
    mark: "⬛",
    colour: "#66757f",
    start: (_, limits) =>
      Bun.which("redis-server")
        ? bun(peer("linked.ts"), ...(limits ? [] : ["--rate", "0"]))
        : "there is no redis-server to link them",
  },
  floor: {
    title: "the least that the model costs: C, a fork per connection, pipes, epoll",
    mark: "🟫",
    colour: "#a0603f",
    start: () => floor || (floor = compile()),
  },
  processes: {
    title: "the article's design: Ruby, a fork and two threads per connection, pipes",
    mark: "🟪",
    colour: "#aa8ed6",
    start: () =>
      Bun.which("ruby") ? { cmd: ["ruby", peer("processes.rb")] } : "there is no ruby to run it",
  },
  node: {
    title: "pipechat's shape on Node: `child_process`, a process per connection",
    mark: "🟩",
    colour: "#78b159",
    start: () =>
      Number(/^v(\d+)/.exec(output("node", "--version"))?.[1]) >= 20
        ? { cmd: ["node", peer("node-processes.mjs")] }
        : "there is no node 20 or later to run it",
  },
  evented: {
    title: "one Bun process for all, `Bun.listen`",
    mark: "🟦",
    colour: "#55acee",
    start: () => bun(peer("evented.ts")),
  },
  threads: {
    title: "one Bun process, a `Worker` thread per connection",
    mark: "🟧",
    colour: "#f4900c",
    start: () => bun(peer("threads.ts")),
  },
};

/** Relays without a look at what it relays: what is measured with it is the load generator's limit. */
export const plain = bun(peer("evented.ts"), "--plain");

const marks = [
  ["🟨", "#e3b505"],
  ["🔴", "#8b0000"],
  ["🟢", "#2f6f4f"],
  ["🔵", "#1f4fa3"],
  ["🟣", "#6a3fa0"],
] as const;

/** A server that the user names: `mine=./my-chat --port {port}`, or the `HOST:PORT` of one that runs. */
export function ownContender(nth: number, start: Start, command: string): Contender {
  const [mark, colour] = marks[nth % marks.length]!;
  return { title: `\`${command}\``, mark, colour, start: () => start };
}

let floor: Start | string = "";

function compile(): Start | string {
  if (!Bun.which("cc")) return "there is no cc to compile it";
  const folder = mkdtempSync(join(tmpdir(), "pipechat-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const cc = Bun.spawnSync(["cc", "-O2", "-Wall", "-o", join(folder, "floor"), peer("floor.c")]);
  return cc.success
    ? { cmd: [join(folder, "floor")] }
    : `cc cannot compile it here: it needs Linux`;
}

/** Versions of what the servers run on. */
export function versions(): string[] {
  const all = [`Bun ${Bun.version}`, output("cc", "--version"), output("ruby", "--version")];
  return [...all, output("node", "--version").replace("v", "Node ")]
    .map((text) => text.split("\n")[0]!.replace(/ (\(\d.*|\[.*)/, ""))
    .filter(Boolean);
}

/** The text of a command line, for a shell; `{port}` is where it wants a port of our choice. */
export function shellStart(command: string): Start {
  // So that the process is the server, and not a shell that waits for it.
  const cmd = ["sh", "-c", /[;&|]/.test(command) ? command : `exec ${command}`];
  return { cmd, port: command.includes("{port}") ? "given" : "guessed" };
}

// --- Starting and stopping -----------------------------------------------------------------------

/** A server that runs. */
export interface Server {
  host: string;
  ports: number[];
  /** Of its first process; none of a server that we did not start. */
  pid?: number;
  stop(): Promise<void>;
}

const running = new Set<number>(); // process groups: a server and its workers

function killGroup(leader: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-leader, signal);
  } catch {
    return false; // nobody is left
  }
}

// Whatever ends this process, no server outlives it.
process.on("exit", () => running.forEach((leader) => killGroup(leader, "SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));

/** Runs a command as a process group, which ends with this process at the latest. */
export function spawnGroup(cmd: string[]) {
  const child = Bun.spawn(cmd, { stdio: ["ignore", "pipe", "pipe"], detached: true });
  running.add(child.pid);
  return Object.assign(child, {
    /** Kills it and all that it has started, and waits for their end. */
    async killAll() {
      const members = child.exitCode === null ? family(child.pid) : [];
      const left = () => members.some(isAlive);
      for (let ms = 0; ms < 3000 && (killGroup(child.pid, "SIGKILL") || left()); ms += 10)
        await Bun.sleep(10);
      // Of those with a group of their own, most have seen that it is gone.
      for (const pid of members.filter(isAlive)) attemptKill(pid);
      running.delete(child.pid);
    },
  });
}

function attemptKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}

const patience = 10_000; // ms that a server has to listen

async function accepts(hostname: string, port: number): Promise<boolean> {
  try {
    const socket = await Bun.connect({ hostname, port, socket: { data() {} } });
    socket.terminate();
    return true;
  } catch {
    return false;
  }
}

/** Starts a server and waits until it listens. Throws an error that says what it did instead. */
export async function startServer(start: Start): Promise<Server> {
  if (!("cmd" in start)) {
    const { host, port } = start;
    if (!(await accepts(host, port))) throw new Error(`nobody listens at ${host}:${port}`);
    return { host, ports: [port], stop: async () => {} };
  }
  const port = start.port === "given" ? freePort() : undefined;
  const cmd = start.cmd.map((word) => (port ? word.replaceAll("{port}", String(port)) : word));
  const child = spawnGroup(cmd);
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    // Reads on to the end: a server must not block on its log.
    void (async () => {
      for await (const chunk of stream)
        if (said.length < 10_000) said += Buffer.from(chunk).toString();
    })();
  let hasEnded = false;
  void child.exited.then(() => (hasEnded = true));
  const host = "127.0.0.1";
  for (const end = performance.now() + patience; performance.now() < end; await Bun.sleep(10)) {
    let ports = port ? [port] : saidPorts(said);
    if (start.port) ports = await firstOpen(host, ports);
    if (hasEnded) break; // whoever listens there, it is somebody else
    if (ports.length > 0) return { host, ports, pid: child.pid, stop: () => child.killAll() };
  }
  const what = hasEnded
    ? `it ended with ${child.signalCode ?? `exit code ${child.exitCode}`} before it listened`
    : port
      ? `it did not listen on port ${port} within ${patience / 1000} s`
      : `it did not say within ${patience / 1000} s on which port it listens`;
  await child.killAll();
  throw new Error(`${what}; it said ${quote(said)}`);
}

/** What may be ports in whole lines: `:2000`, `port 2000` or `on 2000`. */
function saidPorts(said: string): number[] {
  const lines = said.slice(0, said.lastIndexOf("\n") + 1);
  const found = lines.matchAll(/(?::|\b(?:port|on|at)\b[ =:]*)(\d{4,5})\b(?![.:-]\d)/gi);
  return Array.from(found, ([, port]) => Number(port)).filter((port) => port < 65_536);
}

async function firstOpen(host: string, ports: number[]): Promise<number[]> {
  for (const port of ports) if (await accepts(host, port)) return [port];
  return [];
}
