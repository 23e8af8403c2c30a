/** Clients that are telnet: how they end lines, and what they send beside text. */
import { expect, test } from "bun:test";
import { createConnection } from "node:net";
import { Telnet } from "../parts/worker/telnet.ts";
import { Client, sharedServer, until } from "./helpers.ts";
import { openRoom } from "./scenes.ts";

const server = await sharedServer();

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
  "broken commands": ["a\xff\nb\xff\xfd\rc\xff\xfa\x1f\xff\r\nd\xff\xfax\n", "a\nb\nc\nd\n"],
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

/** A client that gets bytes, not lines: telnet's are no UTF-8. */
function openTelnet() {
  const socket = createConnection(server.port, "127.0.0.1").setNoDelay();
  let heard = ""; // and not waited for yet
  socket.on("data", (chunk) => (heard += chunk.toString("latin1")));
  return {
    send: (...parts: (string | number[])[]) =>
      socket.write(Buffer.concat(parts.map((part) => Buffer.from(part as string)))),
    async hears(bytes: string) {
      await until(
        () => heard.includes(bytes),
        JSON.stringify(bytes),
        () => JSON.stringify(heard),
      );
      heard = heard.slice(heard.indexOf(bytes) + bytes.length);
    },
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

test("Ctrl-C is answered anywhere, a command may come in pieces, and CR ends a line", async () => {
  using room = await openRoom(server);
  using eve = openTelnet();
  eve.send(ctrlC);
  await eve.hears(answer);
  eve.send([IAC, DO, 3, IAC, WILL, 24], "eve\r\n");
  await eve.hears("* welcome eve ");
  eve.send("half of ", ctrlC);
  await eve.hears(answer);
  eve.send("it\r\n", ctrlC, ctrlC, "/nick adam\r\0");
  await eve.hears("* eve is now adam\n");
  await room.bob.line("* eve is now adam");
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
  await room.bob.line("adam: before");
  expect(room.bob.messages).toEqual(["eve: half of it", "adam: before"]);

  // A line that ends with CR is heard at once, and LF or NUL behind it is no line.
  const parts = [
    "1\r",
    "\n2\r",
    "\x003\r",
    "4\r",
    "5\r\0",
    "6\r\n",
    "\r7\n",
    "8\r9\r\n10\r\x0011\r",
  ];
  for (const part of parts) {
    eve.send(part);
    await room.bob.line(`adam: ${part.match(/\d+/g)!.at(-1)}`);
  }
  const numbers = Array.from({ length: 11 }, (_, n) => `adam: ${n + 1}`);
  expect(room.bob.messages.slice(2)).toEqual(numbers);
});

test("who dies in the middle of a command takes no more along than its line, and nothing is broken", async () => {
  using bob = await Client.connect(server, "bob");
  using eve = openTelnet();
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
