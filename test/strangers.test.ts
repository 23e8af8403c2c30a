/** Whose an address is, and who speaks another protocol. */
import { expect, test } from "bun:test";
import { networkOf } from "../parts/server/places.ts";
import { isForeign } from "../parts/worker/strangers.ts";

test.each([
  ["127.0.0.1", "127.0.0.1"],
  ["::ffff:10.1.2.3", "10.1.2.3"],
  ["::1", "0:0:0:0::/64"],
  ["2001:db8::1", "2001:db8:0:0::/64"],
  ["2001:db8:0:0:ffff::", "2001:db8:0:0::/64"],
  ["2001:0db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
])("%s counts as %s", (address, network) => {
  expect(networkOf(address)).toBe(network);
});

test.each([
  "SSH-2.0-OpenSSH_9.2p1",
  "EHLO mail.example",
  "PROXY TCP4 10.0.0.1 10.0.0.2 4000 2000",
  "PROXY UNKNOWN",
  "GET /",
  "GET / HTTP/1.1",
  "OPTIONS * HTTP/1.1",
  "*1",
  "$4",
  "\ufffd\ufffdbinary",
])("%j is another protocol's first line", (line) => {
  expect(isForeign(line)).toBe(true);
});

test.each(["ann", "SSH", "HELO", "Get Smart", "$", "*ann*", "ann/bob", "ÉLOÏSE", "PROXY"])(
  "%j may be a name",
  (line) => expect(isForeign(line)).toBe(false),
);
