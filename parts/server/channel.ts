/**
 * How bytes travel between the server and a worker's stdin and stdout: a socket pair or, where that
 * cannot be had, the two pipes of `Bun.spawn`.
 *
 * @module
 */
import { libc, type LibC, socketPair } from "../shared/native.ts";

/** What happens at the server's end. */
export interface ChannelEvents {
  /** Bytes have come; while the promise is pending, no more are read. */
  data(chunk: Uint8Array): Promise<void> | undefined;
  /** More can be written. */
  drain(): void;
}

/** The server's end of a channel to a worker. */
export interface Channel {
  /** Writes as much as it can at once; gives how many bytes. `drain` tells when it can write more. */
  write(bytes: Uint8Array): number;
  /** Ends what the worker reads, behind everything that was written. */
  end(): void;
  /** Resolves when the worker's stdout has ended and all of it was read. */
  readonly ended: Promise<void>;
}

/** A worker's process and the channel to it. */
export interface Spawned {
  child: Bun.Subprocess;
  channel: Promise<Channel>;
}

/** What `Bun.spawn` is told about the worker. */
export interface WorkerOptions {
  cmd: string[];
  cwd: string;
  env: Record<string, string>;
  ipc(message: unknown): void;
  onDisconnect(): void;
  detached: boolean;
}

/**
 * Spawns a worker with a channel to it.
 *
 * @param plain whether it gets pipes in any case: over TLS, a worker cannot use the fast way
 */
export function spawnWithChannel(
  options: WorkerOptions,
  on: ChannelEvents,
  plain: boolean,
): Spawned {
  if (libc && !plain) return spawnWithPair(libc, options, on);
  const child = Bun.spawn({
    ...options,
    env: { ...options.env, PIPECHAT_PLAIN: "1" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  return { child, channel: Promise.resolve(new PipeChannel(child, on)) };
}

// --- A socket pair -------------------------------------------------------------------------------

/** One socket is both stdin and stdout of the worker. A write is a `send`, and nothing else. */
function spawnWithPair(c: LibC, options: WorkerOptions, on: ChannelEvents): Spawned {
  const [ours, theirs] = socketPair(c);
  try {
    const child = Bun.spawn({ ...options, stdio: [theirs, theirs, "inherit"] });
    return { child, channel: PairChannel.open(ours, on) };
  } catch (error) {
    c.close(ours);
    throw error;
  } finally {
    c.close(theirs); // when the worker dies, no one else holds it, and our end is told
  }
}

class PairChannel implements Channel {
  readonly ended: Promise<void>;
  readonly #socket: Bun.Socket;

  private constructor(socket: Bun.Socket, ended: Promise<void>) {
    this.#socket = socket;
    this.ended = ended;
  }

  static async open(fd: number, on: ChannelEvents): Promise<PairChannel> {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const socket = await Bun.connect({
      fd,
      socket: {
        data(socket, chunk) {
          const full = on.data(chunk);
          if (!full) return;
          socket.pause();
          void full.then(() => socket.resume());
        },
        drain: () => on.drain(),
        close: () => resolve(),
        error: () => {},
      },
    });
    return new PairChannel(socket, ended);
  }

  write(bytes: Uint8Array): number {
    return Math.max(0, this.#socket.write(bytes)); // -1: the worker is dead
  }

  end(): void {
    this.#socket.shutdown();
  }
}

// --- Pipes ---------------------------------------------------------------------------------------

const maxWrite = 65_536; // bytes given to the sink at once; it takes any amount

/**
 * The streams of `Bun.spawn`. The kernel holds about 200 KB for the worker. A write beyond that is a
 * promise that resolves when the pipe has taken all of it, or rejects with EPIPE when the worker dies.
 * Until then the sink would buffer any amount: so it gets no more.
 */
class PipeChannel implements Channel {
  readonly ended: Promise<void>;
  readonly #on: ChannelEvents;
  readonly #stdin: Bun.FileSink;
  #isFull = false;

  constructor({ stdin, stdout }: Bun.Subprocess<"pipe", "pipe", "inherit">, on: ChannelEvents) {
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
