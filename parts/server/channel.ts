/**
 * The channel for lines between the server and a worker's stdin and stdout: a socket pair or, where that
 * cannot be had, the two pipes of `Bun.spawn`.
 *
 * @module
 */
import { close, socketPair } from "./sockets.ts";

/** Bun adopts an open descriptor; bun-types has the options but not this overload. */
declare module "bun" {
  function connect<Data = undefined>(options: FdSocketOptions<Data>): Promise<Socket<Data>>;
}

/** What happens at the server's end. */
export interface ChannelEvents {
  /** Bytes have come; while the promise is pending, no more are read. */
  data(chunk: Uint8Array): Promise<void> | undefined;
  /** More can be written. */
  drain(): void;
}

/** The server's end of a channel to a worker. */
export interface Channel {
  /** The socket's descriptor; -1 where there are pipes. */
  readonly descriptor: number;
  /** Writes as much as it can at once; gives how many bytes. `drain` tells when it can write more. */
  write(bytes: Uint8Array): number;
  /** Ends what the worker reads, behind everything that was written. */
  end(): void;
  /** Resolves when the worker's stdout has ended and all of it was read. */
  readonly ended: Promise<void>;
}

/** What a worker gets as stdin and stdout. */
export type Stdio = [stdin: "pipe" | number, stdout: "pipe" | number];

/**
 * Spawns a process with a channel to it.
 *
 * @param isPlain whether it gets pipes in any case
 * @returns the process, and its channel when that is open
 */
export function openChannel<P extends Bun.Subprocess>(
  spawn: (stdio: Stdio) => P,
  on: ChannelEvents,
  isPlain: boolean,
): [child: P, channel: Promise<Channel>] {
  const pair = isPlain ? undefined : socketPair();
  if (!pair) {
    const child = spawn(["pipe", "pipe"]);
    return [child, Promise.resolve(new PipeChannel(child as never, on))];
  }
  const [ours, theirs] = pair;
  try {
    return [spawn([theirs, theirs]), PairChannel.open(ours, on)];
  } catch (error) {
    close(ours);
    throw error;
  } finally {
    close(theirs); // when the worker dies, no one else holds it, and our end is told
  }
}

/** One socket is both stdin and stdout of the worker. A write is a single `send`. */
class PairChannel implements Channel {
  readonly ended: Promise<void>;
  readonly #ended = Promise.withResolvers<void>();
  #descriptor: number;
  #socket!: Bun.Socket;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
    this.ended = this.#ended.promise;
  }

  static async open(fd: number, on: ChannelEvents): Promise<PairChannel> {
    const channel = new PairChannel(fd);
    channel.#socket = await Bun.connect({
      fd,
      socket: {
        data(socket, chunk) {
          const full = on.data(chunk);
          if (!full) return;
          socket.pause();
          void full.then(() => socket.resume());
        },
        drain: () => on.drain(),
        close: () => channel.#close(),
        error: () => {},
      },
    });
    return channel;
  }

  get descriptor(): number {
    return this.#descriptor;
  }

  #close(): void {
    this.#descriptor = -1; // Bun has closed it, and the number may be another file's
    this.#ended.resolve();
  }

  write(bytes: Uint8Array): number {
    return Math.max(0, this.#socket.write(bytes)); // -1: the worker is dead
  }

  end(): void {
    this.#socket.shutdown();
  }
}

const maxWrite = 65_536; // bytes given to the sink at once; it takes any amount

/**
 * The streams of `Bun.spawn`. The kernel holds about 200 KB for the worker. A write beyond that is a
 * promise that resolves when the pipe has taken all of it, or rejects with EPIPE when the worker dies.
 * Until then the sink would buffer any amount: so it gets no more.
 */
class PipeChannel implements Channel {
  readonly descriptor = -1;
  readonly ended: Promise<void>;
  readonly #on: ChannelEvents;
  readonly #stdin: Bun.FileSink;
  #isFull = false;

  constructor({ stdin, stdout }: Bun.Subprocess<"pipe", "pipe">, on: ChannelEvents) {
    this.#on = on;
    this.#stdin = stdin;
    this.ended = this.#read(stdout);
  }

  async #read(stdout: ReadableStream<Uint8Array>): Promise<void> {
    for await (const chunk of stdout) await this.#on.data(chunk);
  }

  write(bytes: Uint8Array): number {
    let taken = 0;
    while (!this.#isFull && taken < bytes.length) {
      const part = bytes.subarray(taken, taken + maxWrite);
      taken += part.length;
      const written = this.#stdin.write(part);
      if (written instanceof Promise) void this.#wait(written);
    }
    return taken;
  }

  async #wait(written: Promise<unknown>): Promise<void> {
    this.#isFull = true;
    try {
      await written;
      this.#isFull = false;
      this.#on.drain();
    } catch {
      // EPIPE: the worker is dead, and nothing more is written to it.
    }
  }

  end(): void {
    void Promise.resolve(this.#stdin.end()).catch(() => {}); // EPIPE
  }
}
