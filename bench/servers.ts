/**
 * The servers that are measured: how each is started, and that each is stopped.
 *
 * All speak pipechat's protocol: a client's first line is its name, and of every further line the
 * others get `name: text`. All take a free port and say so in their first line; servers that are linked say both.
 *
 * @module
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const peer = (file: string) => join(import.meta.dir, "peers", file);
const output = (...cmd: string[]) =>
  Bun.which(cmd[0]!) ? Bun.spawnSync(cmd, { stderr: "ignore" }).stdout.toString().trim() : "";

/** A server to measure. */
export interface Contender {
  /** What it is, for the report. */
  title: string;
  /** The command that starts it, or why there is none on this machine. Throws if it cannot be built. */
  command(clients: number): string[] | string;
}

export const contenders: Record<string, Contender> = {
  pipechat: {
    title: "this chat: `server.ts`, a Bun process per connection",
    command: (clients) => [
      ...[process.execPath, join(import.meta.dir, "..", "server.ts"), "--port", "0"],
      ...["--rate", "0", "--max-clients", String(Math.max(256, clients + 50))],
    ],
  },
  linked: {
    title: "two of this chat's servers that share the room over Redis, half of the clients each",
    command: () =>
      Bun.which("redis-server")
        ? [process.execPath, peer("linked.ts")]
        : "there is no redis-server to link them",
  },
  floor: {
    title: "the least that the model costs: C, a fork per connection, pipes, epoll",
    command: () => floor || (floor = compile()),
  },
  processes: {
    title: "the article's design: Ruby, a fork and two threads per connection, pipes",
    command: () =>
      Bun.which("ruby") ? ["ruby", peer("processes.rb")] : "there is no ruby to run it",
  },
  node: {
    title: "pipechat's shape on Node: `child_process`, a process per connection",
    command: () =>
      Number(/^v(\d+)/.exec(output("node", "--version"))?.[1]) >= 20
        ? ["node", peer("node-processes.mjs")]
        : "there is no node 20 or later to run it",
  },
  evented: {
    title: "one Bun process for all, `Bun.listen`",
    command: () => [process.execPath, peer("evented.ts")],
  },
  threads: {
    title: "one Bun process, a `Worker` thread per connection",
    command: () => [process.execPath, peer("threads.ts")],
  },
};

/** Relays without a look at what it relays: what is measured with it is the load generator's limit. */
export const plain = [process.execPath, peer("evented.ts"), "--plain"];

let floor: string[] | string = "";

function compile(): string[] | string {
  if (!Bun.which("cc")) return "there is no cc to compile it";
  const folder = mkdtempSync(join(tmpdir(), "pipechat-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const cc = Bun.spawnSync(["cc", "-O2", "-Wall", "-o", join(folder, "floor"), peer("floor.c")]);
  return cc.success ? [join(folder, "floor")] : `cc cannot compile it here: it needs Linux`;
}

/** Versions of what the servers run on. */
export function versions(): string[] {
  const all = [`Bun ${Bun.version}`, output("cc", "--version"), output("ruby", "--version")];
  return [...all, output("node", "--version").replace("v", "Node ")]
    .map((text) => text.split("\n")[0]!.replace(/ (\(\d.*|\[.*)/, ""))
    .filter(Boolean);
}

// --- Starting and stopping -----------------------------------------------------------------------

/** A server that runs. */
export interface Server {
  ports: number[];
  pid: number;
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
  const child = Bun.spawn(cmd, { stdio: ["ignore", "pipe", "inherit"], detached: true });
  running.add(child.pid);
  return Object.assign(child, {
    /** Kills it and all that it has started, and waits for their end. */
    async killAll() {
      for (let ms = 0; killGroup(child.pid, "SIGKILL") && ms < 2000; ms += 10) await Bun.sleep(10);
      running.delete(child.pid);
    },
  });
}

/** Starts a server and waits until it listens. */
export async function startServer(cmd: string[]): Promise<Server> {
  const child = spawnGroup(cmd);
  let said = "";
  const listening = Promise.withResolvers<number[]>();
  void (async () => {
    // Reads on to the end: a server must not block on its log.
    for await (const chunk of child.stdout) {
      if (said.length < 200) said += Buffer.from(chunk).toString();
      const [line] = /.*\n/.exec(said) ?? [];
      if (line) listening.resolve(Array.from(line.matchAll(/:(\d+)/g), ([, port]) => Number(port)));
    }
    listening.reject(new Error(`${cmd.join(" ")} did not listen`));
  })();
  const ports = await listening.promise;
  return { ports, pid: child.pid, stop: () => child.killAll() };
}
