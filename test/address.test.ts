import { expect, test } from "bun:test";
import { explain } from "../parts/client/conversation.ts";
import { parseAddress, readClientOptions } from "../parts/client/options.ts";

test.each([
  ["", "127.0.0.1", 2000],
  ["example.org:7", "example.org", 7],
  [":3000", "127.0.0.1", 3000],
  ["[::1]:2001", "::1", 2001],
  ["[::1]", "::1", 2000],
  ["FE80::1%eth0", "FE80::1%eth0", 2000],
  ["[fe80::1%en-0.1]:7", "fe80::1%en-0.1", 7],
])("the address %j is understood", (text, host, port) => {
  expect(parseAddress(text)).toEqual({ host, port });
});

test.each(["host:port", "host:", "two words", "http://a.example", "[a.example]:7", "[fe80::1%]:7"])(
  "'%s' is not an address",
  (text) => expect(() => parseAddress(text)).toThrow(new Error(`'${text}' is not an address`)),
);

test.each(["0", "65536"])("%s is not a port", (port) => {
  expect(() => parseAddress(`host:${port}`)).toThrow(new Error(`${port} is not a port`));
});

test.each([
  [["Łukasz"], "127.0.0.1:2000", "Łukasz"],
  [["3000", "ann"], "127.0.0.1:3000", "ann"],
  [["localhost", "localhost"], "localhost:2000", "localhost"],
  [["chat.example"], "chat.example:2000", readClientOptions([]).name],
])("the words %j are what people mean: an address, a name, or both", (words, where, name) => {
  expect(readClientOptions(words)).toMatchObject({ where, name });
});

test.each([
  ["ERR_TLS_CERT_ALTNAME_INVALID", "its certificate is not for chat, but for a.example, 10.0.0.1"],
  ["EMFILE", "as the system says it"],
])("the error %s is said in words for a person", (code, text) => {
  const cert = { subjectaltname: "DNS:a.example, IP Address:10.0.0.1" };
  const error = Object.assign(new Error("as the system says it"), { code, cert });
  expect(explain(error, { host: "chat", port: 2000 })).toBe(text);
});
