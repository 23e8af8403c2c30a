/**
 * Real servers and real clients for the tests. Everything that waits, waits for an event; a wait that
 * takes longer than `patience` fails with what it has seen.
 *
 * @module
 */
import { afterAll, afterEach, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { connect as connectTLS } from "node:tls";

export const root = join(import.meta.dir, "..");

/** A folder for a test file, which removes it at its end. To be called while the file is loaded. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "pipechat-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A file with a password's hash, much quicker to check than the one that users get. To be called at load. */
export async function passwordFile(password: string): Promise<string> {
  const file = join(temporaryFolder(), "hash");
  const quick = { algorithm: "argon2id", memoryCost: 8, timeCost: 1 } as const;
  await Bun.write(file, await Bun.password.hash(password, quick));
  return file;
}

/** The path of a certificate, `NAME.pem`, or of its key, `NAME.key`; `ca.pem` has signed them all. */
export function certificate(file: string): string {
  return join(import.meta.dir, "certificates", file);
}

/**
 * How long a test waits for what must happen, ms. Only ever reached by a failing test. The tests' own
 * timeout is longer, so that it is the wait that fails, and says what it saw.
 */
export const patience = 30_000;
setDefaultTimeout(2 * patience);

/** What a wait that was in vain has seen. */
function inVain(what: string, seen?: () => unknown): Error {
  return new Error(`waited in vain for ${what}; saw ${Bun.inspect(seen?.())}`);
}

/** Waits for a promise, but not for ever: then it fails with `what` and what `seen` returns. */
export async function within<T>(promise: Promise<T>, what: string, seen?: () => unknown) {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(inVain(what, seen)), patience);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until `check` holds; for what no event tells: another process's state. */
export async function until(check: () => boolean, what: string, seen?: () => unknown) {
  const end = performance.now() + patience;
  while (!check()) {
    if (performance.now() > end) throw inVain(what, seen);
    await Bun.sleep(5);
  }
}

/** What must not reach anybody's terminal: control characters but tab, and bidirectional overrides. */
export const unsafe = /[\0-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/;

/** Lines that come one after the other; a reader may wait for one. A log's come without their time. */
class Lines {
  readonly all: string[] = [];
  #came = 0; // lines
  #partial = "";
  decoder = new TextDecoder("utf-8", { fatal: true });
  #changed = Promise.withResolvers<void>();
  ended = false;

  push(chunk: Uint8Array): void {
    const lines = (this.#partial + this.#decode(chunk)).split("\n");
    this.#partial = lines.pop()!;
    for (const line of lines) this.all.push(line.replace(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d /, ""));
    this.#came += lines.length;
    this.#change();
  }

  #decode(chunk: Uint8Array): string {
    try {
      return this.decoder.decode(chunk, { stream: true });
    } catch {
      return `\n(invalid UTF-8: ${Buffer.from(chunk).toString("latin1")})\n`; // which no test expects
    }
  }

  end(): void {
    this.ended = true;
    this.#change();
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** Waits until `check` holds; looks again whenever something has come. */
  async until(check: () => boolean, what: string): Promise<void> {
    const wait = async (): Promise<void> => {
      while (!check()) {
        if (this.ended) throw new Error(`no ${what} before the end; saw ${this.#tail()}`);
        await this.#changed.promise;
      }
    };
    return within(wait(), what, () => this.#tail());
  }

  /** Waits for a line that equals or matches, among all that came or will come. */
  line(wanted: string | RegExp): Promise<string> {
    return this.count(wanted, 1);
  }

  /** Waits for `count` lines that equal or match, and returns the last of them. */
  async count(wanted: string | RegExp, count: number): Promise<string> {
    const isWanted = (line: string) =>
      typeof wanted === "string" ? line === wanted : wanted.test(line);
    const found: string[] = [];
    let seen = 0; // looking at all of them again and again is slow
    await this.until(() => {
      const removed = this.#came - this.all.length; // by a test
      found.push(...this.all.slice(Math.max(0, seen - removed)).filter(isWanted));
      seen = this.#came;
      return found.length >= count;
    }, `line ${count} of ${wanted}`);
    return found[count - 1]!;
  }

  #tail(): string {
    return Bun.inspect([...this.all.slice(-20), this.#partial]);
  }
}

/** How to start a server; `before` is a command that starts it, such as `nohup`. */
interface StartOptions {
  script?: string;
  before?: string[];
  env?: Record<string, string>;
  cwd?: string;
  detached?: boolean;
}

/** Starts `server.ts` on a free port; it waits for a quarter of the time that it should. */
export async function startServer(
  args: string[] = [],
  { script = "server.ts", before = [], env = {}, ...options }: StartOptions = {},
): Promise<Server> {
  const child = Bun.spawn({
    cmd: [...before, process.execPath, resolve(root, script), "--port", "0", ...args],
    cwd: root,
    ...options,
    env: { ...process.env, PIPECHAT_HASTE: "4", ...env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  return new Server(child).listens();
}

/**
 * Starts a server for all tests of a file, and ends it after them; after each, waits until only its spare is
 * left. To be called while the file is loaded.
 */
export async function sharedServer(...args: string[]): Promise<Server> {
  const server = await startServer(args);
  afterEach(async () => {
    await server.hasWorkers(1);
    server.log.all.length = 0;
  });
  afterAll(() => server[Symbol.asyncDispose]());
  return server;
}

/** A server. Disposing of it checks that no worker outlives it, and that none had an error that nobody foresaw. */
export class Server implements AsyncDisposable {
  readonly log: Lines;
  readonly errors: Lines;
  port = 0;
  pid = 0;

  /** One that was just started. */
  constructor(readonly process: Bun.Subprocess<"pipe", "pipe", "pipe">) {
    this.log = follow(process.stdout);
    this.errors = follow(process.stderr);
  }

  async listens(): Promise<this> {
    const started = await this.log.line(/^listening on /).catch((error) => {
      throw new Error(`${error.message} ${this.errors.all.join(" ")}`);
    });
    return Object.assign(this, parseListening(started));
  }

  /** The process IDs of its workers, spares included. */
  workers(): number[] {
    return children(this.pid);
  }

  /** Waits until it has so many workers, spares included. */
  async hasWorkers(count: number): Promise<void> {
    const workers = () => this.workers();
    await until(() => workers().length === count, `${count} workers`, workers);
  }

  /** The process ID of the worker that serves `name`. */
  async worker(name: string): Promise<number> {
    const serves = new RegExp(
      `^worker (\\d+) \\(\\S+\\): (${name} joined|worker \\d+ of ${name} .* took over$)`,
    );
    await this.log.line(serves);
    return Number(serves.exec(this.log.all.findLast((line) => serves.test(line))!)![1]);
  }

  /** Ends it with SIGTERM and gives its exit code. */
  async stop(): Promise<number> {
    this.process.kill("SIGTERM");
    return within(this.process.exited, "the server's exit");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { process, errors, log } = this;
    if (process.exitCode === null && process.signalCode === null) {
      const workers = this.workers();
      await this.stop();
      await ended(workers);
    }
    const unforeseen = [...errors.all, ...log.all.filter((line) => /^worker stderr: /.test(line))];
    if (unforeseen.length > 0) throw new Error(`unforeseen: ${unforeseen.join("\n")}`);
  }
}

export function parseListening(text: string): { port: number; pid: number } {
  const [, port, pid] = /listening on .*:(\d+) \(pid (\d+)\)/.exec(text)!;
  return { port: Number(port), pid: Number(pid) };
}

/**
 * A port that nobody uses at the moment; below those that systems give away (from 32768 on), or a connection
 * of another test could get it while its server is away.
 */
export function freePort(): number {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop();
      return port;
    } catch {
      // It is taken.
    }
  }
}

function follow(stream: ReadableStream<Uint8Array>): Lines {
  const lines = new Lines();
  const write = (chunk: Uint8Array) => lines.push(chunk);
  void stream.pipeTo(new WritableStream({ write, close: () => lines.end() }));
  return lines;
}

/** Kills the worker that serves somebody, and waits until another does; gives the pids of both. */
export async function kill(on: Server, name: string, signal: NodeJS.Signals = "SIGKILL") {
  const pid = await on.worker(name);
  process.kill(pid, signal);
  await on.log.line(new RegExp(`worker ${pid} of ${name} .*, \\d+ took over$`));
  return [pid, await on.worker(name)] as const;
}

/** Kills each process that serves a client as soon as it does, until the server disconnects the client. */
export async function disconnect(server: Server, name: string): Promise<void> {
  let pid = await server.worker(name);
  for (;;) {
    process.kill(pid, "SIGKILL");
    const next = new RegExp(`worker ${pid} of ${name} .*, (\\d+) took over$|: ${name} left`);
    const [, heir] = next.exec(await server.log.line(next))!;
    if (heir === undefined) return;
    pid = Number(heir);
  }
}

/** A file of /proc; empty when its process is gone. */
function read(file: string): string {
  try {
    return readFileSync(`/proc/${file}`, "utf8");
  } catch {
    return "";
  }
}

/** What ps(1) prints, where there is no /proc. */
function ps(...args: string[]): string {
  return Bun.spawnSync(["ps", ...args]).stdout.toString();
}

const hasProc = existsSync("/proc/self/status");

/** Memory that a process holds now (its resident set), in bytes; a zombie has none. */
export function memory(pid: number): number {
  const found = hasProc
    ? /^VmRSS:\s+(\d+)/m.exec(read(`${pid}/status`))?.[1]
    : ps("-o", "rss=", "-p", `${pid}`);
  return Number(found ?? 0) * 1024;
}

/** A process's state: R, S, T (stopped), Z (zombie), or "" when it is gone. */
export function state(pid: number): string {
  const status = hasProc ? read(`${pid}/status`) : `State: ${ps("-o", "state=", "-p", `${pid}`)}`;
  return /^State:\s+(\w)/m.exec(status)?.[1] ?? "";
}

const childrenOf = (pid: number) => `${pid}/task/${pid}/children`;
const hasChildren = existsSync(`/proc/${childrenOf(process.pid)}`); // not every Linux has it

export function children(pid: number): number[] {
  if (hasChildren) return read(childrenOf(pid)).split(" ").filter(Boolean).map(Number);
  const rows = ps("-A", "-o", "ppid=,pid=").matchAll(new RegExp(`^ *${pid} +(\\d+)$`, "gm"));
  return Array.from(rows, ([, child]) => Number(child));
}

/** A process's command line and environment. */
export function commandLine(pid: number): string {
  if (hasProc) return read(`${pid}/cmdline`) + read(`${pid}/environ`);
  return ps("eww", "-o", "command=", "-p", `${pid}`);
}

/** Whether a process runs, or is stopped: it is not gone, nor dead and waiting to be reaped. */
export function isAlive(pid: number): boolean {
  return !/^Z?$/.test(state(pid));
}

/** Waits until none of these processes is alive. */
export function ended(pids: number[]): Promise<void> {
  const living = () => pids.filter(isAlive);
  return until(() => living().length === 0, "the processes' end", living);
}

/** How many descriptors a process has open: by /proc where there is one, else by lsof. */
export function descriptors(pid: number): number {
  if (hasProc) return readdirSync(`/proc/${pid}/fd`).length;
  const lsof = Bun.spawnSync(["lsof", "-p", String(pid), "-F", "f"]);
  return lsof.stdout.toString().match(/^f\d/gm)?.length ?? NaN;
}

type Test = (...args: Parameters<typeof test>) => void;

/**
 * `test`, for tests that need a program. Where that is missing, one skipped test stands for them all:
 * `tested` says what they test, `debian` is the name of the package to install.
 */
export function testWith(program: string, tested: string, debian = program): Test {
  if (Bun.which(program)) return test;
  test.skip(`${tested} (install ${debian})`, () => {});
  return () => {};
}

/** The size of numbered lines for floods, of which a test reads every one, bytes. */
export const long = 2000;

/** `count` numbered lines of `size` bytes, the first with the number `from`. */
export function numbered(count: number, from = 0, size = 200): string {
  let text = "";
  for (let n = from; n < from + count; n++) text += `${n} `.padEnd(size - 1, "x") + "\n";
  return text;
}

/** Line `n` of a speaker: its length and its letters tell a whole one from parts of two. */
export function spoken(name: string, n: number): string {
  return `${n} ${(n % 2 ? "é" : name).repeat((n * 7919) % 300)}.`;
}

/** How much of a speaker is missing before `text`, the next that was heard; undefined if it is no line. */
export function missingBefore(name: string, next: number, text: string) {
  const n = Number(text.split(" ")[0]);
  if (n < next || text !== spoken(name, n)) return undefined;
  let bytes = 0;
  for (let lost = next; lost < n; lost++) bytes += Buffer.byteLength(spoken(name, lost)) + 1;
  return { lines: n - next, bytes };
}

/** Random choices that a seed repeats (mulberry32, by Tommy Ettinger, public domain). */
export function randomFrom(seed: number) {
  const random = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const chance = (probability: number) => random() < probability;
  const upTo = (n: number) => Math.floor(random() * (n + 1));
  const pick = <T>(from: readonly T[]): T => from[upTo(from.length - 1)]!;
  return { random, chance, upTo, pick };
}

/** Waits until all `clients` have every numbered line that `sender` said: once, whole, in order. */
export async function allHave(clients: Client[], sender: string, count: number, size = 200) {
  for (const client of clients) {
    const prefix = `${sender}: `;
    const said = () => client.lines.all.filter((line) => line.startsWith(prefix));
    await client.lines.until(() => {
      // Filtering all lines is slow: look only when enough of them may be there.
      return client.received >= count * (size + prefix.length) && said().length >= count;
    }, `${count} lines from ${sender}`);
    const lines = said();
    const expected = numbered(count, 0, size).split("\n");
    const wrong = lines.findIndex((line, n) => line !== prefix + expected[n]);
    if (wrong >= 0 || lines.length !== count)
      throw new Error(`${lines.length} lines from ${sender}, line ${wrong} is ${lines[wrong]}`);
    // An empty line begins where plain streams may have cut one.
    const part = client.lines.all.find((line) => !/^(\* |\S+: |$)/.test(line));
    if (part !== undefined) throw new Error(`a part of a line: ${part}`);
  }
}

/** A client on a plain socket, as `nc` is one. */
export class Client implements Disposable {
  readonly lines = new Lines();
  received = 0; // bytes
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.received += chunk.length;
      this.lines.push(chunk);
    });
    for (const event of ["end", "close"]) socket.on(event, () => this.lines.end());
    socket.on("error", () => {}); // a reset is an end
  }

  /** Connects; with a name, it joins and waits for its welcome. With an authority (PEM), over TLS. */
  static async connect({ port }: { port: number }, name?: string, ca?: string): Promise<Client> {
    const socket = ca
      ? connectTLS({ host: "localhost", port, ca })
      : connect({ host: "127.0.0.1", port });
    await once(socket, ca ? "secureConnect" : "connect");
    const client = new Client(socket);
    if (name === undefined) return client;
    client.send(`${name}\n`);
    await client.line(/^\* welcome /);
    return client;
  }

  /** Joins as soon as there is a place: one is free when its last one's process has been reaped. */
  static async whenFree(server: { port: number }, name: string): Promise<Client> {
    for (;;) {
      const client = await Client.connect(server);
      client.send(`${name}\n`);
      if ((await client.line(/^\* /)) !== "* server is full") return client;
      client[Symbol.dispose]();
    }
  }

  line(wanted: string | RegExp): Promise<string> {
    return this.lines.line(wanted);
  }

  /** Waits for a line to be the last; quicker than `line` where many come before it. */
  ends(wanted: string): Promise<void> {
    return this.lines.until(() => this.lines.all.at(-1) === wanted, `a last line ${wanted}`);
  }

  /** Waits for the server's end of the stream, or a reset. */
  ended(): Promise<void> {
    return this.lines.until(() => this.lines.ended, "the end");
  }

  /** What came after the welcome. */
  get heard(): string[] {
    const { all } = this.lines;
    return all.slice(all.findIndex((line) => line.startsWith("* welcome")) + 1);
  }

  /** What others said: the lines that are no notices. */
  get messages(): string[] {
    return this.lines.all.filter((line) => !line.startsWith("* "));
  }

  /** Sends; what the kernel does not take is kept in order and sent later. */
  send(data: string | Uint8Array): void {
    this.#socket.write(data);
  }

  /** Waits until the kernel has taken all that was sent. */
  async flushed(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#socket.write("", () => resolve());
    await within(promise, "the kernel to take it all");
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Says that nothing more will come (FIN), and reads on. */
  async end(): Promise<void> {
    await this.flushed();
    this.#socket.end();
  }

  /** Resets the connection (RST). */
  reset(): void {
    this.#socket.resetAndDestroy();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

export async function run(cmd: string[], { stdin = "", cwd = root } = {}) {
  const child = Bun.spawn(cmd, { cwd, stdio: [new Blob([stdin]), "pipe", "pipe"] });
  const [code, stdout, stderr] = await within(
    Promise.all([child.exited, child.stdout.text(), child.stderr.text()]),
    `the end of ${cmd.join(" ")}`,
  );
  return { code, stdout, stderr };
}
