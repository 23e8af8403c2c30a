#!/usr/bin/env bun
/**
 * pipechat's server: a chat with one process per connection. `bun server.ts --help` lists the options.
 *
 * It accepts a connection, takes a worker process (`worker.ts`), passes it the socket over IPC, and
 * from then on only relays: whole lines, from each worker's stdout to every other worker's stdin. It
 * never reads a byte that a client sent, so nothing that a client sends can hurt it; and whatever
 * kills a worker, one client is gone and the rest talk on.
 *
 * @module
 */
import { createWriteStream, readFileSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { createSecureContext } from "node:tls";
import { parseArgs } from "node:util";
import { version } from "./package.json";
import { cleanText, isRequest, maxName, type Order, type Request, type Terms } from "./worker.ts";

// --- State ---------------------------------------------------------------------------------------

// Nothing of the server's own: its secrets are not theirs. None of these is documented. Without the
// collector's timer and the allocator's purging, a line costs a worker a quarter less CPU, and idle
// ones cost next to none. With a collection every 4 MiB, a flood goes through memory that is in the
// cache: a fifth faster. Without a JIT compiler, which has little to do here, a worker holds 1.5 MB
// less, and has less that can be attacked.
const workerEnvironment = {
  BUN_GC_TIMER_DISABLE: "1",
  MIMALLOC_PURGE_DELAY: "-1",
  BUN_JSC_largeHeapSize: "4194304",
  BUN_JSC_useJIT: "0",
};

const startTimeout = 30_000; // for a worker to come up; it takes some 20 ms, ms
const refillDelay = 100; // a spare's start must not take the processor from who joins just now, ms

/** A worker process, and what the server knows of its client. Throws if none can be started. */
class Worker {
  readonly process = Bun.spawn({
    cmd: [process.execPath, join(import.meta.dir, "worker.ts")],
    cwd: "/",
    env: workerEnvironment,
    stdio: ["pipe", "pipe", "inherit"],
    ipc: (message) => receive(this, message),
  });
  readonly ready = Promise.withResolvers<boolean>(); // it has come up; false: it died first
  isUp = false;
  readonly silent = Promise.withResolvers<void>(); // it has left, or died: it will say no more
  host = ""; // its client's address; empty for a spare
  name = ""; // its client's; empty before it has joined and after it has left
  relayed = 0; // bytes of its stdout that the others have got
  requests: Request[] = []; // what it asked and is not answered yet, oldest first
  answering = false; // the oldest is being answered
  backlog: Uint8Array[] = []; // blocks that wait because its stdin is full
  lag = 0; // bytes in the backlog, and of the last write that was too much for the pipe
  closing = false; // its stdin takes nothing new, and ends after the backlog
  reason = ""; // why the server killed it
}

const workers = new Set<Worker>();
const members = new Map<string, Worker>(); // those whose client has joined, by its name
const spares = () => [...workers].filter((worker) => !worker.host);
const starting = () => [...workers].filter((worker) => !worker.isUp);
const waiting: string[] = []; // the hosts of those for whom no worker can be started yet
let refused = 0; // connections that are being told why
let stopping = false;
let link: typeof import("./link.ts") | undefined; // to the other servers of the room, with --redis
let terms: Terms; // for the next client

// --- A connection, from accept to the end --------------------------------------------------------

/** 1. A client has connected: takes a worker for it, and passes it the socket. */
async function accept(socket: Socket): Promise<void> {
  socket.on("error", () => {}); // it may be gone at any moment
  const refuse = (reason: string): void => {
    socket.end(terms.tls ? "" : `* ${reason}\n`); // in TLS, we cannot speak to it
    refused++; // closed at once, with bytes unread, it would be reset, and the reason lost
    setTimeout(() => refused-- && socket.destroy(), refused * 8 > descriptors ? 0 : 500);
  };
  const deadline = performance.now() + options["join-timeout"] * 1000;
  const host = `${socket.remoteAddress}`;
  const hosts = [...waiting, ...[...workers].flatMap((worker) => worker.host || [])];
  const perAddress = options["max-per-address"] || Infinity;
  if (hosts.length >= maxClients) return refuse("server is full");
  if (hosts.filter((other) => other === host).length >= perAddress)
    return refuse("too many connections from your address");

  waiting.push(host);
  while (!spares()[0] && starting().length >= processors)
    await Promise.race(starting().map((worker) => worker.ready.promise));
  waiting.splice(waiting.indexOf(host), 1);
  const spare = spares()[0];
  const worker = spare ?? start();
  if (!worker) return refuse("no process can be started for you, try again later");
  worker.host = host;
  setTimeout(refillSpares, refillDelay).unref();
  const late = `no name within ${options["join-timeout"]} s, goodbye`;
  if (!(await worker.ready.promise)) return refuse("your process could not start, try again later");
  const left = Math.max(1000, deadline - performance.now()); // our delay is not the client's
  setTimeout(() => worker.name || dismiss(worker, late), left).unref();
  if (order(worker, { type: "serve", ...terms }, socket)) return;
  expel(worker, "did not get its socket");
  return spare ? accept(socket) : refuse("your process has died, try again");
}

/** 2. Starts a worker, unless the system has no process for us. */
function start(): Worker | undefined {
  try {
    const worker = new Worker();
    setTimeout(() => worker.isUp || expel(worker, "did not start"), startTimeout).unref();
    workers.add(worker);
    void run(worker);
    return worker;
  } catch (error) {
    log(`no worker can be started: ${(error as Error).message}`);
    return undefined;
  }
}

/** Replaces spares that were taken, once nobody waits for a worker more urgently. */
function refillSpares(): void {
  if (stopping || waiting.length > 0) return;
  while (spares().length < options.spares && starting().length < processors) if (!start()) return;
}

/** 3. Relays what a worker says for as long as it lives, then reaps it. Never rejects. */
async function run(worker: Worker): Promise<void> {
  const maxCarry = 4 * maxName + ": ".length + options["max-line"]; // a relayed line without its end
  let carry = Buffer.alloc(0); // a line that has begun
  for await (const chunk of worker.process.stdout) {
    const end = chunk.lastIndexOf(0x0a) + 1;
    if (end > 0) relay(worker, Buffer.concat([carry, chunk.subarray(0, end)]));
    carry = Buffer.concat(end > 0 ? [chunk.subarray(end)] : [carry, chunk]);
    if (carry.length > maxCarry) expel(worker, "sent a line without end");
    await pace(chunk.length);
  }
  const code = await worker.process.exited;
  workers.delete(worker);
  if (!worker.host) setTimeout(refillSpares, 1000).unref(); // not at once: it may never start
  const { signalCode, pid } = worker.process;
  const how =
    worker.reason || (signalCode ? `killed by ${signalCode}` : `exited with code ${code}`);
  if (!worker.closing) leave(worker, ` (worker ${pid} ${how})`);
  worker.ready.resolve(false);
  worker.silent.resolve();
}

/**
 * A flood, never a single line, waits a little for those who are half lost: many of them may only
 * lack a processor, and the floods took it. So it does for the link.
 */
async function pace(bytes: number): Promise<void> {
  const lost = (member: Worker) => member.lag > options["max-lag"] / 2;
  const isEarly = () => link?.behind() || [...members.values()].some(lost);
  for (let ms = 0; ms < 250 && bytes >= 16_384 && isEarly(); ms++) await Bun.sleep(1);
}

/** 4. Relays a block of whole lines, unparsed, to everyone but its sender. */
function relay(sender: Worker, block: Buffer): void {
  if (!sender.name) return expel(sender, "spoke without having joined");
  for (const member of members.values()) if (member !== sender) deliver(member, block);
  link?.append(block);
  if (options.verbose) log(block.toString().trimEnd());
  sender.relayed += block.length;
  void answerRequests(sender);
}

/** Writes to a worker's stdin; or keeps the block until there is room, `--max-lag` bytes at most. */
function deliver(worker: Worker, block: Uint8Array): void {
  if (worker.closing) return;
  if (worker.lag === 0) {
    const taken = worker.process.stdin.write(block);
    if (taken instanceof Promise) void drain(worker, taken, (worker.lag = block.length));
  } else {
    worker.backlog.push(block);
    worker.lag += block.length;
    if (worker.lag > options["max-lag"]) expel(worker, `was ${worker.lag} bytes behind`);
  }
}

/**
 * Feeds a worker that is behind. The kernel holds some 200 KB for it; a write beyond that is a promise
 * that settles when all of it is taken, or rejects with EPIPE when the worker dies. Meanwhile the sink
 * would take any amount, uncounted: so what comes then waits here.
 */
async function drain(worker: Worker, taken: unknown, size: number): Promise<void> {
  try {
    for (await taken; (worker.lag -= size) > 0; await taken) {
      size = worker.lag;
      taken = worker.process.stdin.write(Buffer.concat(worker.backlog.splice(0)));
    }
    if (worker.closing) await worker.process.stdin.end();
  } catch {
    // It is dead, and run() reaps it.
  }
}

/** Delivers what was said, and done, on other servers. Pending while a flood has to wait. */
async function hear(lines: Buffer): Promise<void> {
  for (const member of members.values()) deliver(member, lines);
  if (options.verbose) log(lines.toString().trimEnd());
  await pace(lines.length);
}

/** Tells one client something, in order with what the others say. */
function tell(worker: Worker, text: string): void {
  deliver(worker, Buffer.from(`* ${text}\n`));
}

/** Tells the room what a worker's client has done. */
function announce(worker: Worker, text: string): void {
  for (const member of members.values()) tell(member, text);
  link?.append(Buffer.from(`* ${text}\n`));
  log(`worker ${worker.process.pid}: ${text}`);
}

/** Tells the room how the link to the other servers is. */
function inform(text: string): void {
  for (const member of members.values()) tell(member, text);
  log(text);
}

// --- What the workers ask ------------------------------------------------------------------------

function receive(worker: Worker, message: unknown): void {
  if (!isRequest(message)) return expel(worker, "sent an unknown control message");
  const most = 3; // the one that is being answered, a leave, and a rename of ours
  if (worker.requests.push(message) > most) return expel(worker, "asked for too much at once");
  void answerRequests(worker);
}

/**
 * IPC and stdout are not ordered: a request waits until the lines said before it are relayed. Who was
 * let go or expelled gets no answer: it would stay a member for ever, or leave as if in peace.
 */
async function answerRequests(worker: Worker): Promise<void> {
  if (worker.answering) return;
  worker.answering = true;
  const { requests } = worker;
  for (; !worker.closing && !worker.reason && requests[0]; requests.shift()) {
    if (requests[0].at > worker.relayed) break;
    await answer(worker, requests[0]);
  }
  worker.answering = false;
}

async function answer(worker: Worker, request: Request): Promise<void> {
  if (request.type === "ready") {
    worker.isUp = true;
    worker.ready.resolve(true);
    return void setTimeout(refillSpares, refillDelay).unref();
  }
  if (request.type === "leave") {
    worker.silent.resolve();
    if (stopping) return; // it still gets what the others have said
    leave(worker);
    return dismiss(worker);
  }
  if (request.type === "tell") tell(worker, request.text);
  if (request.type === "name") await nameClient(worker, request.name);
  if (request.type === "who" && worker.name) {
    const lines = [...members].map(([name, { process }]) => `\n* ${name} (worker ${process.pid})`);
    tell(worker, link ? await link.who() : `${members.size} online:${lines.join("")}`);
  }
  order(worker, { type: "done", name: worker.name });
}

/** Lets a client join, or gives it another name. Waits only if other servers have a say in it. */
async function nameClient(worker: Worker, wanted: string): Promise<void> {
  const before = worker.name;
  const { pid } = worker.process;
  let name = wanted; // or, if somebody has it, with the first number that is free: ann, ann2, ann3
  let online = members.size;
  for (let n = 2; name !== before || link?.owns(name) === false; n++) {
    online = link ? await link.claim(name, pid) : members.has(name) ? 0 : members.size + 1;
    if (online > 0) break;
    name = [...wanted].slice(0, maxName - String(n).length).join("") + n;
  }
  if (worker.closing || !workers.has(worker)) return link?.release(name); // it has gone meanwhile
  if (name !== wanted) tell(worker, `${wanted} is taken, you are ${name}`);
  if (name === before) return tell(worker, `you are ${name} already`);
  announce(worker, before ? `${before} is now ${name}` : `${name} joined (${online} online)`);
  members.delete(before);
  members.set((worker.name = name), worker);
  if (before) link?.release(before);
  else tell(worker, `welcome ${name} (${online} online), /help lists the commands`);
}

/** Someone on another server has this name, too, since the link was lost: ours takes the next. */
function rename(name: string): void {
  const worker = members.get(name);
  worker?.requests.push({ type: "name", name, at: 0 });
  if (worker) void answerRequests(worker);
}

/** Sends an order; false if the worker is dead. */
function order(worker: Worker, message: Order, socket?: Socket): boolean {
  // bun-types does not know that Bun, from 1.4.0 on, passes a socket beside the message.
  const process: { send(message: Order, socket?: Socket): void } = worker.process;
  try {
    process.send(message, socket);
    return true;
  } catch {
    return false;
  }
}

// --- Endings -------------------------------------------------------------------------------------

/** A member is none any more, and the room is told. */
function leave(worker: Worker, how = ""): void {
  if (members.delete(worker.name)) announce(worker, `${worker.name} left${how}`);
  link?.release(worker.name);
  worker.name = "";
}

/** Lets a worker go in peace: it gets what waits for it, then the end of its stdin. */
function dismiss(worker: Worker, farewell?: string): void {
  if (farewell) tell(worker, farewell);
  worker.closing = true;
  if (worker.lag === 0) void drain(worker, null, 0);
  // Who left may read its last lines slowly, but not for ever; who is sent away gets a moment.
  setTimeout(() => worker.process.kill("SIGKILL"), farewell ? 1000 : 10_000).unref();
}

/** Kills a worker that broke a rule; run() tells the room. */
function expel(worker: Worker, reason: string): void {
  worker.reason ||= reason;
  worker.process.kill("SIGKILL");
}

/** Ends everything within 2 s: nobody new, then all that is on its way, then goodbye. */
async function shutdown(): Promise<void> {
  if (stopping) for (const { process } of workers) process.kill("SIGKILL");
  if (stopping) process.exit(130); // asked twice
  stopping = true;
  server.close();
  for (const spare of spares()) spare.process.kill("SIGKILL");
  for (const worker of workers) order(worker, { type: "finish" });
  await Promise.race([Promise.all([...workers].map((w) => w.silent.promise)), Bun.sleep(500)]);
  for (const worker of workers) dismiss(worker, "server is shutting down");
  const ends = [...workers].map((worker): Promise<unknown> => worker.process.exited);
  await Promise.race([Promise.all([...ends, link?.close()]), Bun.sleep(1000)]);
  for (const { process } of workers) process.kill("SIGKILL");
  logFile.end(() => process.exit());
  setTimeout(() => process.exit(), 100); // the terminal may be stopped
}

// --- Options: this text is also where their defaults are defined ----------------------------------

const usage = `pipechat ${version}: a chat server with one process per connection

usage: bun server.ts [options]
  --port N              TCP port; 0 takes a free one (2000)
  --host ADDRESS        address to listen on; 0.0.0.0 is open to everyone (127.0.0.1)
  --max-clients N       connections at once, counted from accept (256)
  --max-per-address N   connections at once from one address; 0 is no limit (0)
  --max-line N          bytes in a line; a longer one is not sent (4096)
  --max-lag N           bytes that a client may be behind before it is disconnected (4194304)
  --rate N              lines a second from one client, bursts of twice that; 0 is no limit (100)
  --join-timeout N      seconds that a newcomer has to send a name (30)
  --spares N            workers that wait ready for the next connections (1)
  --redis URL           share the room with other servers through this Redis or Valkey (none)
  --room NAME           the room that they share (lobby)
  --tls-cert FILE       certificate chain, PEM: TLS and nothing else; SIGHUP reads it again (none)
  --tls-key FILE        private key, PEM (none)
  --password-file FILE  what --hash-password printed: asked for after the name (none)
  --hash-password       ask for a password, print its hash, and exit
  --insecure-password   allow a password without TLS on other than this machine
  --verbose             log what is said, too
  --help, --version     print this, or the version

Then, in other terminals: bun client.ts
`;

type Limit =
  | "port"
  | "max-clients"
  | "max-per-address"
  | "max-line"
  | "max-lag"
  | "rate"
  | "join-timeout"
  | "spares";
type Text = "host" | "redis" | "room" | "tls-cert" | "tls-key" | "password-file"; // or "none"
type Flag = "hash-password" | "insecure-password" | "verbose" | "help" | "version";

function parseOptions(args: string[]) {
  const defined = [...usage.matchAll(/--([\w-]+)(?: [A-Z]+ .*\((.+)\))?/g)];
  const options = defined.map(([, name, value]) =>
    value
      ? [name, { type: "string", default: value }]
      : [name, { type: "boolean", default: false }],
  );
  try {
    const parsed = parseArgs({ args, options: Object.fromEntries(options) });
    const values = parsed.values as Record<string, unknown>;
    for (const [, name = "", value] of defined) {
      if (!/^\d+$/.test(value ?? "")) continue;
      const least = /^(port|rate|spares|max-per-address)$/.test(name) ? 0 : 1;
      const most = name === "port" ? 65_535 : 2 ** 30;
      const text = String(values[name]);
      if (!/^\d+$/.test(text) || +text < least || +text > most)
        throw new Error(`--${name} takes a whole number from ${least} to ${most}, not '${text}'`);
      values[name] = Number(text);
    }
    return values as Record<Limit, number> & Record<Text, string> & Record<Flag, boolean>;
  } catch (error) {
    return fail(2, `${(error as Error).message.split(/\.\s/)[0]} (see --help)`);
  }
}

/** Ends the server with one line that says what to do. */
function fail(code: number, reason: string): never {
  process.stderr.write(`server.ts: ${reason}\n`);
  process.exit(code);
}

const options = parseOptions(import.meta.main ? Bun.argv.slice(2) : []);

// More processes that start at once than there are processors would only keep the room from talking.
const processors = availableParallelism();

// A client costs the server a descriptor for each of its worker's stdin, stdout, IPC and process, and
// one for a moment for itself; some 30 are our own.
const descriptors = Number(Bun.spawnSync(["sh", "-c", "ulimit -n"]).stdout) || 256;
const maxClients = Math.min(options["max-clients"], Math.floor((descriptors - 30) / 5));

// --- Log and start -------------------------------------------------------------------------------

// A terminal stopped with Ctrl-S blocks whoever writes to it, console.log and Bun.stdout too. This
// stream writes from another thread; what waits for it is bounded, and the rest is not logged.
const logFile = createWriteStream("", { fd: 1 }).on("error", () => {});

function log(line: string): void {
  if (logFile.writableLength < 65_536) logFile.write(`${line}\n`);
}

const server = createServer({ pauseOnConnect: true, noDelay: true, keepAlive: true }, accept);

server.on("error", (error: NodeJS.ErrnoException) => {
  if (server.listening) return log(`cannot accept: ${error.message}`);
  const { host, port } = options;
  if (error.code !== "EADDRINUSE") fail(1, `cannot listen on ${host}:${port}: ${error.message}`);
  fail(1, `port ${port} is taken: stop what uses it, or choose another with --port`);
});

server.on("listening", () => {
  const { address, family, port } = server.address() as AddressInfo;
  log(`listening on ${family === "IPv6" ? `[${address}]` : address}:${port} (pid ${process.pid})`);
  if (maxClients < options["max-clients"])
    log(`only ${maxClients} clients at once: more need more than ${descriptors} files (ulimit -n)`);
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => void shutdown());
  process.on("SIGHUP", () => void (terms.tls || terms.password ? loadTerms() : shutdown()));
  refillSpares();
});

/** Reads what the options name, for those who connect from now on. Throws what is wrong with it. */
function readTerms(): Terms {
  const { "tls-cert": certFile, "tls-key": keyFile, "password-file": passwordFile } = options;
  const terms: Terms = { maxLine: options["max-line"], rate: options.rate };
  if ((certFile === "none") !== (keyFile === "none"))
    throw new Error("--tls-cert and --tls-key go together");
  if (certFile !== "none") {
    const [cert, key] = [readFileSync(certFile, "utf8"), readFileSync(keyFile, "utf8")];
    try {
      createSecureContext((terms.tls = { cert, key }));
    } catch {
      throw new Error(`${certFile} and ${keyFile} are no certificate and its key in PEM`);
    }
  }
  if (passwordFile !== "none") terms.password = readFileSync(passwordFile, "utf8").trim();
  if (terms.password?.startsWith("$argon2id$") === false)
    throw new Error(`${passwordFile} does not hold what --hash-password prints`);
  return terms;
}

/** Reads the terms; at the start a mistake in them is the end, later they stay as they were. */
function loadTerms(): void {
  try {
    terms = readTerms();
    if (server.listening) log("certificate and password read again");
  } catch (error) {
    const { message } = error as Error;
    if (!server.listening) fail(1, message);
    log(`not read again: ${message}`);
  }
}

/** Asks for a password on stdin, without an echo when that is a terminal, and prints its hash. */
async function hashPassword(): Promise<void> {
  const output = new Writable({ write: (_chunk, _encoding, done) => done() });
  const rl = createInterface({ input: process.stdin, output, terminal: process.stdin.isTTY });
  process.stderr.write("password: "); // now that nothing typed is echoed
  const { value = "" } = await rl[Symbol.asyncIterator]().next();
  process.stderr.write("\n");
  rl.close();
  const password = cleanText(value);
  if (password === "") fail(1, "the password is empty");
  // The least that OWASP recommends: each connection may cost this much, in KiB and passes.
  const cost = { algorithm: "argon2id", memoryCost: 19_456, timeCost: 2 } as const;
  process.stdout.write(`${await Bun.password.hash(password, cost)}\n`);
}

/** Links this server to the others of its room, if there are any. */
async function openLink({ redis, room } = options): Promise<void> {
  if (redis === "none") return;
  // The URL is not shown: it may hold a password.
  if (!/^(redis|valkey)s?(\+\w+)*:\/\//.test(redis))
    fail(2, "--redis takes a URL, such as redis://127.0.0.1:6379 (see --help)");
  if (!/^[\w.-]+$/.test(room))
    fail(2, `--room takes letters, digits, '.', '_' and '-', not '${room}' (see --help)`);
  link = await import("./link.ts");
  const failed = (error: Error) => fail(1, error.message);
  await link.open(redis, room, { hear, inform, rename, log }).catch(failed);
}

if (import.meta.main) {
  if (!Bun.semver.satisfies(Bun.version, ">=1.4.0"))
    fail(1, `this is Bun ${Bun.version}, which cannot pass sockets: 1.4.0 or later is needed`);
  if (options.help) process.stdout.write(usage);
  else if (options.version) process.stdout.write(`${version}\n`);
  else if (options["hash-password"]) await hashPassword();
  else {
    loadTerms();
    const isOpen = !/^(127\.|::1$|localhost$)/.test(options.host) && !terms!.tls;
    if (isOpen && terms!.password && !options["insecure-password"])
      fail(2, "without TLS a password can be read on the way: --tls-cert, or --insecure-password");
    if (isOpen)
      process.stderr.write("server.ts: without --tls-cert, all of this can be read on the way\n");
    await openLink();
    server.listen(options.port, options.host);
  }
}
