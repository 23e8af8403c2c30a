/**
 * System calls that Bun does not offer, through `bun:ffi`: a socket pair, and a process that waits in
 * `poll(2)` and moves bytes itself.
 *
 * Why should a JavaScript process block? Between two lines a worker has nothing else to do. An event
 * loop that wakes up for a line asks the kernel what has happened, reads into a new buffer, calls back,
 * runs what was promised, collects garbage, and goes to sleep again: about twice the time that the
 * three system calls take which the line needs (`poll`, `recv`, `send`). A worker with one client can
 * make just these three, as a blocking process in C or Ruby does. See native-relay.ts for what returns
 * it to the event loop.
 *
 * Only Linux: elsewhere the numbers below are others, and the streams of plain-relay.ts do.
 *
 * @module
 */
import { dlopen, ptr, read } from "bun:ffi";

const symbols = {
  socketpair: { args: ["int", "int", "int", "ptr"], returns: "int" },
  close: { args: ["int"], returns: "int" },
  poll: { args: ["ptr", "u64", "int"], returns: "int" },
  // Nothing that we move is longer than an int says.
  recv: { args: ["int", "ptr", "u64", "int"], returns: "int" },
  send: { args: ["int", "ptr", "u64", "int"], returns: "int" },
  getsockopt: { args: ["int", "int", "int", "ptr", "ptr"], returns: "int" },
  ioctl: { args: ["int", "u64", "ptr"], returns: "int" },
  setsockopt: { args: ["int", "int", "int", "ptr", "u32"], returns: "int" },
  __errno_location: { args: [], returns: "ptr" },
} as const;

/** The C library, or undefined where it cannot be used: then there are plain streams. */
export const libc = open();

function open() {
  // Only the tests set this: they want the plain streams.
  if (process.env["PIPECHAT_PLAIN"] || process.platform !== "linux") return undefined;
  try {
    return dlopen("libc.so.6", symbols).symbols;
  } catch {
    return undefined; // another C library, or the JIT compiler is off, which bun:ffi needs
  }
}

export type LibC = NonNullable<typeof libc>;

/** Poll's events: there is something to read; there is room to write; the peer has ended its half. */
export const [POLLIN, POLLOUT, POLLRDHUP] = [0x001, 0x004, 0x2000];
/** Flags of `recv` and `send`: leave it there; do not wait; no SIGPIPE. */
export const [MSG_PEEK, MSG_DONTWAIT, MSG_NOSIGNAL] = [0x2, 0x40, 0x4000];

const [AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC] = [1, 1, 0o2000000];
const [SOL_SOCKET, SO_RCVLOWAT] = [1, 18];
const [EINTR, EAGAIN] = [4, 11];

/** Makes two connected sockets. Throws if the process may not have more descriptors. */
export function socketPair(c: LibC): [number, number] {
  const pair = new Int32Array(2);
  if (c.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ptr(pair)) !== 0)
    throw new Error(`no socket pair (errno ${errno(c)})`);
  return [pair[0]!, pair[1]!];
}

/** Lets `poll` report a socket as readable only when it holds so many bytes, or has ended. */
export function setLowWatermark(c: LibC, fd: number, bytes: number): void {
  c.setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, ptr(Int32Array.of(bytes)), 4);
}

const [IPPROTO_TCP, TCP_INFO, SIOCOUTQ] = [6, 11, 0x5411];
const acknowledgedAt = 120; // offset of tcpi_bytes_acked in struct tcp_info, bytes

/**
 * How many bytes were ever written to a TCP socket, by whichever process: those that the peer has
 * acknowledged, and those that wait in the kernel. Undefined if the kernel does not say.
 */
export function bytesWritten(c: LibC, fd: number): number | undefined {
  const info = new DataView(new ArrayBuffer(256));
  const acknowledged = (): bigint | undefined => {
    const size = Int32Array.of(info.byteLength);
    const failed = c.getsockopt(fd, IPPROTO_TCP, TCP_INFO, ptr(info.buffer), ptr(size)) !== 0;
    return failed || size[0]! < acknowledgedAt + 8
      ? undefined
      : info.getBigUint64(acknowledgedAt, true);
  };
  const waiting = new Int32Array(1);
  // An acknowledgement between the two calls would count bytes twice: then once more.
  for (let attempt = 0; attempt < 100; attempt++) {
    const before = acknowledged();
    if (before === undefined || c.ioctl(fd, SIOCOUTQ, ptr(waiting)) !== 0) return undefined;
    if (acknowledged() === before) return Number(before) + waiting[0]!;
  }
  return undefined;
}

/** Whether the last call failed only because there was nothing to do, or a signal came. */
export function shouldRetry(c: LibC): boolean {
  const code = errno(c);
  return code === EAGAIN || code === EINTR;
}

function errno(c: LibC): number {
  return read.i32(c.__errno_location()!, 0);
}

/** The descriptors that a process waits for, each with its events: an array of `struct pollfd`. */
export class PollSet {
  readonly #fields: Int16Array; // a descriptor in two of them, then the events, then what happened
  readonly #descriptors: Int32Array;
  readonly #address;

  constructor(size: number) {
    this.#descriptors = new Int32Array(2 * size);
    this.#fields = new Int16Array(this.#descriptors.buffer);
    this.#address = ptr(this.#descriptors);
  }

  /** Waits for events of a descriptor; without any, it does not even report that it is closed. */
  watch(index: number, fd: number, events: number): void {
    this.#descriptors[2 * index] = events === 0 ? -1 : fd;
    this.#fields[4 * index + 2] = events;
  }

  /** What has happened to a descriptor. */
  happened(index: number): number {
    return this.#fields[4 * index + 3]!;
  }

  /** Blocks until something happens; gives false if a signal came, or `ms` are over; -1 is for ever. */
  wait(c: LibC, ms: number): boolean {
    return c.poll(this.#address, this.#descriptors.length / 2, ms) > 0;
  }
}
