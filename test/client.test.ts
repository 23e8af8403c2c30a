/** client.ts as a person sees it, in a real terminal, and as a script uses it, in a pipe. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { children, Client, disconnect, freePort, long, memory, numbered } from "./helpers.ts";
import { passwordFile, patience, root, run, sharedServer, startServer } from "./helpers.ts";
import { within } from "./helpers.ts";
import { Session, squeeze } from "./screen.ts";

setDefaultTimeout(2 * patience);

const client = [process.execPath, "client.ts"];
const hasty = { PIPECHAT_HASTE: "4" };
const server = await sharedServer("--rate", "0", "--max-line", "5000");
const slow = await sharedServer("--rate", "500");
const bot = [...client, `:${server.port}`, "bot"];

/** The client in a terminal, connected. */
async function startClient(
  name: string,
  { port = server.port, columns = 80, options = [""] } = {},
) {
  const words = [`:${port}`, name, ...options.filter(Boolean)];
  const session = new Session([...client, ...words], columns);
  await session.shows(`welcome ${name}`);
  return session;
}

/** A server that does with each connection what a test wants. */
async function listen(meet: (socket: Socket) => void) {
  const server = createServer((socket) => meet(socket.on("error", () => {})));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  return { port, [Symbol.dispose]: () => void server.close() };
}

/** A server that says what a test wants it to, and reads nothing from whom it has met. */
async function impostor(greeting: string) {
  const { promise: met, resolve } = Promise.withResolvers<Socket>();
  const listener = await listen((socket) => {
    socket.write(greeting);
    resolve(socket.pause());
  });
  return { ...listener, met };
}

const line = "a line that is long, with 你好 in it, and is still being typed ".repeat(3).trim();

for (const columns of [80, 40]) {
  test(`at ${columns} columns, what comes appears above the line being typed`, async () => {
    using bob = await Client.connect(server, "bob");
    using ann = await startClient("ann", { columns });
    ann.type(line);
    await ann.ends(`> ${line}`);
    const cursor = { ...ann.screen.cursor };
    for (let n = 0; n < 5; n++) bob.send(`message ${n}\n`);
    await ann.shows("bob: message 4");
    await ann.ends(`> ${line}`);
    expect(ann.screen.text).toMatch(
      /message 0\n.*message 1\n.*message 2\n.*message 3\n.*message 4\n> a line/,
    );
    expect(ann.screen.cursor).toEqual({ row: cursor.row + 5, column: cursor.column });
    ann.type("\x01\x1b[C\x1b[C"); // in the middle of the line, too
    await ann.until(() => ann.screen.cursor.column === 4, "the cursor");
    bob.send("one more\n");
    await ann.shows("bob: one more");
    await ann.until(() => ann.screen.cursor.column === 4, "the cursor");
    ann.type("X\r");
    await bob.line(`ann: a X${line.slice(2)}`);
    await ann.until(() => /\n>$/.test(ann.screen.text), "an empty prompt");
    const shown = squeeze(ann.screen.text);
    expect(shown).toContain(squeeze(`you: a X${line.slice(2)}`));
    expect(shown.split(squeeze("is still being typed")).length).toBe(1 + 3); // and nowhere else
  });
}

for (const [what, typed] of [
  ["longer than the window", line],
  ["that fills its rows", "0123456789".repeat(16).slice("> ".length)],
] as const) {
  test(`after a resize, a line ${what} flows with it, and the talk above stays`, async () => {
    using bob = await Client.connect(server, "bob");
    using ann = await startClient("ann");
    ann.type("what I said\r");
    await bob.line("ann: what I said");
    ann.type(typed.slice(0, -1));
    await ann.ends(`> ${typed.slice(0, -1)}`);
    ann.type(typed.slice(-1));
    await ann.ends(`> ${typed}`);
    for (const columns of [40, 100, 20, 80]) {
      const before = ann.raw.length;
      ann.resize(columns);
      await ann.until(() => ann.raw.length > before, "its redrawing");
      bob.send(`at ${columns}\n`);
      await ann.shows(`bob: at ${columns}`);
      await ann.ends(`> ${typed}`);
    }
    const shown = squeeze(ann.screen.text).replace(/\d\d:\d\d/g, "");
    const talk = "you:whatIsaidbob:at40bob:at100bob:at20bob:at80>";
    expect(shown.slice(shown.indexOf("you:"))).toBe(talk + squeeze(typed));
  });
}

test("a paste that fills rows leaves the talk as it is, and no rest of itself", async () => {
  using bob = await Client.connect(server, "bob");
  using ann = await startClient("ann", { columns: 40 });
  const full = "a line that fills a row of the window...".slice(0, 40 - "> ".length);
  ann.type(`${full}\rshort\r${full}\r${line}`);
  await ann.ends(`> ${line}`);
  ann.type("\x01so "); // Ctrl-A
  await ann.ends(`> so ${line}`);
  ann.type("\x05\x7f"); // Ctrl-E, Backspace
  await ann.ends(`> so ${line.slice(0, -1)}`);
  ann.type("\r");
  await bob.line(`ann: so ${line.slice(0, -1)}`);
  await ann.until(() => /\n>$/.test(ann.screen.text), "an empty prompt");
  const shown = squeeze(ann.screen.text);
  const said = [full, "short", full, `so ${line.slice(0, -1)}`];
  const talk = said.map((text) => `you:${squeeze(text)}`).join("");
  expect(shown.slice(shown.indexOf("commands") + 8)).toBe(`${talk}>`);
});

/** Text as a terminal sends it when it is pasted. */
const pasted = (text: string) => `\x1b[200~${text}\x1b[201~`;

test("what is pasted is text, of which nothing is sent before Enter", async () => {
  using bob = await Client.connect(server, "bob");
  using ann = await startClient("ann");
  expect(ann.raw).toContain("\x1b[?2004h"); // or the terminal would not mark a paste
  ann.type(pasted("/quit\r/nick eve\n//x\r\n\n\ttab \x1b[31mred\x03\x04\r\r"));
  await ann.ends("> //quit //nick eve ///x tab red");
  ann.type("\x01> \x05"); // before and behind it
  ann.type(`${pasted("/who")}${pasted(" and\n/more")} typed`);
  await ann.ends("> > //quit //nick eve ///x tab red/who and //more typed");
  expect(bob.messages).toEqual([]);
  ann.type("\r");
  await bob.line("ann: /more typed");
  const said = ["> //quit", "/nick eve", "//x", "\ttab red/who and", "/more typed"];
  expect(bob.messages).toEqual(said.map((text) => `ann: ${text}`));
  await ann.shows("you: /more typed");
  for (const text of said) expect(squeeze(ann.screen.text)).toContain(squeeze(`you: ${text}`));
  await ann.ends(`${said.at(-1)} >`);
  ann.type("\x1b[A"); // Up: the history has all of it, which readline draws in its own way
  await ann.ends("> > //quit | //nick eve | ///x | | tab red/who and | //more typed");
  bob.send("meanwhile\n");
  await ann.shows(/you: \/more typed\n.*bob: meanwhile\n> > \/\/quit\n/);
  await ann.ends("> > //quit | //nick eve | ///x | | tab red/who and | //more typed");
  ann.type("\x15/wh\x05o\r"); // what is typed is a command still
  await ann.shows("* 2 online:");
  ann.type("\x04");
  expect(await ann.process.exited).toBe(0);
  expect(ann.raw).toEndWith("\x1b[?2004l \r\x1b[J");
});

for (const columns of [100, 50]) {
  test(`at ${columns} columns, no row of a long line looks like a line of somebody else`, async () => {
    using eve = await Client.connect(server, "eve");
    using ann = await startClient("ann", { columns });
    const start = columns < 60 ? "eve: " : "12:00 eve: ";
    for (const filler of ["x", " ", "\t", "你", "é"]) {
      const width = filler === "\t" ? 4 : Bun.stringWidth(filler);
      const count = Math.floor((columns - start.length) / width);
      for (const forged of ["12:00 bob: hi", "* eve left"])
        for (let n = count - 2; n <= count + 2; n++) eve.send(`${filler.repeat(n)}${forged}\n`);
      eve.send(`after ${filler}.\n`);
      await ann.shows(`after ${filler === "\t" ? "    " : filler}.`);
      const rows = ann.screen.text.split("\n").slice(0, -1);
      const honest = /^(\d\d:\d\d )?(eve:|\* (conn|welc))|^ |^$/;
      expect(rows.filter((row) => !honest.test(row))).toEqual([]);
    }
  });
}

test("Tab completes commands and names, and history and line editing are readline's", async () => {
  using bartholomew = await Client.connect(server, "bartholomew");
  using ann = await startClient("ann", { options: ["--bell"] });
  ann.type("/w\t");
  await ann.shows("> /who");
  ann.type("\r");
  await ann.shows("* 2 online:");
  expect(ann.raw).not.toInclude("\x07");
  ann.type("bar\t");
  await ann.shows("> bartholomew:");
  ann.type("hi\r");
  await bartholomew.line("ann: bartholomew: hi");
  ann.type("wrong words\x15\x1b[A!\r"); // Ctrl-U, Up
  await bartholomew.line("ann: bartholomew: hi!");
  bartholomew.send("I mean Ann, not Anna\n");
  await ann.shows(": I mean");
  expect(ann.raw).toMatch(/I mean \x1b\[1m\x07?Ann\x1b\[22m, not Anna/); // one's own name stands out
  expect(ann.raw).toInclude("\x07");
});

test("a lost connection: it says so, comes back under its last name, and sends what was typed", async () => {
  using bob = await Client.connect(server, "bob");
  using ann = await startClient("ann");
  ann.type("/nick eve\r");
  await ann.shows("* ann is now eve");
  process.kill(await server.worker("ann"), "SIGKILL");
  await server.log.line(/of eve .* took over$/);
  await disconnect(server, "eve");
  await ann.shows("* not connected (");
  ann.type("typed while away\r");
  await bob.line("eve: typed while away");
  await ann.shows(/not connected[^]*welcome eve /);
  await ann.shows("you: typed while away");
});

for (const [what, keys] of Object.entries({
  "Ctrl-C": "\x03",
  "Ctrl-D": "\x04",
  "/quit": "/quit\r",
  "--no-reconnect and a lost connection": "",
})) {
  test(`${what} leaves with the terminal as it was, and an exit code`, async () => {
    using bob = await Client.connect(server, "bob");
    const script = `before=$(stty -g); "$0" client.ts ":$1" ann --no-reconnect; echo "exit $?"
      [ "$(stty -g)" = "$before" ] && echo same`;
    using shell = new Session(["sh", "-c", script, process.execPath, String(server.port)]);
    await shell.shows("welcome ann");
    if (keys) shell.type(keys);
    else await disconnect(server, "ann");
    await shell.shows(keys ? /^exit 0\nsame/m : /^client.ts: 127.0.0.1:.*\nexit 1\nsame/m); // without a prompt
    await bob.line(/^\* ann left/);
  });
}

test("what was asked before leaving is answered, below what is there", async () => {
  using ann = await startClient("ann");
  ann.type(`/who\r${line}\x03`);
  expect(await ann.process.exited).toBe(0);
  expect(ann.screen.text).toMatch(
    /welcome ann.*\n.*\/who\n.*1 online:\n.*ann \(worker \d+.*\n.*kill -9 \d+$/,
  );
});

test("colours are there in a terminal, stable for a name, and off when they should be", async () => {
  using bob = await Client.connect(server, "bob");
  // CI and TERM: it is for the user to say, not for the rest of the environment.
  using ann = new Session([...client, `:${server.port}`, "ann"], 80, { CI: "1", TERM: "" });
  await ann.shows("welcome ann");
  using plain = await startClient("plain", { options: ["--no-color"] });
  using quiet = new Session([...client, `:${server.port}`, "quiet"], 80, { NO_COLOR: "1" });
  await quiet.shows("welcome quiet");
  bob.send("one\ntwo\n");
  for (const session of [ann, plain, quiet]) await session.shows("bob: two");
  const [one, two] = ["one", "two"].map(
    (text) => new RegExp(`\x1b\\[(38;5;\\d+)mbob:\x1b\\[39m ${text}`).exec(ann.raw)?.[1],
  );
  expect(one).toBeDefined();
  expect(two).toBe(one);
  expect(ann.raw).toMatch(/\x1b\[2m\* welcome ann/);
  for (const session of [plain, quiet]) expect(session.raw).not.toMatch(/\x1b\[[\d;]*m/);
});

test("a dumb terminal gets plain lines", async () => {
  using bob = await Client.connect(server, "bob");
  using ann = new Session([...client, `:${server.port}`, "ann"], 80, { TERM: "dumb" });
  await ann.shows("welcome ann");
  ann.type("hello\r");
  await bob.line("ann: hello");
  bob.send("hi\n");
  await ann.shows(/hello\nbob: hi$/);
  ann.type("/quit\r");
  expect(await ann.process.exited).toBe(0);
  expect(ann.raw).not.toInclude("\x1b");
});

test("whatever a server sends, the terminal gets text, and half a line is shown as one", async () => {
  using evil = await impostor(
    "* welcome ann (\x1b[2J\x1b]52;c;ZXZpbA==\x07\x07\x9b5n\u202e)\nann: \x1b[31mred\r\x08x\nend: en",
  );
  using ann = await startClient("ann", { port: evil.port, options: ["--no-color"] });
  await ann.shows("ann: redx");
  expect(ann.raw).not.toMatch(/\x1b\[2J|\x1b\]|\x07|\u009b|\u202e/);
  (await evil.met).end();
  await ann.shows("end: en (the connection was closed here)");
});

test("what was typed arrives, though its reader is slow and the typist has left", async () => {
  using slow = await impostor("* welcome ann (1 online)\n");
  using ann = await startClient("ann", { port: slow.port });
  const typed = "🦋".repeat(5000);
  ann.type(`${typed}\r${"\x1b[A\r".repeat(249)}`); // Up and Enter say it again: 5 MB, more than the kernel takes
  ann.type("the end\r\x04");
  await ann.until(() => ann.tail.includes("\x1b[?2004l"), "its leave");
  const [said] = await Promise.all([text(await slow.met), ann.process.exited]);
  expect(said === `ann\n${`${typed}\n`.repeat(250)}the end\n`).toBe(true);
});

test("a server that is no chat server is named as such, and nothing is said to an endless line", async () => {
  using web = await impostor("HTTP/1.1 400 Bad Request\r\n\r\n");
  const { code, stderr } = await run([...client, `:${web.port}`, "ann"], { stdin: "hi\n" });
  expect([code, stderr]).toEqual([
    1,
    `client.ts: 127.0.0.1:${web.port}: this is not a chat server: it says 'HTTP/1.1 400 Bad Request'\n`,
  ]);
  using endless = await impostor(`${"x".repeat(70_000)}\n* welcome ann\n`);
  const result = await run([...client, `:${endless.port}`, "ann"], { stdin: "hi\n" });
  expect([result.code, result.stdout]).toEqual([1, ""]);
});

test("in a pipe it is plain, and may stay to listen", async () => {
  using bob = await Client.connect(server, "bob");
  const listener = Bun.spawn([...bot, "--listen"], {
    cwd: root,
    stdin: new TextEncoder().encode("hi\n"),
    stdout: "pipe",
  });
  await bob.line("bot: hi");
  bob.send("still there?\n/quit\n");
  await bob.ended();
  await server.log.line(/: bob left$/);
  await disconnect(server, "bot");
  expect(await listener.exited).toBe(0);
  expect(
    (await listener.stdout.text()).split("\n").filter((line) => !/took over$/.test(line)),
  ).toEqual([
    expect.stringMatching(/^\* welcome bot /),
    "bob: still there?",
    "* bob left",
    "* your process died too often, goodbye",
    "",
  ]);
});

test("without a name, it takes the login name, or what the environment says, or guest", async () => {
  const login = Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
  const none = ["env", "-u", "USER", "-u", "LOGNAME"];
  const stranger = ["setpriv", "--reuid=54321", "--clear-groups"]; // who has no entry in passwd
  const isRoot = process.getuid!() === 0 && Bun.which("setpriv");
  for (const [start, name] of [
    [none, login],
    [[...none, "PATH=", "LOGNAME=bob"], "bob"], // there is no program `id` either
    [[...none, "PATH=", "LOGNAME=bob", "USER=ann"], "ann"],
    [isRoot ? [...none, ...stranger] : [...none, "PATH="], "guest"],
  ] as const) {
    const { stdout } = await run([...start, ...client, `:${server.port}`]);
    expect(stdout).toStartWith(`* welcome ${name} (`);
  }
});

test("a long input in a pipe is delivered whole, at the rate that the server allows", async () => {
  using bob = await Client.connect(slow, "bob");
  const stdin = numbered(1500);
  expect((await run([...client, `:${slow.port}`, "bot"], { stdin })).code).toBe(0);
  await bob.line("* bot left");
  expect(bob.messages.length).toBe(1500);
});

test("endless input and a reader that has gone: no crash, no endless memory", async () => {
  using bob = await Client.connect(slow, "bob");
  const start = (script: string) =>
    Bun.spawn(["sh", "-c", script, process.execPath, String(slow.port)], {
      cwd: root,
      stdio: ["pipe", "pipe", "pipe"],
    });
  const flood = start(`yes | "$0" client.ts ":$1" yes; :`);
  await bob.lines.until(() => bob.messages.length > 1000, "more lines than are free");
  const [pid] = children(flood.pid).sort((a, b) => memory(b) - memory(a)); // the other one is yes
  expect(memory(pid!)).toBeWithin(1, 200_000_000);
  process.kill(pid!, "SIGKILL");
  await flood.exited;

  const head = start(`"$0" client.ts ":$1" head --listen | head -n 1`);
  await bob.line(/^\* head joined/);
  const talking = setInterval(() => bob.send("line\n"), 20); // it notices when it next writes
  expect(await head.exited).toBe(0);
  clearInterval(talking);
  expect(await head.stdout.text()).toMatch(/^\* welcome head [^\n]*\n$/);
  expect(await head.stderr.text()).toBe("");
});

test("each mistake is one line", async () => {
  const cases: [string[], number, RegExp][] = [
    [["a", "b", "c"], 2, /^client\.ts: Unexpected argument 'c' \(see --help\)\n$/],
    [["localhost", "2000"], 2, /^client\.ts: the address is one word and comes first: .*\n$/],
    [["--tls", "--ca", "package.json"], 2, /^client\.ts: Invalid CA \(see --help\)\n$/],
    [["nowhere.invalid"], 1, /^client\.ts: nowhere\.invalid:2000: .+\n$/],
  ];
  for (const [args, code, stderr] of cases) {
    const result = await run([...client, ...args]);
    expect([result.code, result.stdout]).toEqual([code, ""]);
    expect(result.stderr).toMatch(stderr);
  }
});

test("a name that is taken is one line, and a line that is too long is not shown as said", async () => {
  using _bob = await Client.connect(server, "bob");
  using ann = await startClient("ann", { options: ["--no-color"] });
  ann.type("/nick bob\r");
  await ann.shows("* bob is taken, you are bob2");
  for (const n of [1, 2]) {
    ann.type(`/${n}\r`); // which is answered behind all that was said about the name
    await ann.shows(`* no such command: /${n}`);
  }
  expect(ann.screen.text).not.toContain("is now");
  const [over, short] = ["x".repeat(5001), "y".repeat(4500)];
  ann.type(`${over}\r`);
  await ann.shows("* not sent: longer than 5000 bytes");
  ann.type(`${short}\r`);
  await ann.ends("yyy >");
  expect(ann.raw).not.toMatch(/you: x/);
  expect(ann.raw).toMatch(/you: y/); // the client knows now how long a line may be
});

test("to a server that is slow to answer, nothing is sent but the name; then all of it", async () => {
  const met = Promise.withResolvers<Socket>();
  using slow = await listen(met.resolve);
  const bot = Bun.spawn([...client, `:${slow.port}`, "bot"], {
    cwd: root,
    env: { ...process.env, ...hasty },
    stdio: [new TextEncoder().encode(numbered(8000)), "pipe", "pipe"],
  });
  const socket = await met.promise;
  let heard = "";
  socket.on("data", (chunk) => (heard += chunk));
  const { value: warning } = await bot.stderr.getReader().read();
  expect(Buffer.from(warning!).toString()).toMatch(/^client\.ts: no answer yet \(.*\)\n$/);
  expect(heard).toBe("bot\n");
  socket.write("* welcome bot (3 online)\n");
  await once(socket, "end");
  socket.end();
  expect(await bot.exited).toBe(0);
  expect(heard === `bot\n${numbered(8000)}`).toBe(true);
});

test("a server that goes before it has everything is an error", async () => {
  using hasty = await listen((socket) => {
    socket.pause().end("* welcome bot (2 online)\n");
    socket.on("finish", () => setTimeout(() => socket.destroy(), 100));
  });
  const { code, stderr } = await run([...client, `:${hasty.port}`, "bot"], {
    stdin: numbered(4000, 0, long),
  });
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^client\.ts: .* (closed|reset)\n$/)]);
});

test("a server that welcomes nobody gets everything at once, if one says so", async () => {
  const said = Promise.withResolvers<string>();
  using foreign = await listen((socket) => void text(socket).then(said.resolve));
  const { code } = await run([...client, `:${foreign.port}`, "bot", "--no-welcome"], {
    stdin: "hi\nthere\n",
  });
  expect([code, await said.promise]).toEqual([0, "bot\nhi\nthere\n"]);
});

const hash = await passwordFile("open sesame");

test("what was typed to a stopped server is no password", async () => {
  await using careful = await startServer(["--password-file", hash]);
  const env = { PIPECHAT_PASSWORD: "open sesame", ...hasty };
  using bob = new Session([...client, `:${careful.port}`, "bob"], 80, env);
  await bob.shows("welcome bob");
  process.kill(careful.pid, "SIGSTOP");
  using ann = new Session([...client, `:${careful.port}`, "ann"], 80, env);
  await ann.shows("connecting");
  ann.type("hello\r");
  await ann.shows("* the server has not answered yet: what you type waits");
  process.kill(careful.pid, "SIGCONT");
  await bob.shows("ann: hello");
  expect(ann.screen.text).not.toContain("wrong password");
});

test("what was typed while there was no server waits until there is somebody to read it", async () => {
  const port = freePort();
  const args = ["--port", String(port)];
  await using first = await startServer(args);
  using ann = await startClient("ann", { port });
  for (const pid of [first.pid, ...first.workers()]) process.kill(pid, "SIGKILL");
  await ann.shows("not connected");
  ann.type("typed while away\r");
  await ann.shows("you: typed while away");
  await using _second = await startServer(args);
  await ann.shows("* nobody else is here: what you typed waits until somebody is");
  using bob = await Client.connect({ port }, "bob");
  await bob.line("ann: typed while away");
  ann.type("and now\r");
  await bob.line("ann: and now");
  expect(bob.messages).toEqual(["ann: typed while away", "ann: and now"]);
});

test("why there is no connection is told once, however often it tries", async () => {
  const meetings: Socket[] = [];
  const met = Promise.withResolvers<void>();
  using mute = await listen((socket) => {
    if (meetings.push(socket) === 1) socket.write("* welcome ann (2 online)\n");
    else socket.end();
    if (meetings.length === 4) met.resolve();
  });
  using ann = await startClient("ann", { port: mute.port });
  meetings[0]!.end();
  await within(met.promise, "the third attempt", () => meetings.length);
  expect(ann.screen.text.match(/not connected/g)).toEqual(["not connected"]);
});

test.skipIf(!existsSync("/dev/full"))("what cannot be printed is an error", async () => {
  const script = 'echo hi | "$0" client.ts ":$1" bot > /dev/full';
  const result = await run(["sh", "-c", script, process.execPath, String(server.port)]);
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^client\.ts: cannot print .*\n$/);
});

test("--quiet prints nothing but errors", async () => {
  using bob = await Client.connect(server, "bob");
  const done = await run([...bot, "--quiet"], { stdin: "done\n/who\n" });
  expect(done).toEqual({ code: 0, stdout: "", stderr: "" });
  await bob.line("bot: done");
  const failed = await run([...client, "--quiet", `:${freePort()}`], { stdin: "done\n" });
  expect([failed.code, failed.stdout]).toEqual([1, ""]);
  expect(failed.stderr).toEndWith(": nobody listens there; start a server with `bun server.ts`\n");
});

for (const [what, command] of [
  ["", "$BUN client.ts :$PORT ann"],
  [", also behind a wrapper such as npx", `sh -c '$BUN client.ts :$PORT ann; exit'`],
] as const) {
  test(`Ctrl-Z stops it, and fg brings its line and prompt back${what}`, async () => {
    using bob = await Client.connect(server, "bob");
    const env = { BUN: process.execPath, PORT: String(server.port), PS1: "ready: " };
    using shell = new Session(["sh", "-i"], 80, env);
    await shell.ends("ready:");
    shell.type(`${command}\r`);
    await shell.shows("welcome ann");
    shell.type("half a line");
    await shell.ends("> half a line");
    shell.type("\x1a");
    await shell.ends("ready:");
    bob.send("said meanwhile\n");
    shell.type("fg\r");
    await shell.shows("bob: said meanwhile");
    await shell.ends("> half a line");
    shell.type(", and the rest\r");
    await bob.line("ann: half a line, and the rest");
    shell.type("\x04");
    await bob.line("* ann left");
    await shell.ends("ready:");
  });
}

test("Ctrl-Z changes nothing where no shell could continue it", async () => {
  using bob = await Client.connect(server, "bob");
  using ann = await startClient("ann"); // the first process of its terminal
  ann.type(`${line}\x1a`);
  // A terminal in the wrong mode would itself show and keep what comes now, up to the end of a line.
  await ann.until(() => /2004l[^]*2004h/.test(ann.raw), "the terminal back in its mode");
  ann.type("!\x7f?\r");
  await bob.line(`ann: ${line}?`);
  await ann.ends(`you: ${line}? >`);
});
