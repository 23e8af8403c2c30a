/**
 * A real Redis for the tests.
 *
 * @module
 */
import { mkdtempSync, rmSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./helpers.ts";

/** A Redis of its own for a test. What it has answered is on disk: it survives kill -9. */
export class Redis implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "pipechat-redis-"));
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

  /** What it writes as the last thing before its end, it writes half: its last step again. */
  async tear(): Promise<void> {
    const [file] = new Bun.Glob("appendonlydir/*.incr.aof").scanSync(this.folder);
    const log = await Bun.file(join(this.folder, file!)).text();
    const step = log.slice(log.lastIndexOf("*1\r\n$5\r\nMULTI"));
    await appendFile(join(this.folder, file!), step.slice(0, step.lastIndexOf("block")));
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** Runs a command. */
  async send(command: string, ...args: string[]): Promise<any> {
    const client = new Bun.RedisClient(this.url, { autoReconnect: false });
    return client.send(command, args).finally(() => client.close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true });
  }
}
