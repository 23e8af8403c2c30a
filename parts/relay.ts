/**
 * A worker's two streams: its client's socket, and stdin and stdout to the server.
 *
 * Where bytes wait: what the client says waits in its socket, which is read only when the last chunk is
 * dealt with and the server has taken it. What the others say waits in stdin, which is read only while
 * the socket takes it, and one chunk at most waits in the socket's buffer.
 *
 * @module
 */
import { Socket } from "node:net";

/** Bun adopts an open descriptor; bun-types has the options but not this overload. */
declare module "bun" {
  function connect<Data = undefined>(options: FdSocketOptions<Data>): Promise<Socket<Data>>;
}

const isPlain = process.env["PIPECHAT_PLAIN"] !== undefined; // the tests want the fallback

/** Carries bytes between the client and the server. */
export class Relay {
  /** Bytes said to the server so far. */
  said = 0;
  /** Whether the client's connection was reset: the rest of what it said is lost. */
  wasReset = false;
  /** Resolves when the server says nothing more and the client has everything, or is gone. */
  readonly closed: Promise<void>;
  readonly #close: () => void;
  readonly #stdout = Bun.stdout.writer();
  #stdin: { pause(): unknown; resume(): unknown } | undefined;
  #client: Socket | undefined;
  #write: (chunk: Uint8Array) => number = () => 0;
  #isFull = false; // the client's socket has not taken everything

  private constructor() {
    ({ promise: this.closed, resolve: this.#close } = Promise.withResolvers<void>());
  }

  /**
   * Opens stdin, a socket pair. As a native socket it costs a third less CPU a line than process.stdin.
   * It also runs once everything that the first client would otherwise wait for: 10 ms.
   */
  static async open(): Promise<Relay> {
    const relay = new Relay();
    const data = (chunk: Uint8Array) => relay.#show(chunk);
    const close = () => relay.#hangUp();
    try {
      if (isPlain) throw new Error("no native sockets wanted");
      const socket = { data: (_: unknown, chunk: Uint8Array) => data(chunk), close };
      relay.#stdin = await Bun.connect({ fd: 0, socket });
    } catch {
      relay.#stdin = process.stdin.on("data", data).on("end", close);
    }
    const rehearsal = new Socket();
    rehearsal.push("line");
    rehearsal.push(null);
    for await (const _ of rehearsal.iterator({ destroyOnReturn: false }));
    rehearsal.destroy();
    return relay;
  }

  /** Begins to show the client what the others say. */
  serve(client: Socket): void {
    client.allowHalfOpen = true; // a client that has said everything may want to read on
    client.on("error", () => (this.wasReset = true));
    this.#client = client;
    this.#write = nativeWrite(client);
  }

  /** What the client says, to its end or its reset. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    try {
      // Left to itself, the iterator destroys the socket when the client has ended its half of it.
      yield* this.#client!.iterator({ destroyOnReturn: false });
    } catch {
      this.wasReset = true;
    }
  }

  /** Says lines to the server. Pending while it does not take them. */
  async say(lines: string): Promise<void> {
    if (lines === "") return;
    this.said += Buffer.byteLength(lines);
    try {
      await this.#stdout.write(lines);
      await this.#stdout.flush();
    } catch {
      // The server is dead.
    }
  }

  #show(chunk: Uint8Array): void {
    const taken = this.#isFull ? 0 : this.#write(chunk);
    if (taken === chunk.length) return;
    this.#isFull = true;
    this.#stdin?.pause();
    this.#client?.write(chunk.subarray(taken), () => {
      this.#isFull = this.#client!.writableLength > 0;
      if (!this.#isFull) this.#stdin?.resume();
    });
  }

  #hangUp(): void {
    const client = this.#client;
    if (!client || client.destroyed) return this.#close();
    client.once("close", this.#close);
    client.end(() => setTimeout(this.#close, 500)); // the kernel has all of it; the client closes first
  }
}

/**
 * Writes straight to the native socket below a `net.Socket`, which is undocumented: half the CPU a line
 * of `socket.write()`. Where there is none, it takes nothing, and the plain way takes everything.
 *
 * @returns a function that writes without buffering and gives how many bytes the kernel took
 */
function nativeWrite(socket: Socket): (chunk: Uint8Array) => number {
  const { _handle } = socket as { _handle?: { write?(chunk: Uint8Array): number } };
  if (isPlain || !_handle?.write || "encrypted" in socket) return () => 0;
  return (chunk) => Math.max(0, _handle.write!(chunk)); // -1: it is closed
}
