/**
 * A real Redis for the tests, servers that share a room through it, and faults on the way between them.
 *
 * @module
 */
import { afterAll } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, freePort, patience, type Server, startServer } from "./helpers.ts";
import { testWith, within } from "./helpers.ts";

const testWithRedis = testWith("redis-server", "several servers that share a room");

/** `test`, where there is a Redis. What is on the stack is disposed of when the test is over. */
export function test(name: string, body: (stack: AsyncDisposableStack) => Promise<void>): void {
  const run = async () => {
    await using stack = new AsyncDisposableStack();
    await body(stack);
  };
  testWithRedis(name, run, 2 * patience);
}

/** A Redis of its own for a test. What it has answered is written: it survives kill -9. */
export class Redis implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "pipechat-redis-"));
  readonly port = freePort();
  readonly #args: string[];
  #process!: Bun.Subprocess<"ignore", "pipe", "ignore">;

  private constructor(args: string[]) {
    const durable = ["--appendonly", "yes", "--appendfsync", "no", "--save", ""];
    const eager = ["--repl-diskless-sync-delay", "0"]; // a replica need not wait for a second one
    const user = ["--user", "ann", "on", ">pw", "~*", "+@all"];
    this.#args = ["--port", String(this.port), ...durable, ...eager, ...user, ...args];
  }

  static async start(...args: string[]): Promise<Redis> {
    const redis = new Redis(args);
    await redis.start();
    return redis;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Makes a Redis that was killed believe that it was away for long: all leases have run out. */
  async age(): Promise<void> {
    const elsewhere = await Redis.start("--dir", this.folder);
    const servers = "{pipechat:lobby}:servers";
    await elsewhere.send("ZUNIONSTORE", servers, "1", servers, "WEIGHTS", "0");
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

  /** Deletes what it has on disk, so that a Redis that was killed starts empty. */
  forget(): void {
    rmSync(join(this.folder, "appendonlydir"), { recursive: true });
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
    let answer = "";
    const wait = async () => {
      while (!check((answer = String(await this.send(...command))))) await Bun.sleep(2);
    };
    await within(wait(), command.join(" "), () => answer);
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
  readonly #server = createServer((socket) => this.#carry(socket)).listen(0, "127.0.0.1");

  /** @param to where new connections lead */
  constructor(public to: Redis) {}

  /** With the user `ann`, whose rights a test can change. */
  get url(): string {
    return `redis://ann:pw@127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  #carry(socket: Socket): void {
    socket.on("data", (chunk) => this.onSent(chunk.toString()));
    const ends = [socket, connect(this.to.port, "127.0.0.1")];
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

/** Starts servers that share a room; the first has a spare, if it is asked for. */
export function startAll(stack: AsyncDisposableStack, urls: Url[], env = {}, spares = 0) {
  const start = async (redis: Url, n: number) =>
    stack.use(await startLinked(redis, env, "--spares", `${n === 0 ? spares : 0}`));
  return Promise.all(urls.map(start));
}

/** Lets `ann` join one server and `bob` another. */
export async function enter(stack: AsyncDisposableStack, [first, second]: Server[]) {
  const ann = stack.use(await Client.connect(first!, "ann"));
  const bob = stack.use(await Client.connect(second!, "bob"));
  await ann.line("* bob joined (2 online)");
  return { ann, bob, first: first!, second: second! };
}

/**
 * Lets `ann` and `bob` enter a room for a file's tests, one after the other, on two servers that each leaves
 * empty. The first goes to Redis through a proxy. To be called at load.
 */
export function roomSharer(env = {}, spares = 0) {
  const ofFile = new AsyncDisposableStack();
  afterAll(() => ofFile.disposeAsync());
  const start = async () => {
    const redis = ofFile.use(await Redis.start());
    const proxy = ofFile.use(new Proxy(redis));
    return { redis, proxy, servers: await startAll(ofFile, [proxy, redis], env, spares) };
  };
  let started: ReturnType<typeof start> | undefined;
  return async (stack: AsyncDisposableStack) => {
    const { redis, proxy, servers } = await (started ??= start());
    stack.defer(async () => {
      for (const [n, server] of servers.entries()) {
        await server.hasWorkers(n === 0 ? spares : 0);
        server.log.all.length = 0;
      }
      await redis.until((names) => names === "0", "HLEN", "{pipechat:lobby}:names");
    });
    return { redis, proxy, ...(await enter(stack, servers)) };
  };
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
