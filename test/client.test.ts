/** client.ts as a person sees it, in a real terminal, and as a script uses it, in a pipe. */
import { expect, test } from "bun:test";
import { on, once } from "node:events";
import { existsSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { allHave, children, Client, freePort, long, memory, numbered } from "./helpers.ts";
import { root, run, sharedServer, until, within } from "./helpers.ts";
import { Session, squeeze } from "./screen.ts";

const client = [process.execPath, "client.ts"];
const hasty = { PIPECHAT_HASTE: "4" };
const server = await sharedServer();
const bot = [...client, `:${server.port}`, "bot"];
const colour = /\x1b\[[\d;]*m/;

/** The client in a terminal. */
const clientOf = ({ port }: { port: number }, options: string[] = [], env = {}) =>
  new Session([...client, `:${port}`, "ann", ...options], 80, env);

/** The same, connected. */
async function startClient(...args: Parameters<typeof clientOf>): Promise<Session> {
  const session = clientOf(...args);
  await session.shows("welcome ann");
  return session;
}

/** A server of the test's own: what it says is up to the test. */
async function openStage() {
  const listener = createServer({ allowHalfOpen: true });
  const visits = on(listener, "connection");
  await once(listener.listen(0, "127.0.0.1"), "listening");
  return {
    port: (listener.address() as AddressInfo).port,
    /** Waits for the next client. */
    async meet(greeting = "") {
      const { value } = await within(visits.next(), "a client");
      const socket = (value as [Socket])[0].setEncoding("utf8").on("error", () => {});
      let heard = "";
      socket.on("data", (text) => (heard += text)).write(greeting);
      const seen = () => heard;
      const hears = (all: string) => until(() => heard === all, "what is sent", seen);
      return { socket, hears };
    },
    [Symbol.dispose]: () => void listener.close(),
  };
}

const line = "a line that is long, with 你好 in it, and is still being typed ".repeat(2).trim();
const full = "0123456789".repeat(16).slice("> ".length); // fills its rows

test("what comes appears above the line being typed, which flows with the window", async () => {
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server);
  const talk = () => squeeze(ann.screen.text).replace(/\d\d:\d\d/g, "");
  for (const [what, typed] of Object.entries({ long: line, full })) {
    ann.type(typed.slice(0, -1));
    await ann.ends(`> ${typed.slice(0, -1)}`);
    ann.type(typed.slice(-1));
    await ann.ends(`> ${typed}`);
    bob.send(`${what} 1\n${what} 2\n`);
    await ann.shows(new RegExp(`bob: ${what} 1\n.*bob: ${what} 2\n> `));
    for (const columns of [40, 100, 20, 80]) {
      const before = ann.raw.length;
      ann.resize(columns);
      await ann.until(() => ann.raw.length > before, "its redrawing");
      bob.send(`${what} ${columns}\n`);
      await ann.shows(`bob: ${what} ${columns}`);
      await ann.ends(`> ${typed}`);
    }
    ann.type("\x01\x1b[C\x1b[C"); // in the middle of the line, too
    await ann.until(() => ann.screen.cursor.column === 4, "the cursor");
    bob.send(`${what} more\n`);
    await ann.shows(`bob: ${what} more`);
    await ann.until(() => ann.screen.cursor.column === 4, "the cursor");
    ann.type("X\r");
    const said = `${typed.slice(0, 2)}X${typed.slice(2)}`;
    await bob.line(`ann: ${said}`);
    await ann.until(() => /\n>$/.test(ann.screen.text), "an empty prompt");
    const heard = ["1", "2", "40", "100", "20", "80", "more"].map((text) => `bob:${what}${text}`);
    expect(talk()).toEndWith(`${heard.join("")}you:${squeeze(said)}>`);
  }
  const row = full.slice(0, 80 - "> ".length);
  ann.type(`${row}\rshort\r${row}\r${line}`); // a paste in a terminal that does not mark it
  await ann.ends(`> ${line}`);
  ann.type("\x01so "); // Ctrl-A
  await ann.ends(`> so ${line}`);
  ann.type("\x05\x7f"); // Ctrl-E, Backspace
  const said = [row, "short", row, `so ${line.slice(0, -1)}`];
  await ann.ends(`> ${said.at(-1)}`);
  ann.type("\r");
  await bob.line(`ann: ${said.at(-1)}`);
  await ann.until(() => /\n>$/.test(ann.screen.text), "an empty prompt");
  expect(talk()).toEndWith(`${said.map((text) => `you:${squeeze(text)}`).join("")}>`);
});

/** Text as a terminal sends it when it is pasted. */
const pasted = (text: string) => `\x1b[200~${text}\x1b[201~`;

test("what is pasted is text, of which nothing is sent before Enter", async () => {
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server);
  expect(ann.raw).toContain("\x1b[?2004h"); // or the terminal would not mark a paste
  ann.type(pasted("/quit\r/nick eve\n//x\r\n\n\ttab \x1b[31mred\x03\x04\r\r"));
  await ann.ends("> //quit //nick eve ///x tab red");
  ann.type("\x01> \x05"); // before and behind it
  ann.type(`${pasted("/who")}${pasted(" and\n/more")} typed`);
  await ann.ends("> > //quit //nick eve ///x tab red/who and //more typed");
  expect(bob.messages).toEqual([]);
  ann.type("\r");
  const said = ["> //quit", "/nick eve", "//x", "\ttab red/who and", "/more typed"];
  await bob.line("ann: /more typed");
  expect(bob.messages).toEqual(said.map((text) => `ann: ${text}`));
  await ann.ends("you: /more typed >");
  for (const text of said) expect(squeeze(ann.screen.text)).toContain(squeeze(`you: ${text}`));
  ann.type("\x1b[A"); // Up: the history has all of it, which readline draws in its own way
  const again = "> > //quit | //nick eve | ///x | | tab red/who and | //more typed";
  await ann.ends(again);
  bob.send("meanwhile\n");
  await ann.shows(/you: \/more typed\n.*bob: meanwhile\n> > \/\/quit\n/);
  await ann.ends(again);
  ann.type("\x15/wh\x05o\r"); // what is typed is a command still
  await ann.shows("* 2 online:");
  ann.type("\x04");
  expect(await ann.process.exited).toBe(0);
  expect(ann.raw).toEndWith("\x1b[?2004l \r\x1b[J");
});

test("no row of a long line looks like a line of somebody else", async () => {
  using eve = await Client.connect(server, "eve");
  using ann = await startClient(server);
  for (const filler of ["x", " ", "\t", "你", "é"]) {
    const width = filler === "\t" ? 4 : Bun.stringWidth(filler);
    const count = Math.floor((80 - "12:00 eve: ".length) / width);
    for (const forged of ["12:00 bob: hi", "* eve left"])
      for (let n = count - 2; n <= count + 2; n++) eve.send(`${filler.repeat(n)}${forged}\n`);
    eve.send(`after ${filler}.\n`);
    await ann.shows(`after ${filler === "\t" ? "    " : filler}.`);
    const rows = ann.screen.text.split("\n").slice(0, -1);
    const honest = /^\d\d:\d\d (eve:|\* (conn|welc))|^ |^$/;
    expect(rows.filter((row) => !honest.test(row))).toEqual([]);
  }
});

test("Tab completes, a mention rings, names have colours, and the rest is readline's", async () => {
  using bartholomew = await Client.connect(server, "bartholomew");
  // CI and TERM: colours are for the user to choose, not for the rest of the environment.
  using ann = await startClient(server, ["--bell"], { CI: "1", TERM: "" });
  ann.type("/w\t");
  await ann.shows("> /who");
  ann.type("\r");
  await ann.shows("* 2 online:");
  ann.type("bar\t");
  await ann.shows("> bartholomew:");
  ann.type("hi\r");
  await bartholomew.line("ann: bartholomew: hi");
  ann.type("wrong words\x15\x1b[A!\r"); // Ctrl-U, Up
  await bartholomew.line("ann: bartholomew: hi!");
  expect(ann.raw).not.toInclude("\x07");
  bartholomew.send("I mean Ann, not Anna\nnobody\n");
  await ann.shows(": nobody");
  expect(ann.raw).toMatch(/I mean \x1b\[1m\x07Ann\x1b\[22m, not Anna/);
  expect(ann.raw).toMatch(/\x1b\[2m\* welcome ann/);
  const coloured = ann.raw.matchAll(/\x1b\[(38;5;\d+)mbartholomew:\x1b\[39m/g);
  expect(new Set(Array.from(coloured, ([, colour]) => colour)).size).toBe(1);

  ann.type("/nick bartholomew\r/1\r");
  await ann.shows("* no such command: /1"); // which is answered behind all that was said about the name
  expect(ann.screen.text).toContain("* bartholomew is taken, you are bartholomew2");
  expect(ann.screen.text).not.toContain("is now");
  const said = ann.raw.split("you:").length;
  ann.type(`${"x".repeat(4097)}\r`);
  await ann.shows("* not sent: longer than 4096 bytes");
  expect(ann.raw.split("you:").length).toBe(said); // it is not shown as if it were said

  ann.type(`${line}\x1a`); // Ctrl-Z, where no shell could continue it
  // A terminal in the wrong mode would itself show and keep what comes now, up to the end of a line.
  await ann.until(() => /2004l[^]*2004h/.test(ann.raw), "the terminal back in its mode");
  ann.type("!\x7f?\r");
  await bartholomew.line(`bartholomew2: ${line}?`);
  await ann.ends(`you: ${line}? >`);

  ann.process.terminal!.close(); // its window is closed
  await within(ann.process.exited, "the end of a client without a terminal");
  await bartholomew.line(/^\* bartholomew2 left/);
});

test("it leaves with the terminal as it was, an exit code, and all sent and answered", async () => {
  using bob = await Client.connect(server, "bob");
  using stage = await openStage();
  const script = `before=$(stty -g)
    for port in $1 $1 $1 $2; do
      "$0" client.ts ":$port" ann --no-reconnect; echo "exit $?"
      [ "$(stty -g)" = "$before" ] && echo same
    done`;
  const words = [process.execPath, `${server.port}`, `${stage.port}`];
  using shell = new Session(["sh", "-c", script, ...words]);
  const count = async (text: string, times: number) =>
    shell.until(() => shell.raw.split(text).length > times, `${text}, ${times} times`);
  const leave = [`/who\r${line}\x03`, "last words\r\x04", "/quit\r"];
  for (const [n, keys] of leave.entries()) {
    await count("welcome ann", n + 1);
    shell.type(keys);
    await count("exit 0\r\nsame", n + 1);
    await bob.lines.count(/^\* ann left/, n + 1);
    if (n === 0)
      expect(shell.screen.text).toMatch(
        /welcome ann.*\n.*\/who\n.*2 online:\n.*bob .*\n.*ann .*\n.*kill -9 \d+\nexit 0/,
      );
  }
  expect(bob.messages).toEqual(["ann: last words"]);
  const { socket } = await stage.meet("* welcome ann (2 online)\n");
  await count("welcome ann", 4);
  socket.end();
  await shell.shows(/^client.ts: 127.0.0.1:.*\nexit 1\nsame/m); // without a prompt
});

test("whatever a server sends, the terminal gets text, and half a line is shown as one", async () => {
  using stage = await openStage();
  using ann = clientOf(stage, ["--no-color"]);
  const evil = await stage.meet(
    "* welcome ann (\x1b[2J\x1b]52;c;ZXZpbA==\x07\x07\x9b5n\u202e)\nann: \x1b[31mred\r\x08x\nend: en",
  );
  await ann.shows("ann: redx");
  evil.socket.end();
  await ann.shows("end: en (the connection was closed here)");
  expect(ann.raw).not.toMatch(/\x1b\[2J|\x1b\]|\x07|\u009b|\u202e/);
  expect(ann.raw).not.toMatch(colour);
});

test("a lost connection: it says so once, comes back by its last name, and what was typed waits for a reader", async () => {
  using stage = await openStage();
  using ann = clientOf(stage, [], { NO_COLOR: "1" });
  const first = await stage.meet("* welcome ann (2 online)\n* ann is now eve\n");
  await ann.shows("* ann is now eve");
  first.socket.end();
  await ann.shows("* not connected (");
  ann.type("typed while away\r");
  await ann.shows("you: typed while away");
  (await stage.meet()).socket.end();
  const second = await stage.meet("* welcome eve (2 online)\n");
  await second.hears("eve\ntyped while away\n");
  expect(ann.screen.text.match(/not connected/g)).toEqual(["not connected"]);
  second.socket.end();
  await ann.shows(/not connected[^]*not connected/);
  ann.type("for nobody\r");
  await ann.shows("you: for nobody");
  const last = await stage.meet("* welcome eve (1 online), /help lists the commands\n");
  await ann.shows("* nobody else is here: what you typed waits until somebody is");
  await last.hears("eve\n");
  last.socket.write("* bob joined (2 online)\n");
  await last.hears("eve\nfor nobody\n");
  ann.type("and now\r");
  await last.hears("eve\nfor nobody\nand now\n");
  expect(ann.raw).not.toMatch(colour);
});

test("a password is not shown, not in the history, not what was typed before, and sent again", async () => {
  using stage = await openStage();
  using ann = clientOf(stage, [], hasty);
  const { socket, hears } = await stage.meet();
  ann.type("hello\r");
  await ann.shows("* the server has not answered yet: what you type waits");
  await hears("ann\n");
  socket.write("* password:\n");
  await ann.shows("* password:");
  const wrong = "wrong one ".repeat(20); // which takes no rows, for it is not shown
  const before = ann.raw.length;
  ann.type(wrong);
  await ann.until(() => ann.raw.length > before, "its redrawing");
  ann.type("\r");
  await hears(`ann\n${wrong}\n`);
  socket.write("* wrong password, try again:\n");
  await ann.shows(/waits\n.*\* password:\n.*\* wrong password, try again:/);
  ann.type(`${pasted("correct horse\n")}\r`);
  await hears(`ann\n${wrong}\ncorrect horse\n`);
  socket.write("* welcome ann (2 online)\n");
  await hears(`ann\n${wrong}\ncorrect horse\nhello\n`);
  ann.type("\x1b[A!\r"); // Up
  await ann.shows("you: hello!");
  socket.end();
  const again = await stage.meet("* password:\n");
  await again.hears("ann\ncorrect horse\n");
  expect(ann.raw).not.toMatch(/correct|horse|wrong one/);
});

test("Ctrl-Z stops it, also behind a wrapper such as npx, and fg brings its line back", async () => {
  using bob = await Client.connect(server, "bob");
  const env = { BUN: process.execPath, PORT: String(server.port), PS1: "ready: " };
  using shell = new Session(["sh", "-i"], 80, env);
  await shell.ends("ready:");
  shell.type(`sh -c '$BUN client.ts :$PORT ann; exit'\r`);
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

test("in a pipe and a dumb terminal it is plain, and may stay to listen; --quiet prints nothing but errors", async () => {
  using stage = await openStage();
  const listener = run([...client, `:${stage.port}`, "bot", "--listen"], { stdin: "hi\n" });
  const visitor = await stage.meet("* welcome bot (2 online)\n");
  await visitor.hears("bot\nhi\n");
  using bob = await Client.connect(server, "bob");
  const done = await run([...bot, "--quiet"], { stdin: "done\n/who\n" });
  expect(done).toEqual({ code: 0, stdout: "", stderr: "" });
  await bob.line("bot: done");
  expect(visitor.socket.readableEnded).toBe(false); // it listens still
  visitor.socket.end("bob: still there?\n");
  const stdout = "* welcome bot (2 online)\nbob: still there?\n";
  expect(await listener).toEqual({ code: 0, stdout, stderr: "" });

  using dumb = clientOf(stage, [], { TERM: "dumb" }); // a terminal that can only print lines
  const { socket, hears } = await stage.meet("* welcome ann (2 online)\n");
  dumb.type("hello\r/quit\r");
  await hears("ann\nhello\n/quit\n");
  socket.end("bob: hi\n");
  expect(await dumb.process.exited).toBe(0);
  expect(dumb.raw).toEndWith("\r\nbob: hi\r\n");
  expect(dumb.raw).not.toInclude("\x1b");
});

test("without a name, it takes the login name, or what the environment says, or guest", async () => {
  using stage = await openStage();
  const none = ["env", "-u", "USER", "-u", "LOGNAME"];
  for (const [start, name] of [
    [none, Bun.spawnSync(["id", "-un"]).stdout.toString().trim()],
    [[...none, "PATH=", "LOGNAME=bob"], "bob"], // there is no program `id` either
    [[...none, "PATH="], "guest"],
  ] as const) {
    const done = run([...start, ...client, `:${stage.port}`]);
    const { socket, hears } = await stage.meet();
    await hears(`${name}\n`);
    socket.end();
    await done;
  }
});

test("a pipe longer than the server takes at once arrives whole; an endless one takes no memory", async () => {
  using bob = await Client.connect(server, "bob");
  const start = (script: string) =>
    Bun.spawn(["sh", "-c", script, process.execPath, String(server.port)], {
      cwd: root,
      stdio: ["pipe", "pipe", "pipe"],
    });
  expect((await run(bot, { stdin: numbered(300, 0, long) })).code).toBe(0);
  await allHave([bob], "bot", 300, long);
  const before = bob.received;
  const flood = start(`yes "$(printf %04000d 0)" | "$0" client.ts ":$1" yes; :`);
  await bob.lines.until(() => bob.received > before + 1.4e6, "more lines than are free");
  const [pid] = children(flood.pid).sort((a, b) => memory(b) - memory(a)); // the other one is yes
  expect(memory(pid!)).toBeWithin(1, 100_000_000);
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

test("before a server answers, it gets nothing but the name; with --no-welcome, all at once", async () => {
  using stage = await openStage();
  const input = numbered(2000);
  const bot = Bun.spawn([...client, `:${stage.port}`, "bot"], {
    cwd: root,
    env: { ...process.env, ...hasty },
    stdio: [new TextEncoder().encode(input), "pipe", "pipe"],
  });
  const slow = await stage.meet();
  const { value: warning } = await bot.stderr.getReader().read();
  expect(Buffer.from(warning!).toString()).toMatch(/^client\.ts: no answer yet \(.*\)\n$/);
  await slow.hears("bot\n");
  slow.socket.write("* welcome bot (3 online)\n");
  await slow.hears(`bot\n${input}`);
  slow.socket.end();
  expect(await bot.exited).toBe(0);

  const done = run([...client, `:${stage.port}`, "bot", "--no-welcome"], { stdin: "hi\nthere\n" });
  const foreign = await stage.meet();
  await foreign.hears("bot\nhi\nthere\n");
  foreign.socket.end();
  expect((await done).code).toBe(0);
});

test("each mistake is one line, and an exit code", async () => {
  using stage = await openStage();
  const here = `:${stage.port}`;
  const foreign = "this is not a chat server: it says ";
  for (const [args, code, reason, greeting] of [
    [["a", "b", "c"], 2, "Unexpected argument 'c' (see --help)"],
    [
      ["localhost", "2000"],
      2,
      "the address is one word and comes first: HOST:PORT NAME (see --help)",
    ],
    [["--tls", "--ca", "package.json"], 2, "Invalid CA (see --help)"],
    [["nowhere.invalid"], 1, "nowhere.invalid:2000: there is no host of this name"],
    [[`:${freePort()}`], 1, ": nobody listens there; start a server with `bun server.ts`"],
    [[here], 1, `${foreign}'HTTP/1.1 400 Bad Request'`, "HTTP/1.1 400 Bad Request\r\n\r\n"],
    [[here], 1, `${foreign}'* (too long a line)'`, `${"x".repeat(70_000)}\n* welcome bot\n`],
    [[here], 1, "the connection was closed", "* welcome bot (2 online)\n"], // before it has all
  ] as const) {
    const stdin = numbered(greeting ? 4000 : 1, 0, long);
    const done = run([...client, ...args, "--quiet"], { stdin });
    if (greeting) (await stage.meet(greeting)).socket.pause().end();
    const { stdout, stderr, ...result } = await done;
    expect([result.code, stdout]).toEqual([code, ""]);
    expect(stderr).toMatch(/^client\.ts: [^\n]*\n$/);
    expect(stderr).toEndWith(`${reason}\n`);
  }
});

test.skipIf(!existsSync("/dev/full"))("what cannot be printed is an error", async () => {
  const script = 'echo hi | "$0" client.ts ":$1" bot > /dev/full';
  const result = await run(["sh", "-c", script, process.execPath, String(server.port)]);
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^client\.ts: cannot print .*\n$/);
});
