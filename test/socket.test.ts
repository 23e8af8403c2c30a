/** What the kernel is told about a client's socket. */
import { dlopen, ptr } from "bun:ffi";
import { expect, test } from "bun:test";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { SocketCopy } from "../parts/server/sockets.ts";
import { native } from "../parts/shared/native.ts";
import { descriptorOf, limitSilence } from "../parts/shared/socket.ts";

const [IPPROTO_TCP, TCP_USER_TIMEOUT] = [6, 18];

/** How long a socket waits for an answer to what was sent, ms; 0 is the kernel's default. */
function userTimeout(fd: number): number {
  const signature = { args: ["int", "int", "int", "ptr", "ptr"], returns: "int" } as const;
  const { getsockopt } = dlopen("libc.so.6", { getsockopt: signature }).symbols;
  const [value, size] = [new Int32Array(1), Int32Array.of(4)];
  expect(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ptr(value), ptr(size))).toBe(0);
  return value[0]!;
}

const testNatively = native ? test : () => {};

testNatively("a peer that does not answer for two minutes is given up, at both ends", async () => {
  await using server = createServer({ pauseOnConnect: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [[socket]] = await Promise.all([once(server, "connection"), once(client, "connect")]);
  expect(userTimeout(descriptorOf(client))).toBe(0);
  limitSilence(client);
  expect(userTimeout(descriptorOf(client))).toBe(120_000);
  const copy = new SocketCopy(socket);
  expect(userTimeout(copy.descriptor)).toBe(120_000);
  copy.close();
  client.destroy();
});
