/** Clients that are telnet: how they end lines, and what they send beside text. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { createConnection } from "node:net";
import { Telnet } from "../parts/worker/telnet.ts";
import { Client, passwordFile, patience, type Server, sharedServer } from "./helpers.ts";
import { startServer, within } from "./helpers.ts";
import { openRoom } from "./scenes.ts";

setDefaultTimeout(2 * patience);

const server = await sharedServer();
const hash = await passwordFile("secret words");

const [IAC, DONT, DO, WILL, SB, IP, SE, TM] = [255, 254, 253, 251, 250, 244, 240, 6];
const ctrlC = [IAC, IP, IAC, DO, TM]; // what telnet(1) sends then
const answer = "\xff\xfb\x06* /quit leaves\n";

const texts = {
  "LF, CR LF, CR NUL and CR": ["a\nb\r\nc\r\0d\re\n", "a\nb\nc\nd\ne\n"],
  "empty lines": ["\r\r\n\n\r\0\r", "\n\n\n\n\n"],
  "NUL that no CR precedes": ["a\0b\n\0c\r\0\0d", "a\0b\n\0c\n\0d"],
  "commands anywhere": ["\xff\xf4\xff\xfd\x06a\xff\xf1b\xff\xfb\x18c\xff\xff\n", "abc\n"],
  "a subnegotiation": ["a\xff\xfa\x1f\x00P\xff\xff\x18\xff\xf0b\n", "ab\n"],
  "an option that is a control character": ["a\xff\xfb\x00\xff\xfe\x07b\n", "ab\n"],
  "commands without their end": [
    "a\xff\nb\xff\xfd\rc\xff\xfa\x1f\xff\r\nd\xff\xfax\n",
    "a\nb\nc\nd\n",
  ],
  "bytes that are no commands": ["a\xffb\xff\xefc\n", "ab\xefc\n"],
} satisfies Record<string, [string, string]>;

test.each(Object.entries(texts))("%s: the same text, wherever a read ends", (_, [sent, text]) => {
  const read = (...chunks: string[]) => {
    const telnet = new Telnet(false);
    const read = chunks.map((chunk) => telnet.read(Buffer.from(chunk, "latin1")));
    return [Buffer.concat(read).toString("latin1"), telnet.isTorn];
  };
  const expected = [text, !text.endsWith("\n")];
  expect(read(sent)).toEqual(expected);
  expect(read(...sent)).toEqual(expected);
  for (let at = 1; at < sent.length; at++)
    expect(read(sent.slice(0, at), sent.slice(at))).toEqual(expected);
});

test("a chunk without CR and IAC is not copied", () => {
  const chunk = Buffer.from("é😀\n");
  expect(new Telnet(false).read(chunk)).toBe(chunk);
});

test("a line that ends with CR is heard at once, and LF or NUL behind it is no line", async () => {
  using room = await openRoom(server);
  const { ann, bob } = room;
  const parts = ["one\r", "\ntwo\r", "\0three\r", "four\r", "five\r\0", "six\r\n", "\rseven\n"];
  const words = ["one", "two", "three", "four", "five", "six", "seven"];
  for (const [n, part] of parts.entries()) {
    ann.send(part);
    await bob.line(`ann: ${words[n]}`);
  }
  ann.send("8\r9\r\n10\r\x0011\n12\r");
  await bob.line("ann: 12");
  expect(bob.messages.slice(words.length)).toEqual([8, 9, 10, 11, 12].map((n) => `ann: ${n}`));
});

test("name and password may end with CR, and the LF behind it is no answer", async () => {
  await using server = await startServer(["--password-file", hash]);
  using ann = await Client.connect(server);
  ann.send("ann\r");
  await ann.line("* password:");
  ann.send("\n");
  ann.send("wrong\r");
  await ann.line("* wrong password, try again:");
  ann.send("\0");
  ann.send("secret words\r");
  await ann.line(/^\* welcome ann /);
  expect(ann.lines.all.filter((line) => line.startsWith("* wrong")).length).toBe(1);
});

/** A client that gets bytes, not lines: telnet's are no UTF-8. */
function openTelnet(server: Server) {
  const socket = createConnection(server.port, "127.0.0.1").setNoDelay();
  let heard = ""; // and not waited for yet
  let changed = Promise.withResolvers<void>();
  socket.on("data", (chunk) => {
    heard += chunk.toString("latin1");
    changed.resolve();
    changed = Promise.withResolvers();
  });
  const wait = async (bytes: string) => {
    while (!heard.includes(bytes)) await changed.promise;
    heard = heard.slice(heard.indexOf(bytes) + bytes.length);
  };
  return {
    send: (...parts: (string | number[])[]) =>
      socket.write(Buffer.concat(parts.map((part) => Buffer.from(part as string)))),
    hears: (bytes: string) =>
      within(wait(bytes), JSON.stringify(bytes), () => JSON.stringify(heard)),
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

test("Ctrl-C in telnet is answered, anywhere and without the end of a line", async () => {
  using room = await openRoom(server);
  using eve = openTelnet(server);
  eve.send(ctrlC);
  await eve.hears(answer);
  eve.send([IAC, DO, 3, IAC, WILL, 24], "eve\r\n");
  await eve.hears("* welcome eve ");
  eve.send(ctrlC);
  await eve.hears(answer);
  eve.send("half of ", ctrlC);
  await eve.hears(answer);
  eve.send("it\r\n", ctrlC, ctrlC, "/nick adam\r\0");
  await eve.hears("* eve is now adam\n");
  await room.bob.line("* eve is now adam");
  expect(room.bob.messages).toEqual(["eve: half of it"]);
});

test("a command of telnet may come in pieces", async () => {
  using room = await openRoom(server);
  using eve = openTelnet(server);
  eve.send("eve\n");
  await eve.hears("* welcome eve ");
  eve.send("be");
  for (const byte of [IAC, SB, 31, 0, 80, IAC, SE, IAC, DONT, 1, IAC, DO]) {
    eve.send([byte]);
    // What eve's process sends her when it can read the byte, and again when it has done so.
    for (const line of ["reads", "has read"]) {
      room.bob.send(`${line} ${byte}\n`);
      await eve.hears(`bob: ${line} ${byte}\n`);
    }
  }
  eve.send([TM]);
  await eve.hears(answer);
  eve.send("fore\n");
  await room.bob.line("eve: before");
});

test("who dies in the middle of a command takes no more along than its line, and nothing is broken", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using eve = openTelnet(server);
  eve.send("eve\r\n");
  await eve.hears("* welcome eve ");
  eve.send("lost ", ctrlC);
  await eve.hears(answer);
  process.kill(await server.worker("eve"), "SIGKILL");
  await eve.hears("* a line of yours may be lost\n");
  eve.send("rest\r", ctrlC);
  await eve.hears(answer);
  process.kill(await server.worker("eve"), "SIGKILL");
  await eve.hears(" took over\n");
  eve.send("\nnext\r\n");
  await bob.line("eve: next");
  expect(bob.messages).toEqual(["eve: next"]);
});
