/** What people who chat rely on: names, commands, and lines that arrive whole and in one order. */
import { expect, test } from "bun:test";
import { allHave, Client, long, numbered, sharedServer, startServer } from "./helpers.ts";
import { testNatively } from "./scenes.ts";

const server = await sharedServer("--rate", "0", "--verbose", "--max-line", "3000");
const join = (name?: string) => Client.connect(server, name);

test("people chat, nobody gets their own line back, and the log tells it with the worker's pid", async () => {
  using ann = await join("ann");
  using bob = await join("bob");
  using ann2 = await join("ann"); // a name is unique; one that begins with another is another
  expect(ann.lines.all[0]).toBe("* welcome ann (1 online), /help lists the commands");
  expect(ann2.lines.all[0]).toBe("* ann is taken, you are ann2");
  bob.send("to both\n");
  await Promise.all([ann.line("bob: to both"), ann2.line("bob: to both")]);
  ann2.send("hi bob\n");
  await Promise.all([ann.line("ann2: hi bob"), bob.line("ann2: hi bob")]);
  await bob.end();
  await Promise.all([ann.line("* bob left"), ann2.line("* bob left")]);
  await bob.ended();
  expect(bob.heard).toEqual(["* ann2 joined (3 online)", "ann2: hi bob"]);
  const pid = await server.worker("bob");
  await server.log.line(`worker ${pid} (127.0.0.1): bob left`);
  expect(server.log.all.filter((line) => line.includes("bob"))).toEqual([
    `worker ${pid} (127.0.0.1): bob joined (2 online)`,
    "bob: to both",
    "ann2: hi bob",
    `worker ${pid} (127.0.0.1): bob left`,
  ]);
});

test("every command answers the one who gave it", async () => {
  using ann = await join("ann");
  using bob = await join("bob");

  ann.send("/who\n");
  await ann.line("* 2 online:");
  const pids = { ann: await server.worker("ann"), bob: await server.worker("bob") };
  const used = "[\\d.]+ (k|M)?B, [\\d.]+ s CPU, \\d+ B up, \\d+ B down\\)";
  await ann.line(new RegExp(`^\\* ann \\(worker ${pids.ann}: ${used}, you$`));
  await ann.line(new RegExp(`^\\* bob \\(worker ${pids.bob}: ${used}$`));
  await ann.line(`* try: kill -9 ${pids.ann}`);

  ann.send("before\n/nick eve\nafter\n");
  await bob.line("eve: after");
  expect(bob.heard).toEqual(["ann: before", "* ann is now eve", "eve: after"]);
  await ann.line("* ann is now eve");

  const name = "😀".repeat(32);
  ann.send(`/nick bob\n/nick\n/nick bob2\n/nick ${name}${name}\n`);
  await ann.line("* bob is taken, you are bob2");
  await ann.line("* usage: /nick NAME");
  await ann.line("* you are bob2 already");
  const cut = "😀".repeat(40);
  await ann.line(`* ${cut}…: a name has at most 32 characters, you are ${name}`);
  await bob.line(`* bob2 is now ${name}`);

  ann.send(`/help\n/dance now\n//dance\n/9j/${"A".repeat(2000)}\n`);
  for (const command of ["/nick NAME", "/who", "/quit", "//text"])
    await ann.line(new RegExp(`^\\* ${command} `));
  await ann.line("* no such command: /dance, try /help");
  await ann.line(`* no such command: /9j/${"A".repeat(37)}…, try /help`);
  await bob.line(`${name}: /dance`);

  ann.send("/quit\nnever said\n");
  await bob.line(`* ${name} left`);
  await ann.ended();
  bob.send("/who\n");
  await bob.line("* 1 online:");
  expect(bob.heard).not.toContain(`${name}: never said`);
});

test("a line is whole however it arrives, or its sender is told that it is too long", async () => {
  using ann = await join("ann");
  using bob = await join("bob");
  for (const byte of Buffer.from("one byte per write, with a 😀 in it\r\n")) {
    ann.send(Uint8Array.of(byte));
    await Bun.sleep(0); // lets the write go out alone
  }
  await bob.line("ann: one byte per write, with a 😀 in it");
  const [fits, over] = ["é".repeat(1500), "o".repeat(3001)];
  ann.send(`${over}\n${fits}\r\n${over}\nLF\n\n\r\ntail`);
  await ann.end();
  await bob.line("* ann left");
  const lines = [fits, "LF", "tail"].map((line) => `ann: ${line}`);
  expect(bob.heard.slice(1)).toEqual([...lines, "* ann left"]);
  await ann.ended();
  expect(ann.heard).toEqual([
    "* bob joined (2 online)",
    ...Array(2).fill("* not sent: longer than 3000 bytes"),
  ]);
});

test("a name, 10,000 lines, a command and a close at once: all of them arrive", async () => {
  using bob = await join("bob");
  using mute = await join();
  await mute.end(); // who closes before sending a name was never there
  await mute.ended();
  using ann = await join();
  const lines = Array.from({ length: 10_000 }, (_, n) => `line ${n} ${"x".repeat(60)}`);
  ann.send(`ann\n${lines.join("\n")}\n/who`); // before a worker has the socket
  await ann.end();
  await ann.line(/^\* ann \(worker/); // who has said everything still gets the answers
  await ann.ended();
  await bob.ends("* ann left");
  const said = lines.map((line) => `ann: ${line}`);
  expect(bob.heard).toEqual(["* ann joined (2 online)", ...said, "* ann left"]);
});

test("five people flood at once: each one's order is kept, and all see the same order", async () => {
  using watcher = await join("watcher");
  const names = ["a", "b", "c", "d", "e"];
  const senders = await Promise.all(names.map(join));
  const behind = await server.worker("watcher");
  process.kill(behind, "SIGSTOP");
  for (const sender of senders) sender.send(numbered(100, 0, long));
  const [first] = senders;
  await first!.lines.until(() => first!.received > 300_000, "more than the kernel holds");
  process.kill(behind, "SIGCONT"); // and nothing overtakes what waits for the watcher
  for (const name of names) await allHave([watcher], name, 100, long);
  for (const [n, sender] of senders.entries()) {
    const others = watcher.messages.filter((line) => !line.startsWith(`${names[n]}: `));
    await sender.lines.until(() => sender.messages.length >= others.length, "the others' lines");
    expect(sender.messages).toEqual(others);
    sender[Symbol.dispose]();
  }
});

test("who has no name hears nothing and is asked for one; an empty line, a command or telnet's talk is none", async () => {
  using bob = await join("bob");
  using mute = await join();
  await mute.line("* your name?");
  bob.send("hello\n/who\n");
  await bob.line("* 1 online:");
  mute.send("/help\n\r\n/who\n");
  await mute.lines.count("* your name first", 2);
  mute.send(Buffer.concat([Buffer.of(255, 253, 3, 255, 251, 24), Buffer.from("John Smith \r\n")]));
  await mute.line("* welcome JohnSmith (2 online: bob), /help lists the commands");
  const [first, told] = [
    "* your name first",
    "* John Smith: no spaces in a name, you are JohnSmith",
  ];
  expect(mute.lines.all.slice(1, -1)).toEqual([first, "* your name?", first, told]);
  expect(bob.messages).toEqual([]);
});

// As Latin-1, é is no UTF-8, and ÿ begins one of telnet's commands.
const pieces = ["a", " ", "~", "\t", "\x7f", "\x1b[1m", "\0", "/", "//", "/who", "é", "ÿ\xf1"]
  .concat("x".repeat(39), "x".repeat(41), "\r", "\r\n", "\n", "\n", "\n")
  .map((text) => Buffer.from(text, "latin1"))
  .concat(Buffer.from("é 猫"));
testNatively(
  "lines that C says by itself are what TypeScript says: the same on both ways",
  async () => {
    const pick = () => pieces[Math.floor(Math.random() * pieces.length)]!;
    const chunks = Array.from({ length: 500 }, (_, n) =>
      Buffer.concat([...Array.from({ length: n % 5 }, pick), Buffer.from("\n.\n")]),
    );
    const heard: string[][] = [];
    for (const env of [{}, { PIPECHAT_PLAIN: "1" }]) {
      await using server = await startServer(["--rate", "0", "--max-line", "40"], { env });
      using bob = await Client.connect(server, "bob");
      using eve = await Client.connect(server, "eve");
      for (const [n, chunk] of chunks.entries()) {
        eve.send(chunk);
        await bob.lines.count("eve: .", n + 1); // so that each is read by itself
      }
      heard.push(bob.messages);
    }
    expect(heard[0]).toEqual(heard[1]!);
  },
);
