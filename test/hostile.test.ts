/** Clients that send or do what may hurt: nobody else notices. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { createConnection } from "node:net";
import {
  Client,
  descriptors,
  patience,
  randomFrom,
  root,
  run,
  startServer,
  testWith,
  unsafe,
  until,
  watchServer,
} from "./helpers.ts";
import { openRoom } from "./scenes.ts";

setDefaultTimeout(2 * patience);

test("who sends no name in time, or only drips, is told and let go", async () => {
  await using server = await startServer(["--join-timeout", "1"]);
  using ann = await Client.connect(server, "ann");
  using mute = await Client.connect(server);
  using drip = await Client.connect(server);
  const dripping = setInterval(() => drip.send("x"), 100);
  for (const client of [mute, drip]) {
    await client.line("* no name within 1 s, goodbye");
    await client.ended();
  }
  clearInterval(dripping);
  ann.send("/who\n");
  await ann.line("* 1 online:");
});

test("in a storm, who sent a name in time is not sent away because the server took its time", async () => {
  await using server = await startServer(["--join-timeout", "1"]);
  const clients = await Promise.all(Array.from({ length: 50 }, () => Client.connect(server)));
  for (const client of clients) client.send("someone\n");
  for (const client of clients) await client.line(/^\* welcome /);
  for (const client of clients) client[Symbol.dispose]();
});

const hostile = {
  "control bytes": ["a\0b\x01\x07\x08\x7fc", "abc"],
  colours: ["\x1b[31;1mred\x1b[0m", "red"],
  "a cleared screen": ["\x1b[2J\x1b[Hboo", "boo"],
  "a hyperlink": ["\x1b]8;;http://evil\x07click\x1b]8;;\x07", "click"],
  "the clipboard": ["\x1b]52;c;ZXZpbA==\x1b\\x", "x"],
  "a device control string": ["\x1bP1$r0m\x1b\\x", "x"],
  "C1 controls": ["\u009b31mred\u0085x", "redx"],
  "a bidirectional override": ["a\u202eb\u2066c\u2069", "abc"],
  "a line separator": ["a\u2028* forged", "a* forged"],
  "a tab": ["a\tb", "a\tb"],
} satisfies Record<string, [string, string]>;

test("nobody's terminal gets more than text, whatever is sent", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const all = Object.values(hostile);
  ann.send(all.map(([sent]) => `${sent}\n`).join(""));
  await bob.lines.until(() => bob.messages.length === all.length, "all lines");
  expect(bob.messages).toEqual(all.map(([, heard]) => `ann: ${heard}`));
});

test("invalid UTF-8 of every kind arrives as replacement characters", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const invalid = [
    [0x80], // a continuation without a beginning
    [0xc3], // a beginning without its continuation
    [0xc0, 0xaf], // overlong
    [0xe0, 0x80, 0x80], // overlong
    [0xed, 0xa0, 0x80], // a surrogate
    [0xf4, 0x90, 0x80, 0x80], // beyond U+10FFFF
    [0xfe], // never; nor is 0xff, with which telnet's commands begin
  ];
  for (const bytes of invalid) ann.send(Uint8Array.of(0x3c, ...bytes, 0x3e, 0x0a));
  ann.send("next\n");
  await bob.line("ann: next");
  expect(bob.messages.length).toBe(invalid.length + 1);
  for (const line of bob.messages.slice(0, -1)) expect(line).toMatch(/^ann: <\ufffd+>$/);
});

test("a megabyte without a newline is refused once, and 100,000 empty lines say nothing", async () => {
  await using room = await openRoom();
  using eve = await Client.connect(room.server, "eve");
  eve.send("x".repeat(1_000_000));
  await eve.line("* not sent: longer than 4096 bytes");
  eve.send("\n".repeat(100_000) + "\r\n\x07\n" + "next\n");
  await room.bob.line("eve: next");
  expect(room.bob.messages).toEqual(["eve: next"]);
  expect(eve.heard).toEqual(["* not sent: longer than 4096 bytes"]);
});

test("2,000 lines of rubbish: what others see is clean, and the next line always works", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  const random = randomFrom(seed);
  const pick = <T>(from: T[]): T => from[Math.floor(random() * from.length)]!;
  await using server = await startServer(["--rate", "0", "--max-line", "500"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const rubbish = [..."\0\t\x07\x1b\x7f\r \u009b\u202e\u2066\ufeff😀é*:[]8;m"]
    .map((text) => Buffer.from(text))
    .concat(
      ["\x1b[", "\x1b]0;", "\x1bP", "\x1b\\", "\x9c", "* ann left"].map((text) =>
        Buffer.from(text),
      ),
    )
    .concat(Array.from({ length: 40 }, () => Buffer.of(0x80 + Math.floor(random() * 128))));
  for (let n = 0; n < 2_000; n++) {
    const length = random() < 0.05 ? 900 : Math.floor(random() * 40);
    const line = Buffer.concat(Array.from({ length }, () => pick(rubbish)));
    // In pieces of any size, and never a command: those are the other tests'.
    ann.send(Buffer.concat([Buffer.from("."), line, Buffer.from(`\nok ${n}\n`)]));
    if (random() < 0.1) await ann.flushed();
  }
  try {
    await bob.line("ann: ok 1999");
    const oks = bob.messages.filter((line) => line.startsWith("ann: ok "));
    expect(oks).toEqual(Array.from({ length: 2_000 }, (_, n) => `ann: ok ${n}`));
    const text = [...bob.lines.all, ...ann.lines.all];
    expect(text.filter((line) => !/^(ann: |\* )/.test(line))).toEqual([]);
    expect(text.filter((line) => unsafe.test(line))).toEqual([]);
  } catch (error) {
    throw new Error(`with SEED=${seed}: ${(error as Error).message}`);
  }
});

test("100 connections at once on 20 places: 20 are served, the others told, the places free again", async () => {
  await using server = await startServer(["--max-clients", "20"]);
  await until(() => server.workers().length === 1, "the spare");
  const before = descriptors(server.pid);
  const clients = await Promise.all(Array.from({ length: 100 }, () => Client.connect(server)));
  for (const client of clients) client.send("someone\n");
  const first = await Promise.all(clients.map((client) => client.line(/^\* (welcome|server)/)));
  expect(first.filter((line) => line.startsWith("* welcome")).length).toBe(20);
  expect(first.filter((line) => line === "* server is full").length).toBe(80);
  for (const client of clients) client[Symbol.dispose]();
  await until(() => server.workers().length === 1, "the end of all but the spare");
  await until(() => descriptors(server.pid) <= before, "their descriptors' end");
  const next = await Promise.all(Array.from({ length: 20 }, () => Client.whenFree(server, "x")));
  for (const client of next) client[Symbol.dispose]();
});

test("connections that are reset while they are refused do no harm", async () => {
  await using server = await startServer(["--max-clients", "1"]);
  using ann = await Client.connect(server, "ann");
  for (let n = 0; n < 100; n++) {
    const refused = createConnection(server.port, "127.0.0.1", () => refused.resetAndDestroy());
    refused.on("error", () => {});
    await new Promise((resolve) => refused.on("close", resolve));
  }
  await ann.end();
  await ann.ended();
  using _bob = await Client.whenFree(server, "bob");
});

testWith(
  "prlimit",
  "a server on Linux that can start no process",
  "util-linux",
)("no process to be had: the client is told, and served when there is one", async () => {
  await using server = await startServer(["--spares", "0"]);
  using ann = await Client.connect(server, "ann");
  const limit = (files: number) =>
    expect(
      Bun.spawnSync(["prlimit", `--nofile=${files}:`, "--pid", String(server.pid)]).exitCode,
    ).toBe(0);
  const used = readdirSync(`/proc/${server.pid}/fd`).map(Number);
  let files = 0;
  for (let free = 0; free < 2; files++) if (!used.includes(files)) free++;
  limit(files); // two are free: one for the connection, too few for a worker
  using eve = await Client.connect(server);
  await eve.line("* no process can be started for you, try again later");
  await eve.ended();
  limit(1024);
  using bob = await Client.connect(server, "bob");
  ann.send("back\n");
  await bob.line("ann: back");
});

test("64 descriptors: the server says so, refuses whom it cannot serve, and goes on", async () => {
  const child = Bun.spawn(
    ["sh", "-c", `ulimit -n 64; exec "$0" server.ts --port 0`, process.execPath],
    {
      cwd: root,
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
  await using server = await watchServer(child);
  await server.log.line(/^only [68] clients at once: .*ulimit -n/);
  for (let round = 0; round < 3; round++) {
    const clients = await Promise.all(
      Array.from({ length: 40 }, () => Client.connect(server).catch(() => null)),
    );
    for (const client of clients) client?.send("x\n");
    for (const client of clients) client?.[Symbol.dispose]();
    await until(
      () => server.workers().length <= 1,
      "free places",
      () => server.workers(),
    );
  }
  using ann = await Client.whenFree(server, "ann");
  using bob = await Client.whenFree(server, "bob");
  ann.send("still here\n");
  await bob.line("ann: still here");
});

test("a web page cannot speak, and the log tells who tried", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  // In a process of its own: after a malformed answer, ours may stop reading the server's log.
  const page = `fetch("http://127.0.0.1:${server.port}/", { method: "POST", body: "hello\\n" })`;
  expect((await run([process.execPath, "-e", `await ${page}`])).stderr).toContain("HTTP");
  await server.log.line("127.0.0.1 was refused: this is a chat server");
  ann.send("/who\n");
  await ann.line("* 1 online:");
  expect(ann.heard.filter((line) => line.includes("POST"))).toEqual([]);
});

test("a name that was sent in time counts, though the server was stopped meanwhile", async () => {
  await using server = await startServer(["--join-timeout", "1"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server);
  await until(() => server.workers().length === 3, "the next spare");
  process.kill(server.pid, "SIGSTOP");
  bob.send("bob\n");
  await Bun.sleep(2500); // longer than the timeout
  process.kill(server.pid, "SIGCONT");
  await bob.line(/^\* welcome bob/);
  await ann.line(/^\* bob joined/);
});

test("who has not joined hears nothing", async () => {
  await using room = await openRoom();
  using mute = await Client.connect(room.server);
  mute.send("x".repeat(5000)); // an answer to that proves that its worker serves it
  await mute.line("* not sent: longer than 4096 bytes");
  await room.talk(100);
  mute.send("\neve\n");
  await mute.line(/^\* welcome eve/);
  expect(mute.lines.all.length).toBe(2);
});
