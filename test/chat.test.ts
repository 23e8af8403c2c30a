import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Client, patience, root, run, startServer, until, watchServer } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;

test("two people chat, and nobody gets their own line back", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  await ann.line("* bob joined (2 online)");
  ann.send("hello\n");
  await bob.line("ann: hello");
  bob.send("hi ann\n");
  await ann.line("bob: hi ann");
  expect(ann.heard).toEqual(["* bob joined (2 online)", "bob: hi ann"]);
  expect(bob.heard).toEqual(["ann: hello"]);
});

test("three people chat, one leaves, and the log tells it with the workers' pids", async () => {
  await using server = await startServer(["--verbose"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  using eve = await Client.connect(server, "eve");
  bob.send("to both\n");
  await Promise.all([ann.line("bob: to both"), eve.line("bob: to both")]);
  await bob.end();
  await Promise.all([ann.line("* bob left"), eve.line("* bob left")]);
  await bob.ended();
  const pid = await server.worker("bob");
  const logged = () => server.log.all.filter((line) => line.includes("bob"));
  await until(() => logged().length >= 3, "the log's lines", logged);
  expect(logged()).toEqual([
    `worker ${pid} (127.0.0.1): bob joined (2 online)`,
    "bob: to both",
    `worker ${pid} (127.0.0.1): bob left`,
  ]);
});

test("a name is unique, and its owner is told", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  using second = await Client.connect(server, "ann");
  using third = await Client.connect(server, "ann");
  expect(second.lines.all[0]).toBe("* ann is taken, you are ann2");
  expect(third.lines.all[0]).toBe("* ann is taken, you are ann3");
  second.send("x\n");
  await ann.line("ann2: x");
  // A name that begins with another is a name of its own.
  ann.send("for all\n");
  await Promise.all([second.line("ann: for all"), third.line("ann: for all")]);
});

const invisible = "only visible characters in a name";

const names: [sent: string, name: string, broken: string][] = [
  [":*", "guest", ":*: no ':' in a name"],
  ["**ann", "ann", "**ann: no '*' at the beginning of a name"],
  ["John Smith ", "JohnSmith", "John Smith: no spaces in a name"],
  ["a:n n*", "ann*", "a:n n*: no spaces in a name"],
  ["\x1b[31mred\x07", "red", ""],
  ["in\u200bvis\u202eible", "invisible", `in\u200bvisible: ${invisible}`],
  ["x".repeat(100), "x".repeat(32), `${"x".repeat(40)}…: a name has at most 32 characters`],
  ["😀".repeat(41), "😀".repeat(32), `${"😀".repeat(40)}…: a name has at most 32 characters`],
  ["жанна", "жанна", ""],
  [" e\u0301", "é", ""],
  ["e\u200b\u0301", "é", `e\u200b\u0301: ${invisible}`],
  ["\u2800\u0301ann", "ann", `\u2800\u0301ann: ${invisible}`],
  ["CRLF\r", "CRLF", ""],
];

test("a name that breaks a rule is changed, and its owner is told why", async () => {
  await using server = await startServer();
  for (const [sent, name, broken] of names) {
    using client = await Client.connect(server, sent);
    expect(client.lines.all).toEqual([
      ...(broken ? [`* ${broken}, you are ${name}`] : []),
      `* welcome ${name} (1 online), /help lists the commands`,
    ]);
    await client.end();
    await client.ended(); // nobody has the name any more
  }
});

test("a long name that is taken keeps its length", async () => {
  await using server = await startServer();
  using _ann = await Client.connect(server, "x".repeat(32));
  using second = await Client.connect(server, "x".repeat(32));
  await second.line(new RegExp(`welcome ${"x".repeat(31)}2 `));
});

test("every command answers the one who gave it", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");

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

  ann.send("/help\n/dance now\n//dance\n");
  for (const command of ["/nick NAME", "/who", "/quit", "//text"])
    await ann.line(new RegExp(`^\\* ${command} `));
  await ann.line("* no such command: /dance, try /help");
  await bob.line("bob2: /dance");

  ann.send("/quit\nnever said\n");
  await bob.line("* bob2 left");
  await ann.ended();
  bob.send("/who\n");
  await bob.line("* 1 online:");
  expect(bob.heard).not.toContain("bob2: never said");
});

test("a line is whole however it arrives", async () => {
  await using server = await startServer(["--rate", "0"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  for (const byte of Buffer.from("one byte per write, with a 😀 in it\r\n")) {
    ann.send(Uint8Array.of(byte));
    await Bun.sleep(0); // lets the write go out alone
  }
  await bob.line("ann: one byte per write, with a 😀 in it");
  const smile = Buffer.from("😀😀\n");
  ann.send(smile.subarray(0, 2));
  await ann.flushed();
  ann.send("");
  ann.send(smile.subarray(2));
  await bob.line("ann: 😀😀");
  ann.send("CRLF\r\nLF\n\n\r\ntail");
  await bob.line("ann: LF");
  await ann.end();
  await bob.line("* ann left");
  expect(bob.heard.slice(2)).toEqual(["ann: CRLF", "ann: LF", "ann: tail", "* ann left"]);
});

test("a line up to the limit is said; a longer one is not, and its sender is told", async () => {
  await using server = await startServer(["--max-line", "100"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const [fits, over] = ["f".repeat(100), "o".repeat(101)];
  ann.send(`${over}\n${fits}\r\n${over}`);
  await ann.line("* not sent: longer than 100 bytes");
  ann.send(`${over}\n${"é".repeat(50)}\n${"é".repeat(51)}\nnext\n`);
  await bob.line("ann: next");
  expect(bob.heard).toEqual([`ann: ${fits}`, `ann: ${"é".repeat(50)}`, "ann: next"]);
  await ann.lines.count("* not sent: longer than 100 bytes", 3);
});

test("10,000 lines and a close at once: all of them arrive", async () => {
  await using server = await startServer(["--rate", "0"]);
  using bob = await Client.connect(server, "bob");
  using ann = await Client.connect(server);
  const lines = Array.from({ length: 10_000 }, (_, n) => `line ${n} ${"x".repeat(60)}`);
  ann.send(`ann\n${lines.join("\n")}`); // the last one without its newline
  await ann.end();
  await bob.line("* ann left");
  expect(bob.messages).toEqual(lines.map((line) => `ann: ${line}`));
});

test("five people at once: each one's order is kept, and all see the same order", async () => {
  await using server = await startServer(["--rate", "0"]);
  using watcher = await Client.connect(server, "watcher");
  using second = await Client.connect(server, "second");
  const names = ["a", "b", "c", "d", "e"];
  const senders = await Promise.all(names.map((name) => Client.connect(server, name)));
  for (const sender of senders)
    sender.send(Array.from({ length: 200 }, (_, n) => `${n}\n`).join(""));
  const all = [watcher, second, ...senders];
  await Promise.all(
    all.map((client) => {
      const count = senders.includes(client) ? 800 : 1000;
      return client.lines.until(() => client.messages.length >= count, `${count} lines`);
    }),
  );
  for (const name of names) {
    const said = watcher.messages.filter((line) => line.startsWith(`${name}: `));
    expect(said).toEqual(Array.from({ length: 200 }, (_, n) => `${name}: ${n}`));
  }
  expect(second.messages).toEqual(watcher.messages);
  senders.forEach((sender, n) => {
    const others = watcher.messages.filter((line) => !line.startsWith(`${names[n]}: `));
    expect(sender.messages).toEqual(others);
    sender[Symbol.dispose]();
  });
});

test("what is sent before the worker has the socket is not lost", async () => {
  await using server = await startServer(["--spares", "0"]); // the worker must start first
  using bob = await Client.connect(server, "bob");
  using ann = await Client.connect(server);
  ann.send("ann\nfirst\nsecond\n");
  await bob.line("ann: second");
  expect(bob.messages).toEqual(["ann: first", "ann: second"]);
});

test("who closes before sending a name was never there", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  const mute = await Client.connect(server);
  await mute.end();
  await mute.ended();
  using _eve = await Client.connect(server, "eve");
  await bob.line("* eve joined (2 online)");
  expect(bob.heard).toEqual(["* eve joined (2 online)"]);
});

test("who has said everything still gets the answers", async () => {
  await using server = await startServer();
  using client = await Client.connect(server);
  client.send("ann\n/who");
  await client.end();
  await client.line("* 1 online:");
  await client.line(/^\* ann \(worker/);
  await client.ended();
});

test("the server works from any working directory, and its spare is taken and replaced", async () => {
  const started = Bun.spawn([bun, join(root, "server.ts"), "--port", "0"], {
    cwd: tmpdir(),
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await watchServer(started);
  await until(
    () => server.workers().length === 1,
    "a spare",
    () => server.workers(),
  );
  const spares = server.workers();
  using _ann = await Client.connect(server, "ann");
  expect([await server.worker("ann")]).toEqual(spares);
  await until(
    () => server.workers().length === 2,
    "another spare",
    () => server.workers(),
  );
});

test.each([
  [["--nonsense"], "server.ts: Unknown option '--nonsense' (see --help)\n"],
  [["nonsense"], "server.ts: Unexpected argument 'nonsense' (see --help)\n"],
  [["--port"], "server.ts: Option '--port <value>' argument missing (see --help)\n"],
  [
    ["--port", "65536"],
    "server.ts: --port takes a whole number from 0 to 65535, not '65536' (see --help)\n",
  ],
  [
    ["--rate", "fast"],
    "server.ts: --rate takes a whole number from 0 to 1073741824, not 'fast' (see --help)\n",
  ],
  [
    ["--max-clients", "0"],
    "server.ts: --max-clients takes a whole number from 1 to 1073741824, not '0' (see --help)\n",
  ],
])("the options %j are refused in one line", async (args, stderr) => {
  expect(await run([bun, "server.ts", ...args])).toEqual({ code: 2, stdout: "", stderr });
});

test("a port that is taken is one clear line", async () => {
  await using server = await startServer();
  expect(await run([bun, "server.ts", "--port", String(server.port)])).toEqual({
    code: 1,
    stdout: "",
    stderr: `server.ts: port ${server.port} is taken: stop what uses it, or choose another with --port\n`,
  });
});

test("--help fits a screen", async () => {
  const { code, stdout } = await run([bun, "server.ts", "--help"]);
  expect(code).toBe(0);
  const lines = stdout.split("\n");
  expect(lines.length).toBeLessThanOrEqual(24);
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
});

test("client.ts in a pipe delivers what it gets and ends", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  const bot = await run([bun, "client.ts", `localhost:${server.port}`, "bot"], {
    stdin: "hi\n/who\n",
  });
  await ann.line("* bot left");
  expect(ann.heard).toEqual(["* bot joined (2 online)", "bot: hi", "* bot left"]);
  expect(bot.stdout).toStartWith(
    "* welcome bot (2 online: ann), /help lists the commands\n* 2 online:\n",
  );
  expect([bot.code, bot.stderr]).toEqual([0, ""]);
});

test("client.ts says in one line that there is no server", async () => {
  const port = await startServer().then(async (server) => {
    await server.stop();
    return server.port;
  });
  const { code, stdout, stderr } = await run([bun, "client.ts", `127.0.0.1:${port}`, "ann"]);
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toMatch(/^client\.ts: .*127\.0\.0\.1:\d+.*\n$/);
});

test("a connection that says nothing is asked for its name; one that does is not", async () => {
  await using server = await startServer();
  using mute = await Client.connect(server);
  await mute.line("* your name?");
  mute.send("ann\n");
  await mute.line(/^\* welcome ann/);
  using bob = await Client.connect(server, "bob");
  expect(bob.lines.all.length).toBe(1);
});

test("a command is no name", async () => {
  await using server = await startServer();
  using client = await Client.connect(server);
  client.send("/help\n/who\nann\n");
  await client.line(/^\* welcome ann/);
  expect(client.lines.all.slice(0, 2)).toEqual(["* your name first", "* your name first"]);
});

test("what telnet negotiates is no part of the name", async () => {
  await using server = await startServer();
  using client = await Client.connect(server);
  client.send(Buffer.concat([Buffer.of(255, 253, 3, 255, 251, 24), Buffer.from("ann\r\n")]));
  await client.line(/^\* welcome ann /);
});

test("a long line that begins with / is answered, cut short", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  ann.send(`/9j/${"A".repeat(2000)}\n/who\n`);
  await ann.line(`* no such command: /9j/${"A".repeat(37)}…, try /help`);
  await ann.line("* 1 online:");
});

test.each([
  [["--room", "attic"], 2, "--room goes with --redis (see --help)"],
  [
    ["--redis", "redis://[::1"],
    2,
    "--redis takes a URL, such as redis://127.0.0.1:6379 (see --help)",
  ],
  [
    ["--password-file", "package.json"],
    1,
    "package.json does not hold what --hash-password prints",
  ],
])("the options %j cannot work, and are refused at the start", async (args, code, reason) => {
  const result = await run([bun, "server.ts", "--port", "0", ...args]);
  expect(result).toEqual({ code, stdout: "", stderr: `server.ts: ${reason}\n` });
});

test("the server needs no shell", async () => {
  const child = Bun.spawn([bun, join(root, "server.ts"), "--port", "0"], {
    env: { PATH: "/nowhere" },
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await watchServer(child);
  using _ann = await Client.connect(server, "ann");
});

test("a compiled server, which has no worker.ts, says so at once", async () => {
  const file = join(mkdtempSync(join(tmpdir(), "pipechat-compiled-")), "server");
  const built = await run([bun, "build", "--compile", "server.ts", "--outfile", file]);
  expect(built.code).toBe(0);
  const { code, stdout, stderr } = await run([file, "--port", "0"]);
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toMatch(/^server: there is no \S+worker\.ts: run it with bun, from its folder\n$/);
  rmSync(dirname(file), { recursive: true });
});
