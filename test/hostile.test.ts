/** Clients that send or do what may hurt: nobody else notices. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { createConnection } from "node:net";
import { Client, descriptors, patience, randomFrom, run, sharedServer } from "./helpers.ts";
import { startServer, testWith, unsafe, until } from "./helpers.ts";
import { openRoom } from "./scenes.ts";

setDefaultTimeout(2 * patience);

const server = await sharedServer("--rate", "0", "--max-line", "500");
const impatient = await sharedServer("--join-timeout", "2");

test("who sends no name in time, or only drips, is told and let go", async () => {
  using ann = await Client.connect(impatient, "ann");
  using mute = await Client.connect(impatient);
  using drip = await Client.connect(impatient);
  const dripping = setInterval(() => drip.send("x"), 100);
  for (const client of [mute, drip]) {
    await client.line("* no name within 2 s, goodbye");
    await client.ended();
  }
  clearInterval(dripping);
  ann.send("/who\n");
  await ann.line("* 1 online:");
});

test("who sent a name in time is not sent away because of a storm, or because the server stopped", async () => {
  using bob = await Client.connect(impatient);
  await impatient.hasWorkers(2); // one of which serves him
  process.kill(impatient.pid, "SIGSTOP");
  const clients = await Promise.all(Array.from({ length: 30 }, () => Client.connect(impatient)));
  for (const client of [bob, ...clients]) client.send("someone\n");
  await Bun.sleep(700); // longer than the timeout
  process.kill(impatient.pid, "SIGCONT");
  for (const client of [bob, ...clients]) await client.line(/^\* welcome /);
  for (const client of clients) client[Symbol.dispose]();
});

const hostile = {
  "control bytes": ["a\0b\x01\x07\x08\x7fc", "abc"],
  "a cleared screen": ["\x1b[2J\x1b[Hboo", "boo"],
  "the clipboard": ["\x1b]52;c;ZXZpbA==\x1b\\x", "x"],
  "C1 controls": ["\u009b31mred\u0085x", "redx"],
  "a bidirectional override": ["a\u202eb\u2066c\u2069", "abc"],
  "a line separator": ["a\u2028* forged", "a* forged"],
  "a tab": ["a\tb", "a\tb"],
} satisfies Record<string, [string, string]>;

test("nobody's terminal gets more than text, whatever is sent", async () => {
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const all = Object.values(hostile);
  ann.send(all.map(([sent]) => `${sent}\n`).join(""));
  await bob.lines.until(() => bob.messages.length === all.length, "all lines");
  expect(bob.messages).toEqual(all.map(([, heard]) => `ann: ${heard}`));
});

test("invalid UTF-8 of every kind arrives as replacement characters", async () => {
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
  using bob = await Client.connect(server, "bob");
  using eve = await Client.connect(server, "eve");
  eve.send("x".repeat(1_000_000));
  await eve.line("* not sent: longer than 500 bytes");
  eve.send("\n".repeat(100_000) + "\r\n\x07\n" + "next\n");
  await bob.line("eve: next");
  expect(bob.messages).toEqual(["eve: next"]);
  expect(eve.heard).toEqual(["* not sent: longer than 500 bytes"]);
});

test("2,000 lines of rubbish: what others see is clean, and the next line always works", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  const { random, pick } = randomFrom(seed);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const sequences = ["\x1b[", "\x1b]0;", "\x1bP", "\x1b\\", "\x9c", "* ann left"];
  const rubbish = [..."\0\t\x07\x1b\x7f\r \u009b\u202e\u2066\ufeff😀é*:[]8;m", ...sequences]
    .map((text) => Buffer.from(text))
    .concat(Array.from({ length: 40 }, () => Buffer.of(0x80 + Math.floor(random() * 128))));
  for (let n = 0; n < 2_000; n++) {
    const length = random() < 0.05 ? 900 : Math.floor(random() * 40);
    const line = Buffer.concat(Array.from({ length }, () => pick(rubbish)));
    // In pieces of any size, and never a command: those are the other tests'.
    ann.send(Buffer.concat([Buffer.from("."), line, Buffer.from(`\nok ${n}\n`)]));
    if (random() < 0.1) await ann.flushed();
  }
  try {
    await bob.ends("ann: ok 1999");
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
  await using small = await startServer(["--max-clients", "20"]);
  await small.hasWorkers(1);
  const before = descriptors(small.pid);
  const clients = await Promise.all(Array.from({ length: 100 }, () => Client.connect(small)));
  for (const client of clients) client.send("someone\n");
  const first = await Promise.all(clients.map((client) => client.line(/^\* (welcome|server)/)));
  expect(first.filter((line) => line.startsWith("* welcome")).length).toBe(20);
  expect(first.filter((line) => line === "* server is full").length).toBe(80);
  for (const client of clients) client[Symbol.dispose]();
  for (let n = 0; n < 50; n++) {
    const refused = createConnection(small.port, "127.0.0.1", () => refused.resetAndDestroy());
    refused.on("error", () => {});
    await new Promise((resolve) => refused.on("close", resolve));
  }
  await small.hasWorkers(1);
  await until(() => descriptors(small.pid) <= before, "their descriptors' end");
  using _ann = await Client.connect(small, "ann");
});

testWith(
  "prlimit",
  "a server on Linux that can start no process",
  "util-linux",
)("no process to be had: the client is told, and served when there is one", async () => {
  await using bare = await startServer(["--spares", "0"]);
  using ann = await Client.connect(bare, "ann");
  const limit = (files: number) => {
    const command = ["prlimit", `--nofile=${files}:`, "--pid", String(bare.pid)];
    expect(Bun.spawnSync(command).exitCode).toBe(0);
  };
  const used = readdirSync(`/proc/${bare.pid}/fd`).map(Number);
  let files = 0;
  for (let free = 0; free < 2; files++) if (!used.includes(files)) free++;
  limit(files); // two are free: one for the connection, too few for a worker
  using eve = await Client.connect(bare);
  await eve.line("* no process can be started for you, try again later");
  await eve.ended();
  limit(1024);
  using bob = await Client.connect(bare, "bob");
  ann.send("back\n");
  await bob.line("ann: back");
});

test("64 descriptors: the server says so, refuses whom it cannot serve, and goes on", async () => {
  await using poor = await startServer([], {
    before: ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"],
  });
  await poor.log.line(/^only [568] clients at once: .*ulimit -n/);
  for (let round = 0; round < 2; round++) {
    const attempts = Array.from({ length: 40 }, () => Client.connect(poor).catch(() => null));
    const clients = await Promise.all(attempts);
    for (const client of clients) client?.send("x\n");
    for (const client of clients) client?.[Symbol.dispose]();
    const workers = () => poor.workers();
    await until(() => workers().length <= 1, "free places", workers);
  }
  using ann = await Client.whenFree(poor, "ann");
  using bob = await Client.whenFree(poor, "bob");
  ann.send("still here\n");
  await bob.line("ann: still here");
});

test("lines that nobody waits for keep no place for long, however slowly they may be said", async () => {
  await using small = await startServer(["--rate", "20", "--max-clients", "1"]);
  const eve = await Client.connect(small, "eve");
  eve.send("x\n".repeat(10_000));
  await eve.flushed();
  eve.reset();
  (await Client.whenFree(small, "bob"))[Symbol.dispose]();
});

test("strangers' protocols join nobody, and the log tells who tried", async () => {
  using ann = await Client.connect(server, "ann");
  // In a process of its own: after a malformed answer, ours may stop reading the server's log.
  const page = `fetch("http://127.0.0.1:${server.port}/", { method: "POST", body: "hello\\n" })`;
  expect((await run([process.execPath, "-e", `await ${page}`])).stderr).toContain("HTTP");
  await server.log.line("127.0.0.1 was refused: this is a chat server");
  using ssh = await Client.connect(server);
  ssh.send("SSH-2.0-OpenSSH_9.2p1\r\n");
  await ssh.line("* this is a chat server");
  await ssh.ended();
  using bob = await Client.connect(server);
  bob.send("\r\n");
  await bob.line("* your name?"); // whoever sends an empty line is asked again
  bob.send("bob\n");
  await ann.line("* bob joined (2 online)");
  expect(ann.heard).toEqual(["* bob joined (2 online)"]);
});

test("who has not joined hears nothing", async () => {
  using room = await openRoom(server);
  using mute = await Client.connect(server);
  mute.send("x".repeat(5000)); // an answer to that proves that its worker serves it
  await mute.line("* not sent: longer than 500 bytes");
  room.ann.send("hello\n");
  await room.bob.line("ann: hello");
  mute.send("\neve\n");
  await mute.line(/^\* welcome eve/);
  expect(mute.lines.all.length).toBe(2);
});
