/**
 * A real Redis for the tests, servers that share a room through it, and faults on the way between them.
 *
 * @module
 */
import { afterAll } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, freePort, isAlive, patience, type Server, startServer } from "./helpers.ts";
import { testWith } from "./helpers.ts";

const testWithRedis = testWith("redis-server", "several servers that share a room");

/**
 * `test`, where there is a Redis. What is on the stack is disposed of when the test is over, or takes too long:
 * longer than a wait, so that it is the wait that fails.
 */
export function test(name: string, body: (stack: AsyncDisposableStack) => Promise<void>): void {
  const run = async () => {
    await using stack = new AsyncDisposableStack();
    const late = Bun.sleep(1.5 * patience).then(() => Promise.reject(new Error("too slow")));
    await Promise.race([body(stack), late]);
  };
  testWithRedis(name, run, 2 * patience);
}

const prefix = join(tmpdir(), "pipechat-redis-");

// A run that was killed has left its folders, which begin with its process ID.
for (const folder of new Bun.Glob(`${prefix}*-*`).scanSync({ onlyFiles: false }))
  if (!isAlive(parseInt(folder.slice(prefix.length))))
    rmSync(folder, { recursive: true, force: true });

/** A Redis of its own for a test. What it has answered is on disk: it survives kill -9. */
export class Redis implements AsyncDisposable {
  readonly folder = mkdtempSync(`${prefix}${process.pid}-`);
  readonly port = freePort();
  readonly #args: string[];
  #process!: Bun.Subprocess<"ignore", "pipe", "ignore">;

  private constructor(args: string[]) {
    const durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    const eager = ["--repl-diskless-sync-delay", "0"]; // a replica need not wait for a second one
    this.#args = ["--port", String(this.port), ...durable, ...eager, ...args];
  }

  static async start(...args: string[]): Promise<Redis> {
    const redis = new Redis(args);
    await redis.start();
    return redis;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Makes a Redis that was killed believe that it was away for an hour: all leases have run out. */
  async age(): Promise<void> {
    const elsewhere = await Redis.start("--dir", this.folder);
    const servers = await elsewhere.send("ZRANGE", "{pipechat:lobby}:servers", "0", "-1");
    for (const server of servers)
      await elsewhere.send("ZINCRBY", "{pipechat:lobby}:servers", "-3600", server);
    await elsewhere[Symbol.asyncDispose]();
  }

  async start(): Promise<void> {
    this.#process = Bun.spawn(["redis-server", "--bind", "127.0.0.1", ...this.#args], {
      cwd: this.folder,
      stdio: ["ignore", "pipe", "ignore"],
    });
    let log = "";
    for await (const chunk of this.#process.stdout) {
      log += Buffer.from(chunk).toString();
      if (log.includes("Ready to accept connections")) return;
    }
    throw new Error(`redis-server does not start: ${log}`);
  }

  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.#process.exited;
  }

  /** What it writes as the last thing before its end, it writes half: its last step with an entry again. */
  async tear(): Promise<void> {
    const [file] = new Bun.Glob("appendonlydir/*.incr.aof").scanSync(this.folder);
    const log = await Bun.file(join(this.folder, file!)).text();
    const step = log.slice(
      log.lastIndexOf("MULTI", log.lastIndexOf("block")) - "*1\r\n$5\r\n".length,
    );
    await appendFile(join(this.folder, file!), step.slice(0, step.indexOf("block")));
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** Runs a command. */
  async send(command: string, ...args: string[]): Promise<any> {
    const client = new Bun.RedisClient(this.url, { autoReconnect: false });
    return client.send(command, args).finally(() => client.close());
  }

  /** The server and the number of each block in the stream. */
  async appended(): Promise<string[]> {
    const entries: [string, string[]][] = await this.send("XRANGE", "pipechat:lobby", "-", "+");
    return entries.map(([, fields]) => fields.slice(0, 4).join(" "));
  }

  /** Runs a command until its answer, as text, passes a check. */
  async until(check: (answer: string) => boolean, ...command: [string, ...string[]]) {
    while (!check(String(await this.send(...command)))) await Bun.sleep(2);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true });
  }
}

/** Stands between servers and their Redis, and makes the way to it long, or to another one. */
export class Proxy implements AsyncDisposable {
  delay = 0; // ms, each way
  onSent = (_data: string) => {}; // called with what comes from a server
  #to: Redis;
  readonly #server = createServer((socket) => this.#carry(socket));

  private constructor(to: Redis) {
    this.#to = to;
  }

  static async start(to: Redis): Promise<Proxy> {
    const proxy = new Proxy(to);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `redis://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Leads new connections to another Redis. */
  turn(to: Redis): void {
    this.#to = to;
  }

  #carry(socket: Socket): void {
    socket.on("data", (chunk) => this.onSent(chunk.toString()));
    const ends = [socket, connect(this.#to.port, "127.0.0.1")];
    for (const [from, to] of [ends, ends.toReversed()] as [Socket, Socket][]) {
      let last = Promise.resolve();
      from.on("error", () => {});
      from.on("data", (chunk) => {
        const passed = Bun.sleep(this.delay);
        last = last.then(() => passed).then(() => void to.write(chunk));
      });
      from.on("close", () => last.then(() => to.destroy()));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

type Url = { url: string };

/** For tests that wait for leases, pauses or timeouts of a link: see parts/shared/testing.ts. */
export const hasty = { PIPECHAT_HASTE: "4" };

/** Starts a server that is linked to the others of a Redis. */
export function startLinked(redis: Url, env = {}, ...args: string[]): Promise<Server> {
  const options = { env: { PIPECHAT_HASTE: "", ...env } };
  return startServer(["--redis", redis.url, "--rate", "0", "--spares", "0", ...args], options);
}

async function startPair(stack: AsyncDisposableStack, redis: Url, other: Url, env = {}) {
  const servers = await Promise.all([startLinked(redis, env), startLinked(other, env)]);
  const [first, second] = servers.map((server) => stack.use(server)) as [Server, Server];
  return { first, second };
}

/** Lets `ann` join one server and `bob` another. */
export async function enterPair(stack: AsyncDisposableStack, first: Server, second: Server) {
  const ann = stack.use(await Client.connect(first, "ann"));
  const bob = stack.use(await Client.connect(second, "bob"));
  await ann.line("* bob joined (2 online)");
  return { first, second, ann, bob };
}

/** Two servers that share a room, with `ann` on the first and `bob` on the second. */
export async function startTwo(stack: AsyncDisposableStack, redis: Url, other: Url, env = {}) {
  const { first, second } = await startPair(stack, redis, other, env);
  return enterPair(stack, first, second);
}

/** Opens rooms for tests, one after the other, on two servers that each leaves empty. To be called at load. */
export function roomSharer() {
  const ofFile = new AsyncDisposableStack();
  afterAll(() => ofFile.disposeAsync());
  let started: Promise<{ redis: Redis; first: Server; second: Server }> | undefined;
  const start = async () => {
    const redis = ofFile.use(await Redis.start());
    return { redis, ...(await startPair(ofFile, redis, redis)) };
  };
  return async (stack: AsyncDisposableStack) => {
    const { redis, first, second } = await (started ??= start());
    stack.defer(async () => {
      for (const server of [first, second]) {
        await server.hasWorkers(0);
        server.log.all.length = 0;
      }
      await redis.until((names) => names === "0", "HLEN", "{pipechat:lobby}:names");
    });
    return { redis, ...(await enterPair(stack, first, second)) };
  };
}

/** The same, with a Redis of their own. */
export async function openRoom(stack: AsyncDisposableStack, env = {}, ...redisArgs: string[]) {
  const redis = stack.use(await Redis.start(...redisArgs));
  return { redis, ...(await startTwo(stack, redis, redis, env)) };
}

/** Ends a server as a power failure does. */
export async function crash(server: Server): Promise<void> {
  server.process.kill("SIGKILL");
  await server.process.exited;
}

/** Waits until all `clients` have a line, for the `count`th time. */
export async function allSee(clients: Client[], wanted: string | RegExp, count = 1): Promise<void> {
  for (const { lines } of clients) await lines.count(wanted, count);
}

/** What came after the welcome, but for joins: one on another server may be told after it, too. */
export function heardBy({ heard }: Client): string[] {
  return heard.filter((line) => !/^\* \w+ joined \(\d+ online\)$/.test(line));
}

/** All notices that they have got, but for joins. */
export function noticesTo(clients: Client[]): string[] {
  return clients.flatMap(heardBy).filter((line) => line.startsWith("* "));
}

export const lost = "* link to other servers lost";
export const back = "* link is back";
export const missing = "* some lines from other servers may be missing here";
