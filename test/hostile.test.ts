/** Clients that send or do what may hurt: nobody else notices. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { Client, descriptors, randomFrom, sharedServer } from "./helpers.ts";
import { run, startServer, testWith, unsafe, until } from "./helpers.ts";
import { isPlain, sharedRoom } from "./scenes.ts";

const impatient = await sharedServer("--join-timeout", "2", "--max-per-address", "2");
const server = await startServer(["--rate", "0", "--max-line", "500"]);
const { ann, bob } = await sharedRoom(server);

test("who sends no name in time, or only drips, is let go; who comes too often is told; and places come back", async () => {
  using mute = await Client.connect(impatient);
  using drip = await Client.connect(impatient);
  using third = await Client.connect(impatient);
  await third.line("* too many connections from your address");
  const dripping = setInterval(() => drip.send("x"), 100);
  for (const client of [mute, drip]) await client.line("* no name within 2 s, goodbye");
  for (const client of [mute, drip, third]) await client.ended();
  clearInterval(dripping);
  await impatient.hasWorkers(1); // so there are places again
  await impatient.log.line("127.0.0.1 was refused: too many connections from your address");
  await impatient.log.count("127.0.0.1 was refused: no name within 2 s, goodbye", 2);
  using _eve = await Client.connect(impatient, "eve");
});

test("an endless line and 2,000 of rubbish: what others see is clean, and the next line always works", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  const { chance, upTo, pick } = randomFrom(seed);
  const sequences = ["\x1b[", "\x1b]0;", "\x1bP", "\x1b\\", "\x9c", "* ann left"];
  const texts = [..."\0\t\x07\x1b\x7f\r \u009b\u202e\u2066\ufeff😀é*:[]8;m", ...sequences];
  const bytes = Array.from({ length: 40 }, () => Buffer.of(128 + upTo(127)));
  const rubbish = [...texts.map((text) => Buffer.from(text)), ...bytes];
  ann.send("\n".repeat(100_000) + "\r\n" + "x".repeat(1_000_000));
  await ann.line("* not sent: longer than 500 bytes"); // as soon as that is sure
  ann.send("\n");
  for (let n = 0; n < 2_000; n++) {
    const line = Array.from({ length: chance(0.05) ? 900 : upTo(40) }, () => pick(rubbish));
    // In pieces of any size, and never a command: those are the other tests'.
    ann.send(Buffer.concat([Buffer.from("."), ...line, Buffer.from(`\nSEED=${seed} ok ${n}\n`)]));
    if (chance(0.1)) await ann.flushed();
  }
  await bob.ends(`ann: SEED=${seed} ok 1999`);
  const oks = bob.messages.filter((line) => line.startsWith("ann: SEED="));
  expect(oks).toEqual(Array.from({ length: 2_000 }, (_, n) => `ann: SEED=${seed} ok ${n}`));
  const text = [...bob.lines.all, ...ann.lines.all];
  const bad = text.filter((line) => !/^(ann: |\* )/.test(line) || unsafe.test(line));
  expect(bad, `with SEED=${seed}`).toEqual([]);
});

test("20 connections on 4 places: 4 are served, the others told, and places come back, however they are left", async () => {
  await using small = await startServer(["--max-clients", "4", "--rate", "20"]);
  await small.hasWorkers(1);
  const before = descriptors(small.pid);
  const clients = await Promise.all(Array.from({ length: 20 }, () => Client.connect(small)));
  for (const client of clients) client.send("someone\n");
  const first = await Promise.all(clients.map((client) => client.line(/^\* (welcome|server)/)));
  expect(first.filter((line) => line.startsWith("* welcome")).length).toBe(4);
  expect(first.filter((line) => line === "* server is full").length).toBe(16);
  for (const client of clients) client[Symbol.dispose]();
  for (let n = 0; n < 20; n++) (await Client.connect(small)).reset();
  if (!isPlain) {
    const eve = await Client.whenFree(small, "eve"); // a plain stream does not notice her reset
    eve.send("x\n".repeat(10_000)); // which would be said for minutes
    await eve.flushed();
    eve.reset();
    await small.log.line(/: eve left$/);
  }
  await small.hasWorkers(1);
  await until(() => descriptors(small.pid) <= before, "their descriptors' end");
  using _bob = await Client.whenFree(small, "bob");
});

const testLimit = testWith("prlimit", "a server on Linux that can start no process", "util-linux");
testLimit("no process to be had: the client is told, and served when there is one", async () => {
  await using bare = await startServer(["--spares", "0"]);
  using ann = await Client.connect(bare, "ann");
  const limit = (files: number) =>
    Bun.spawnSync(["prlimit", `--nofile=${files}:`, "--pid", String(bare.pid)]);
  const used = readdirSync(`/proc/${bare.pid}/fd`).map(Number);
  const free = Array.from({ length: 100 }, (_, n) => n).filter((n) => !used.includes(n));
  limit(free[2]!); // two are free: one for the connection, too few for a worker
  using eve = await Client.connect(bare);
  await eve.line("* no process can be started for you, try again later");
  await eve.ended();
  limit(1024);
  using _bob = await Client.connect(bare, "bob");
  await ann.line("* bob joined (2 online)");
});

test("the fewest descriptors: the server says how many, refuses whom it cannot serve, and goes on", async () => {
  const limited = (files: string) => ["sh", "-c", `ulimit -n ${files}; exec "$@"`, "sh"];
  const tooFew = await run([...limited("20"), process.execPath, "server.ts", "--spares", "3"]);
  const enough = /ulimit -n (\d+)/.exec(tooFew.stderr)![1]!;
  expect(Number(enough)).toBeGreaterThan(20);
  await using poor = await startServer(["--spares", "3"], { before: limited(enough) });
  await poor.log.line(/^only 1 clients at once: .*ulimit -n/);
  const attempts = Array.from({ length: 40 }, () => Client.connect(poor).catch(() => null));
  const clients = await Promise.all(attempts);
  for (const client of clients) client?.send("x\n");
  for (const client of clients) client?.[Symbol.dispose]();
  using ann = await Client.whenFree(poor, "ann");
  await poor.hasWorkers(4);
  using bob = await Client.connect(poor);
  await bob.line("* server is full");
  ann.send("/who\n");
  await ann.line("* 1 online:");
});

test("a stranger's protocol joins nobody, and the log tells who tried", async () => {
  using stranger = await Client.connect(server);
  stranger.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nhello\r\n");
  await stranger.line("* this is a chat server");
  await stranger.ended();
  await server.log.line("127.0.0.1 was refused: this is a chat server");
  expect(bob.heard).toEqual([]);
});
