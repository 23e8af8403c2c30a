/**
 * What native.c does, for whoever does not read C. Bun compiles that file when a process starts (`cc` of
 * `bun:ffi`); no compiler, header or library has to be on the machine.
 *
 * Why C? Between two lines a worker sleeps, and the memory of a JavaScript engine that wakes up is cold: to
 * read and write one line cost it more than the three system calls for it (`poll`, `recv`, `send`). The
 * loops that move every line are therefore C, and a plain line goes through them without TypeScript: which lines
 * are plain, `take()` decides. Everything else is TypeScript.
 *
 * Only Linux: elsewhere the numbers in native.c are others, and plain streams do.
 *
 * @module
 */
import { cc, dlopen, type Pointer } from "bun:ffi";

/** What `relay()` gives, if not a number of bytes. */
export const Event = {
  /** The event loop has something to do: a control message, a signal, or time has passed. */
  turn: -1,
  /** The client has ended its half of the connection, in order. */
  ended: -2,
  /** The client's connection was reset. All that had arrived before was taken. */
  reset: -3,
  /** The beginning of a line is about to be taken without its end. */
  torn: -4,
  /** The server says nothing more. */
  hungUp: -5,
  /** The server is dead. What it had written before may still be read. */
  gone: -6,
} as const;

/** The places of `struct relay` in an Int32Array. */
export const Field = {
  server: 0,
  client: 1,
  control: 2,
  lines: 3,
  taken: 4,
  name: 5,
  said: 6,
  block: 7,
  sent: 8,
  partial: 9,
  torn: 10,
  watermark: 11,
  from: 12,
  to: 13,
  left: 14,
  special: 15,
  holds: 16,
  broken: 17,
} as const;

const symbols = {
  /**
   * Moves blocks from the server to the client, and waits in between, until the client has said something.
   * Gives how many bytes it has put into `up`, or an Event: whole lines (LF, CR LF or CR ends one), or what was
   * taken without its end. Plain lines it says itself: printable ASCII behind the client's name.
   * Arguments: the state, two buffers (down, and up, which is three times as large), the size of the first, the
   * longest time to wait (ms).
   */
  relay: { args: ["ptr", "ptr", "ptr", "int", "int"], returns: "int" },
  /**
   * Sends a block to the server, and waits until it has taken all of it. Gives how many bytes it has taken:
   * fewer if it is dead.
   */
  say: { args: ["int", "ptr", "int"], returns: "int" },
  /** Sends one block to many sockets (-1 is none). The last argument gets how many bytes each has taken. */
  broadcast: { args: ["ptr", "int", "ptr", "int", "ptr"], returns: "void" },
  /** Passes a descriptor, and one byte, over a Unix socket; gives whether the socket has taken it. */
  pass: { args: ["int", "int"], returns: "int" },
  /**
   * Receives a descriptor that was passed, and the byte that it came with. Gives -1 if nothing has come yet,
   * and -2 if the byte came alone.
   */
  accept_passed: { args: ["int"], returns: "int" },
} as const;

// What native.c and a worker call. Other calls are the server's own (parts/server/sockets.ts).
const calls = {
  poll: { args: [], returns: "int" },
  recv: { args: [], returns: "int" },
  send: { args: [], returns: "int" },
  setsockopt: { args: [], returns: "int" },
  sendmsg: { args: [], returns: "int" },
  recvmsg: { args: [], returns: "int" },
  __errno_location: { args: [], returns: "ptr" },
  dup: { args: ["int"], returns: "int" },
  shutdown: { args: ["int", "int"], returns: "int" },
} as const;

/** The functions of native.c and two system calls; undefined where they cannot be had. */
export const native = load();

function load() {
  // Only the tests set this: they want the plain streams.
  if (process.env["PIPECHAT_PLAIN"] || process.platform !== "linux") return undefined;
  try {
    const libc = dlopen("libc.so.6", calls).symbols;
    const addressOf = (call: object) => String((call as { ptr: Pointer }).ptr);
    const { symbols: functions } = cc({
      source: new URL("./native.c", import.meta.url),
      // Without the C library, which Bun would look for among a compiler's files.
      flags: ["-nostdlib"],
      define: {
        POLL: addressOf(libc.poll),
        RECV: addressOf(libc.recv),
        SEND: addressOf(libc.send),
        SETSOCKOPT: addressOf(libc.setsockopt),
        SENDMSG: addressOf(libc.sendmsg),
        RECVMSG: addressOf(libc.recvmsg),
        ERRNO: addressOf(libc.__errno_location),
      },
      symbols,
    });
    return { ...functions, dup: libc.dup, shutdown: libc.shutdown };
  } catch {
    return undefined; // another C library, no JIT compiler, or a kernel that forbids new code
  }
}

export type Native = NonNullable<typeof native>;
