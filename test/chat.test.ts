/** What people who chat rely on: names, commands, and lines that arrive whole and in one order. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { allHave, Client, long, numbered, patience, sharedServer, startServer } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const server = await sharedServer("--rate", "0", "--verbose");
const join = (name?: string) => Client.connect(server, name);

test("people chat, nobody gets their own line back, and the log tells it with the worker's pid", async () => {
  using ann = await join("ann");
  using bob = await join("bob");
  using eve = await join("eve");
  bob.send("to both\n");
  await Promise.all([ann.line("bob: to both"), eve.line("bob: to both")]);
  ann.send("hi bob\n");
  await bob.line("ann: hi bob");
  await bob.end();
  await Promise.all([ann.line("* bob left"), eve.line("* bob left")]);
  await bob.ended();
  expect(bob.heard).toEqual(["* eve joined (3 online)", "ann: hi bob"]);
  const pid = await server.worker("bob");
  await server.log.line(`worker ${pid} (127.0.0.1): bob left`);
  expect(server.log.all.filter((line) => line.includes("bob"))).toEqual([
    `worker ${pid} (127.0.0.1): bob joined (2 online)`,
    "bob: to both",
    "ann: hi bob",
    `worker ${pid} (127.0.0.1): bob left`,
  ]);
});

test("a name is unique, and its owner is told; one that begins with another is another", async () => {
  using ann = await join("ann");
  using second = await join("ann");
  using third = await join("ann");
  expect(second.lines.all[0]).toBe("* ann is taken, you are ann2");
  expect(third.lines.all[0]).toBe("* ann is taken, you are ann3");
  second.send("x\n");
  await ann.line("ann2: x");
  ann.send("for all\n");
  await Promise.all([second.line("ann: for all"), third.line("ann: for all")]);
});

test("a name that breaks a rule is changed, and its owner is told why", async () => {
  for (const [sent, name, ...told] of [
    ["John Smith ", "JohnSmith", "* John Smith: no spaces in a name, you are JohnSmith"],
    [
      "😀".repeat(41),
      "😀".repeat(32),
      `* ${"😀".repeat(40)}…: a name has at most 32 characters, you are ${"😀".repeat(32)}`,
    ],
    ["\x1b[31mCRLF\r", "CRLF"],
  ] as const) {
    using client = await join(sent);
    const welcome = `* welcome ${name} (1 online), /help lists the commands`;
    expect(client.lines.all).toEqual([...told, welcome]);
    await client.end();
    await client.ended(); // nobody has the name any more
  }
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

  ann.send("/nick bob\n/nick\n/nick bob2\n");
  await ann.line("* bob is taken, you are bob2");
  await ann.line("* usage: /nick NAME");
  await ann.line("* you are bob2 already");
  await bob.line("* eve is now bob2");

  ann.send(`/help\n/dance now\n//dance\n/9j/${"A".repeat(2000)}\n`);
  for (const command of ["/nick NAME", "/who", "/quit", "//text"])
    await ann.line(new RegExp(`^\\* ${command} `));
  await ann.line("* no such command: /dance, try /help");
  await ann.line(`* no such command: /9j/${"A".repeat(37)}…, try /help`);
  await bob.line("bob2: /dance");

  ann.send("/quit\nnever said\n");
  await bob.line("* bob2 left");
  await ann.ended();
  bob.send("/who\n");
  await bob.line("* 1 online:");
  expect(bob.heard).not.toContain("bob2: never said");
});

test("a line is whole however it arrives", async () => {
  using ann = await join("ann");
  using bob = await join("bob");
  for (const byte of Buffer.from("one byte per write, with a 😀 in it\r\n")) {
    ann.send(Uint8Array.of(byte));
    await Bun.sleep(0); // lets the write go out alone
  }
  await bob.line("ann: one byte per write, with a 😀 in it");
  ann.send("CRLF\r\nLF\n\n\r\ntail");
  await bob.line("ann: LF");
  await ann.end();
  await bob.line("* ann left");
  expect(bob.heard.slice(1)).toEqual(["ann: CRLF", "ann: LF", "ann: tail", "* ann left"]);
});

test("a line up to the limit is said; a longer one is not, and its sender is told", async () => {
  await using strict = await startServer(["--max-line", "100"]);
  using ann = await Client.connect(strict, "ann");
  using bob = await Client.connect(strict, "bob");
  const [fits, over] = ["f".repeat(100), "o".repeat(101)];
  ann.send(`${over}\n${fits}\r\n${over}`);
  await ann.line("* not sent: longer than 100 bytes");
  ann.send(`${over}\n${"é".repeat(50)}\n${"é".repeat(51)}\nnext\n`);
  await bob.line("ann: next");
  expect(bob.heard).toEqual([`ann: ${fits}`, `ann: ${"é".repeat(50)}`, "ann: next"]);
  await ann.lines.count("* not sent: longer than 100 bytes", 3);
});

test("10,000 lines and a close at once: all of them arrive", async () => {
  using bob = await join("bob");
  using ann = await join();
  const lines = Array.from({ length: 10_000 }, (_, n) => `line ${n} ${"x".repeat(60)}`);
  ann.send(`ann\n${lines.join("\n")}`); // the last one without its newline
  await ann.end();
  await bob.ends("* ann left");
  expect(bob.messages).toEqual(lines.map((line) => `ann: ${line}`));
});

test("five people flood at once: each one's order is kept, and all see the same order", async () => {
  using watcher = await join("watcher");
  const names = ["a", "b", "c", "d", "e"];
  const senders = await Promise.all(names.map(join));
  const behind = await server.worker("watcher");
  process.kill(behind, "SIGSTOP");
  for (const sender of senders) sender.send(numbered(200, 0, long));
  const [first] = senders;
  await first!.lines.until(() => first!.received > 300_000, "more than the kernel holds");
  process.kill(behind, "SIGCONT"); // and nothing overtakes what waits for the watcher
  for (const name of names) await allHave([watcher], name, 200, long);
  for (const [n, sender] of senders.entries()) {
    const others = watcher.messages.filter((line) => !line.startsWith(`${names[n]}: `));
    await sender.lines.until(() => sender.messages.length >= others.length, "the others' lines");
    expect(sender.messages).toEqual(others);
    sender[Symbol.dispose]();
  }
});

test("who closes before sending a name was never there, and what was sent at once is not lost", async () => {
  using bob = await join("bob");
  using mute = await join();
  await mute.end();
  await mute.ended();
  using ann = await join();
  ann.send("ann\nfirst\n/who"); // before a worker has the socket
  await ann.end();
  await ann.line(/^\* ann \(worker/); // who has said everything still gets the answers
  await ann.ended();
  await bob.line("* ann left");
  expect(bob.heard).toEqual(["* ann joined (2 online)", "ann: first", "* ann left"]);
});

test("a connection that says nothing is asked for its name; a command or telnet's talk is none", async () => {
  using mute = await join();
  await mute.line("* your name?");
  mute.send("/help\n/who\n");
  await mute.lines.count("* your name first", 2);
  mute.send(Buffer.concat([Buffer.of(255, 253, 3, 255, 251, 24), Buffer.from("ann\r\n")]));
  await mute.line(/^\* welcome ann /);
  using bob = await join("bob");
  expect(bob.lines.all.length).toBe(1);
});
