/**
 * The plain way between a worker's client and the server: streams, on every system and over TLS.
 *
 * Where bytes wait: what the client says waits in its socket, which is read only when the last chunk is
 * dealt with and the server has taken it. What the others say waits in stdin, which is read only while
 * the client's socket takes it; one chunk at most waits in that socket's buffer.
 *
 * @module
 */
import type { Socket } from "node:net";
import type { Relay } from "./relay.ts";

const newline = 0x0a;

export class PlainRelay implements Relay {
  said = 0;
  wasReset = false;
  readonly closed: Promise<void>;
  readonly #close: () => void;
  readonly #stdout = Bun.stdout.writer();
  #client: Socket | undefined;
  #isTorn = false; // the beginning of a line was taken, and its end not yet
  #torn: (isTorn: boolean) => void = () => {};

  constructor() {
    ({ promise: this.closed, resolve: this.#close } = Promise.withResolvers<void>());
    process.stdin.on("data", (chunk: Buffer) => this.#show(chunk)).on("end", () => this.#hangUp());
  }

  serve(client: Socket, _maxLine: number, torn: (isTorn: boolean) => void): void {
    this.#torn = torn;
    client.allowHalfOpen = true; // a client that has said everything may want to read on
    client.on("error", () => (this.wasReset = true));
    client.on("close", () => process.stdin.resume()); // what is on its way to it goes nowhere
    this.#client = client;
    process.stdin.resume();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    try {
      // Left to itself, the iterator destroys the socket when the client has ended its half of it.
      for await (const chunk of this.#client!.iterator({ destroyOnReturn: false })) {
        const isTorn = chunk.at(-1) !== newline;
        if (isTorn !== this.#isTorn) this.#torn((this.#isTorn = isTorn));
        yield chunk;
      }
    } catch {
      this.wasReset = true;
    }
  }

  hurry(): void {} // timers run anyway

  async say(lines: string): Promise<void> {
    this.said += Buffer.byteLength(lines);
    try {
      await this.#stdout.write(lines);
      await this.#stdout.flush();
    } catch {
      // The server is dead.
    }
  }

  #show(chunk: Uint8Array): void {
    const client = this.#client;
    if (!client) return process.stdin.pause().unshift(chunk); // until there is one
    if (client.destroyed || client.write(chunk)) return;
    process.stdin.pause();
    client.once("drain", () => process.stdin.resume());
  }

  #hangUp(): void {
    const client = this.#client;
    if (!client || client.destroyed) return this.#close();
    client.once("close", this.#close);
    client.end(() => setTimeout(this.#close, 500)); // the kernel has all of it; the client closes first
  }
}
