/** Clients that are telnet: how they end lines, and what they send beside text. */
import { expect, test } from "bun:test";
import { Telnet } from "../parts/worker/telnet.ts";
import { Client, kill, sharedServer } from "./helpers.ts";
import { openRoom } from "./scenes.ts";

const server = await sharedServer();

const ctrlC = "\xff\xf4\xff\xfd\x06"; // what telnet(1) sends then: IAC IP, IAC DO TM
const answer = "\xff\xfb\x06* /quit leaves"; // IAC WILL TM

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

/** A client that sends and gets bytes, each a character: telnet's commands are no UTF-8. */
async function openTelnet() {
  const client = await Client.connect(server);
  client.lines.decoder = new TextDecoder("latin1");
  return Object.assign(client, {
    type: (keys: string) => client.send(Buffer.from(keys, "latin1")),
  });
}

test("Ctrl-C is answered anywhere, a command may come in pieces, and CR ends a line", async () => {
  using room = await openRoom(server);
  using eve = await openTelnet();
  eve.type(ctrlC);
  await eve.line(answer);
  eve.type("\xff\xfd\x03\xff\xfb\x18eve\r\n"); // two options
  await eve.line(/^\* welcome eve /);
  eve.type(`half of ${ctrlC}`);
  await eve.lines.count(answer, 2);
  eve.type(`it\r\n${ctrlC}${ctrlC}/nick adam\r\0`);
  await eve.line("* eve is now adam");
  await room.bob.line("* eve is now adam");
  eve.type("be");
  for (const [n, byte] of [..."\xff\xfa\x1f\0P\xff\xf0\xff\xfe\x01\xff\xfd"].entries()) {
    eve.type(byte);
    // What eve's process sends her when it can read the byte, and again when it has done so.
    for (const line of [`can read ${n}`, `has read ${n}`]) {
      room.bob.send(`${line}\n`);
      await eve.line(`bob: ${line}`);
    }
  }
  eve.lines.all.length = 0;
  eve.type("\x06");
  await eve.line(answer);
  eve.type("fore\n");
  await room.bob.line("adam: before");
  expect(room.bob.messages).toEqual(["eve: half of it", "adam: before"]);

  // A line that ends with CR is heard at once, and LF or NUL behind it is no line.
  const ends = ["1\r", "\n2\r", "\x003\r", "4\r", "5\r\0", "6\r\n", "\r7\n"];
  for (const part of [...ends, "8\r9\r\n10\r\x0011\r"]) {
    eve.type(part);
    await room.bob.line(`adam: ${part.match(/\d+/g)!.at(-1)}`);
  }
  const numbers = Array.from({ length: 11 }, (_, n) => `adam: ${n + 1}`);
  expect(room.bob.messages.slice(2)).toEqual(numbers);
});

test("who dies in the middle of a command takes no more along than its line, and nothing is broken", async () => {
  using bob = await Client.connect(server, "bob");
  using eve = await openTelnet();
  eve.type("eve\r\n");
  await eve.line(/^\* welcome eve /);
  eve.type(`lost ${ctrlC}`);
  await eve.line(answer);
  await kill(server, "eve");
  await eve.line("* a line of yours may be lost");
  eve.type(`rest\r${ctrlC}`);
  await eve.lines.count(answer, 2);
  await kill(server, "eve");
  await eve.lines.count(/ took over$/, 2);
  eve.type("\nnext\r\n");
  await bob.line("eve: next");
  expect(bob.messages).toEqual(["eve: next"]);
});
