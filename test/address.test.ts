import { expect, test } from "bun:test";
import { explain } from "../parts/client/conversation.ts";
import { parseAddress, readClientOptions } from "../parts/client/options.ts";

test.each([
  ["", "127.0.0.1", 2000],
  ["localhost", "localhost", 2000],
  ["example.org:7", "example.org", 7],
  [":3000", "127.0.0.1", 3000],
  ["3000", "127.0.0.1", 3000],
  ["10.0.0.1", "10.0.0.1", 2000],
  [":65535", "127.0.0.1", 65_535],
  ["[::1]:2001", "::1", 2001],
  ["[::1]", "::1", 2000],
  ["fe80::1", "fe80::1", 2000],
  ["fe80::1%eth0", "fe80::1%eth0", 2000],
  ["[fe80::1%en-0.1]:7", "fe80::1%en-0.1", 7],
  ["FE80::1", "FE80::1", 2000],
])("the address %j is understood", (text, host, port) => {
  expect(parseAddress(text)).toEqual({ host, port });
});

test.each([
  ["host:port", "'host:port' is not an address"],
  ["host:", "'host:' is not an address"],
  ["two words", "'two words' is not an address"],
  ["http://example.org", "'http://example.org' is not an address"],
  ["[example.org]:7", "'[example.org]:7' is not an address"],
  ["65536", "65536 is not a port"],
  ["[fe80::1%]:7", "'[fe80::1%]:7' is not an address"],
  ["host:0", "0 is not a port"],
  ["host:65536", "65536 is not a port"],
])("the address %j is refused, and named", (text, reason) => {
  expect(() => parseAddress(text)).toThrow(new Error(reason));
});

test.each([
  [["ann"], "127.0.0.1:2000", "ann"],
  [["Łukasz"], "127.0.0.1:2000", "Łukasz"],
  [["3000", "ann"], "127.0.0.1:3000", "ann"],
  [["localhost", "localhost"], "localhost:2000", "localhost"],
  [["chat.example"], "chat.example:2000", readClientOptions([]).name],
])(
  "the words %j are what people mean by them: an address, a name, or both",
  (words, where, name) => {
    expect(readClientOptions(words)).toMatchObject({ where, name });
  },
);

test.each([
  ["ECONNREFUSED", "nobody listens there; start a server with `bun server.ts`"],
  ["ERR_SSL_WRONG_VERSION_NUMBER", "this server does not use TLS, leave out --tls"],
  ["ERR_TLS_CERT_ALTNAME_INVALID", "its certificate is not for chat, but for a.example, 10.0.0.1"],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", "its certificate is from an authority that is not trusted here"],
  ["EMFILE", "as the system says it"],
])("the error %s is said in words for a person", (code, text) => {
  const cert = { subjectaltname: "DNS:a.example, IP Address:10.0.0.1" };
  const error = Object.assign(new Error("as the system says it"), { code, cert });
  expect(explain(error, { host: "chat", port: 2000 })).toStartWith(text);
});
