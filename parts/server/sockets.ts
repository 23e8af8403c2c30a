/**
 * What only the server does with sockets: it keeps copies of the clients', makes a pair for each worker, and
 * asks the kernel how much a socket has sent.
 *
 * @module
 */
import { dlopen, ptr, read } from "bun:ffi";
import { Socket } from "node:net";
import { native } from "../shared/native.ts";
import { descriptorOf, limitSilence } from "../shared/socket.ts";

const symbols = {
  socketpair: { args: ["int", "int", "int", "ptr"], returns: "int" },
  close: { args: ["int"], returns: "int" },
  fcntl: { args: ["int", "int", "int"], returns: "int" },
  getsockopt: { args: ["int", "int", "int", "ptr", "ptr"], returns: "int" },
  ioctl: { args: ["int", "u64", "ptr"], returns: "int" },
  __errno_location: { args: [], returns: "ptr" },
} as const;

const libc = native && dlopen("libc.so.6", symbols).symbols;

const [AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC] = [1, 1, 0o2000000];

/** Two connected sockets, as descriptors; undefined where there are only pipes. Throws at a limit. */
export function socketPair(): [number, number] | undefined {
  if (!libc) return undefined;
  const pair = new Int32Array(2);
  if (libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ptr(pair)) !== 0)
    throw new Error(`no socket pair (errno ${read.i32(libc.__errno_location()!, 0)})`);
  return [pair[0]!, pair[1]!];
}

/** Closes a descriptor. */
export function close(fd: number): void {
  libc?.close(fd);
}

const F_DUPFD_CLOEXEC = 1030;

/**
 * Our copy of a client's socket, for the workers to come. It is a descriptor, of which Bun knows nothing: at a
 * reset, Bun would read even a paused socket and drop what it finds, which is what the client has said last.
 * With plain streams it is Bun's socket all the same.
 */
export class SocketCopy {
  /** The client's IP address. */
  readonly address: string;
  /** Both ends' addresses, which no other connection has; empty if the client is gone. */
  readonly peer: string;
  #copy: number | Socket | undefined; // undefined once it is closed or released

  /** @param socket closed by this, unless it is the copy itself */
  constructor(socket: Socket) {
    this.address = socket.remoteAddress ?? "a client that is gone";
    const { remotePort, localAddress, localPort } = socket;
    this.peer = remotePort ? `${this.address} ${remotePort} ${localAddress} ${localPort}` : "";
    limitSilence(socket.on("error", () => {}));
    const fd = duplicate(descriptorOf(socket));
    this.#copy = fd < 0 ? socket : fd;
    if (fd >= 0) socket.destroy();
  }

  get descriptor(): number {
    const copy = this.#copy;
    return typeof copy === "number" ? copy : copy ? descriptorOf(copy) : -1;
  }

  /** Whether it cannot be passed on any more: the client is gone, and nothing of it is left to be read. */
  get isClosed(): boolean {
    return this.descriptor < 0;
  }

  /** Lends it as a socket, as long as the call takes. Throws if no descriptor is left for that. */
  lend(use: (socket: Socket) => void): void {
    if (this.#copy instanceof Socket) return use(this.#copy);
    const socket = socketOf(duplicate(this.descriptor));
    try {
      use(socket);
    } finally {
      socket.destroy();
    }
  }

  /** Gives it up to somebody who will close it. */
  release(): Socket {
    const copy = this.#copy;
    this.#copy = undefined;
    return copy instanceof Socket ? copy : socketOf(copy ?? -1);
  }

  close(): void {
    if (this.#copy !== undefined) this.release().destroy();
  }
}

/** Another descriptor of the same file; -1 if there is none. */
function duplicate(fd: number): number {
  return libc?.fcntl(fd, F_DUPFD_CLOEXEC, 0) ?? -1;
}

/** Lets Bun adopt an open descriptor. Paused only later, it would have been read already. */
export function socketOf(fd: number): Socket {
  if (fd < 0) throw new Error("no descriptor is left");
  const socket = new Socket().on("error", () => {});
  (socket as any).connect({ fd, pauseOnConnect: true }); // bun-types does not know `fd`
  return socket;
}

const [SOL_SOCKET, SO_SNDTIMEO] = [1, 21];

/** Whether a process has taken lines out of a client's socket and died before it had said them (native.c). */
export function hasUnsaidLines(fd: number): boolean {
  const timeout = new BigInt64Array(2); // struct timeval
  const size = Int32Array.of(timeout.byteLength);
  libc?.getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, ptr(timeout), ptr(size));
  return timeout[0] !== 0n;
}

const [IPPROTO_TCP, TCP_INFO, SIOCOUTQ] = [6, 11, 0x5411];
const acknowledgedAt = 120; // offset of tcpi_bytes_acked in struct tcp_info, bytes

/**
 * How many bytes were ever written to a TCP socket, by whichever process: those that the peer has
 * acknowledged, and those that wait in the kernel. Undefined if the kernel does not say.
 */
export function bytesWritten(fd: number): number | undefined {
  if (!libc) return undefined;
  const info = new DataView(new ArrayBuffer(256));
  const acknowledged = (): bigint | undefined => {
    const size = Int32Array.of(info.byteLength);
    const failed = libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, ptr(info.buffer), ptr(size)) !== 0;
    return failed || size[0]! < acknowledgedAt + 8
      ? undefined
      : info.getBigUint64(acknowledgedAt, true);
  };
  const waiting = new Int32Array(1);
  // An acknowledgement between the two calls would count bytes twice: then once more.
  for (let attempt = 0; attempt < 100; attempt++) {
    const before = acknowledged();
    if (before === undefined || libc.ioctl(fd, SIOCOUTQ, ptr(waiting)) !== 0) return undefined;
    if (acknowledged() === before) return Number(before) + waiting[0]!;
  }
  return undefined;
}
