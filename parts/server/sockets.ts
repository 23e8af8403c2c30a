/**
 * System calls that only the server needs: a socket pair for each worker, and what a socket has sent.
 *
 * @module
 */
import { dlopen, ptr, read } from "bun:ffi";
import { native } from "../shared/native.ts";

const symbols = {
  socketpair: { args: ["int", "int", "int", "ptr"], returns: "int" },
  close: { args: ["int"], returns: "int" },
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
