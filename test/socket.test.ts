/** What the kernel is told about a client's socket. */
import { dlopen, ptr } from "bun:ffi";
import { expect, test } from "bun:test";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { SocketCopy } from "../parts/server/sockets.ts";
import { native } from "../parts/shared/native.ts";
import { descriptorOf, limitSilence } from "../parts/shared/socket.ts";
import { freePort } from "./helpers.ts";

const [IPPROTO_TCP, TCP_USER_TIMEOUT] = [6, 18];

/** How long a socket waits for an answer to what was sent, ms; 0 is the kernel's default. */
function userTimeout(fd: number): number {
  const calls = {
    getsockopt: { args: ["int", "int", "int", "ptr", "ptr"], returns: "int" },
  } as const;
  const [value, size] = [new Int32Array(1), Int32Array.of(4)];
  const { getsockopt } = dlopen("libc.so.6", calls).symbols;
  expect(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ptr(value), ptr(size))).toBe(0);
  return value[0]!;
}

(native ? test : () => {})(
  "a peer that does not answer for two minutes is given up, at both ends",
  async () => {
    const port = freePort();
    await using server = createServer({ pauseOnConnect: true }).listen(port, "127.0.0.1");
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const client = connect(port, "127.0.0.1");
    const [[socket]] = await Promise.all([accepted, once(client, "connect")]);
    expect(userTimeout(descriptorOf(client))).toBe(0);
    limitSilence(client);
    expect(userTimeout(descriptorOf(client))).toBe(120_000);
    const copy = new SocketCopy(socket);
    expect(userTimeout(copy.descriptor)).toBe(120_000);
    copy.close();
    client.destroy();
  },
);
