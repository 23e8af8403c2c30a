/** client.ts as a person sees it, in a real terminal, and as a script uses it, in a pipe. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import {
  children,
  Client,
  disconnect,
  freePort,
  memory,
  numbered,
  patience,
  root,
  run,
  startServer,
  until,
  within,
} from "./helpers.ts";
import { Session, squeeze } from "./screen.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;

async function startClient(
  port: number,
  name: string,
  columns = 80,
  ...options: string[]
): Promise<Session> {
  const session = new Session([bun, "client.ts", `:${port}`, name, ...options], columns);
  await session.shows(`welcome ${name}`);
  return session;
}

const line = "a line that is long, with 你好 in it, and is still being typed ".repeat(3).trim();

for (const columns of [80, 40]) {
  test(`at ${columns} columns, what comes appears above the line being typed`, async () => {
    await using server = await startServer();
    using bob = await Client.connect(server, "bob");
    using ann = await startClient(server.port, "ann", columns);
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
    // In the middle of the line, too.
    ann.type("\x01\x1b[C\x1b[C");
    await until(
      () => ann.screen.cursor.column === 4,
      "the cursor",
      () => ann.screen.cursor,
    );
    bob.send("one more\n");
    await ann.shows("bob: one more");
    await until(
      () => ann.screen.cursor.column === 4,
      "the cursor",
      () => ann.screen.cursor,
    );
    ann.type("X\r");
    await bob.line(`ann: a X${line.slice(2)}`);
    await until(
      () => /\n>$/.test(ann.screen.text),
      "an empty prompt",
      () => ann.screen.text,
    );
    const shown = squeeze(ann.screen.text);
    expect(shown).toContain(squeeze(`you: a X${line.slice(2)}`));
    expect(shown.split(squeeze("is still being typed")).length).toBe(1 + 3); // and nowhere else
  });
}

test("after a resize, the line being typed is still there", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server.port, "ann");
  ann.type("half a line");
  await ann.shows("> half a line");
  ann.resize(60);
  bob.send("first\n");
  await ann.shows("bob: first");
  ann.type(", and the rest\r");
  await bob.line("ann: half a line, and the rest");
  await ann.shows("you: half a line, and the rest");
});

for (const [what, typed] of [
  ["longer than the window", line],
  ["that fills its rows", "0123456789".repeat(16).slice("> ".length)],
] as const) {
  test(`a line ${what} flows with it, and the talk above stays`, async () => {
    await using server = await startServer();
    using bob = await Client.connect(server, "bob");
    using ann = await startClient(server.port, "ann");
    ann.type("what I said\r");
    await bob.line("ann: what I said");
    ann.type(typed.slice(0, -1));
    await ann.ends(`> ${typed.slice(0, -1)}`);
    ann.type(typed.slice(-1));
    await ann.ends(`> ${typed}`);
    for (const columns of [40, 100, 20, 80]) {
      const before = ann.raw.length;
      ann.resize(columns);
      await until(() => ann.raw.length > before, "its redrawing");
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
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server.port, "ann", 40);
  const full = "a line that fills a row of the window...".slice(0, 40 - "> ".length);
  ann.type(`${full}\rshort\r${full}\r${line}`);
  await ann.ends(`> ${line}`);
  ann.type("\x01so "); // Ctrl-A
  await ann.ends(`> so ${line}`);
  ann.type("\x05\x7f"); // Ctrl-E, Backspace
  await ann.ends(`> so ${line.slice(0, -1)}`);
  ann.type("\r");
  await bob.line(`ann: so ${line.slice(0, -1)}`);
  await until(
    () => /\n>$/.test(ann.screen.text),
    "an empty prompt",
    () => ann.screen.text,
  );
  const shown = squeeze(ann.screen.text);
  const talk = [full, "short", full, `so ${line.slice(0, -1)}`].map(
    (said) => `you:${squeeze(said)}`,
  );
  expect(shown.slice(shown.indexOf("commands") + 8)).toBe(`${talk.join("")}>`);
});

/** Text as a terminal sends it when it is pasted. */
const pasted = (text: string) => `\x1b[200~${text}\x1b[201~`;

test("what is pasted is text, of which nothing is sent before Enter", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server.port, "ann");
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
    await using server = await startServer(["--rate", "0"]);
    using eve = await Client.connect(server, "eve");
    using ann = await startClient(server.port, "ann", columns);
    const start = columns < 60 ? "eve: " : "12:00 eve: ";
    for (const filler of ["x", " ", "\t", "你", "é"]) {
      const width = filler === "\t" ? 4 : Bun.stringWidth(filler);
      const count = Math.floor((columns - start.length) / width);
      for (const forged of ["12:00 bob: hi", "* eve left"])
        for (let n = count - 2; n <= count + 2; n++) eve.send(`${filler.repeat(n)}${forged}\n`);
      eve.send(`after ${filler}.\n`);
      await ann.shows(`after ${filler === "\t" ? "    " : filler}.`);
      const rows = ann.screen.text.split("\n").slice(0, -1);
      expect(rows.filter((row) => !/^(\d\d:\d\d )?(eve:|\* (conn|welc))|^ |^$/.test(row))).toEqual(
        [],
      );
    }
  });
}

test("Tab completes commands and the names of those who are there", async () => {
  await using server = await startServer();
  using bartholomew = await Client.connect(server, "bartholomew");
  using ann = await startClient(server.port, "ann");
  bartholomew.send("hello\n");
  await ann.shows("bartholomew: hello");
  ann.type("/w\t");
  await ann.shows("> /who");
  ann.type("\r");
  await ann.shows("* 2 online:");
  ann.type("bar\t");
  await ann.shows("> bartholomew:");
  ann.type("hi\r");
  await bartholomew.line("ann: bartholomew: hi");
});

test("history and line editing are readline's", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server.port, "ann");
  ann.type("first\r");
  await bob.line("ann: first");
  ann.type("wrong words\x15\x1b[A!\r"); // Ctrl-U, Up
  await bob.line("ann: first!");
});

test("a lost connection: it says so, comes back under the same name, and sends what was typed", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server.port, "ann");
  await disconnect(server, "ann");
  await ann.shows("* not connected (");
  ann.type("typed while away\r");
  await bob.line("ann: typed while away");
  await ann.shows(/not connected[^]*welcome ann /);
  await ann.shows("you: typed while away");
});

test("a renamed client comes back under its last name", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server.port, "ann");
  ann.type("/nick eve\r");
  await bob.line("* ann is now eve");
  await ann.shows("* ann is now eve");
  process.kill(await server.worker("ann"), "SIGKILL");
  await server.log.line(/of eve .* took over$/);
  await disconnect(server, "eve");
  await bob.line(/^\* eve joined/);
});

test("--no-reconnect ends with exit code 1 when the connection is lost", async () => {
  await using server = await startServer();
  using ann = await startClient(server.port, "ann", 80, "--no-reconnect");
  await disconnect(server, "ann");
  expect(await ann.process.exited).toBe(1);
  await ann.shows("client.ts: 127.0.0.1:");
});

for (const [what, keys] of Object.entries({
  "Ctrl-C": "\x03",
  "Ctrl-D": "\x04",
  "/quit": "/quit\r",
})) {
  test(`${what} leaves with exit code 0 and the terminal as it was`, async () => {
    await using server = await startServer();
    using bob = await Client.connect(server, "bob");
    const script =
      'before=$(stty -g); "$0" client.ts ":$1" ann; echo "exit $?"; [ "$(stty -g)" = "$before" ] && echo same';
    using shell = new Session(["sh", "-c", script, bun, String(server.port)]);
    await shell.shows("welcome ann");
    shell.type(keys);
    await shell.shows(/^exit 0\nsame/m); // and no prompt is left over
    await bob.line("* ann left");
  });
}

test("what was asked before leaving is answered, below what is there", async () => {
  await using server = await startServer();
  using ann = await startClient(server.port, "ann");
  ann.type(`/who\r${line}\x03`);
  expect(await ann.process.exited).toBe(0);
  expect(ann.screen.text).toMatch(
    /welcome ann.*\n.*\/who\n.*1 online:\n.*ann \(worker \d+.*\n.*kill -9 \d+$/,
  );
});

test("an error leaves the terminal as it was, too", async () => {
  await using server = await startServer();
  const script =
    'before=$(stty -g); "$0" client.ts ":$1" ann --no-reconnect; echo "exit $?"; [ "$(stty -g)" = "$before" ] && echo same';
  using shell = new Session(["sh", "-c", script, bun, String(server.port)]);
  await shell.shows("welcome ann");
  await disconnect(server, "ann");
  await shell.shows(/exit 1\nsame/);
});

test("colours are there in a terminal, stable for a name, and off when they should be", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  // CI and TERM: it is for the user to say, not for the rest of the environment.
  using ann = new Session([bun, "client.ts", `:${server.port}`, "ann"], 80, { CI: "1", TERM: "" });
  await ann.shows("welcome ann");
  using plain = await startClient(server.port, "plain", 80, "--no-color");
  using quiet = new Session([bun, "client.ts", `:${server.port}`, "quiet"], 80, { NO_COLOR: "1" });
  await quiet.shows("welcome quiet");
  bob.send("one\n");
  bob.send("two\n");
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
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using ann = new Session([bun, "client.ts", `:${server.port}`, "ann"], 80, { TERM: "dumb" });
  await ann.shows("welcome ann");
  ann.type("hello\r");
  await bob.line("ann: hello");
  bob.send("hi\n");
  await ann.shows(/hello\nbob: hi$/);
  ann.type("/quit\r");
  expect(await ann.process.exited).toBe(0);
  expect(ann.raw).not.toInclude("\x1b");
});

/** A server that says what a test wants it to, and reads nothing from whom it has met. */
async function impostor(
  greeting: string | Uint8Array,
): Promise<{ port: number; met: Promise<Socket> } & Disposable> {
  const { promise: met, resolve } = Promise.withResolvers<Socket>();
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.write(greeting);
    resolve(socket.pause());
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  return { port, met, [Symbol.dispose]: () => void server.close() };
}

test("whatever a server sends, the terminal gets text", async () => {
  using server = await impostor(
    "* welcome ann (\x1b[2J\x1b]52;c;ZXZpbA==\x07\x07\x9b5n\u202e)\nann: \x1b[31mred\r\x08x\nend: end\n",
  );
  using ann = new Session([bun, "client.ts", `:${server.port}`, "ann", "--no-color"]);
  await ann.shows("end: end");
  await ann.shows("ann: redx");
  expect(ann.raw).not.toMatch(/\x1b\[2J|\x1b\]|\x07|\u009b|\u202e/);
});

test("what was typed arrives, though its reader is slow and the typist has left", async () => {
  using server = await impostor("* welcome ann (1 online)\n");
  using ann = await startClient(server.port, "ann");
  const typed = Array.from({ length: 1500 }, (_, n) => `${"🦋".repeat(750)} ${n}\n`);
  ann.type(typed.join("").replaceAll("\n", "\r"));
  await ann.ends("1499 >");
  ann.type("\x04");
  await ann.ends("1499"); // and no prompt is left: it has read our Ctrl-D
  const [said] = await Promise.all([text(await server.met), ann.process.exited]);
  expect(said === `ann\n${typed.join("")}`).toBe(true);
});

test("a server that is no chat server is named as such", async () => {
  using server = await impostor("HTTP/1.1 400 Bad Request\r\n\r\n");
  using ann = new Session([bun, "client.ts", `:${server.port}`, "ann"]);
  await ann.ends(
    `client.ts: 127.0.0.1:${server.port}: this is not a chat server: it says 'HTTP/1.1 400 Bad Request'`,
  );
  expect(await ann.process.exited).toBe(1);
});

test("nothing is said to a server whose first line is endless", async () => {
  using server = await impostor(`${"x".repeat(70_000)}\n* welcome ann\n`);
  const { code, stdout } = await run([bun, "client.ts", `:${server.port}`, "ann"], {
    stdin: "hi\n",
  });
  expect([code, stdout]).toEqual([1, ""]);
});

test("in a pipe it is plain, and may stay to listen", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  const listener = Bun.spawn([bun, "client.ts", `:${server.port}`, "bot", "--listen"], {
    cwd: root,
    stdin: new TextEncoder().encode("hi\n"),
    stdout: "pipe",
  });
  await bob.line("bot: hi");
  bob.send("still there?\n");
  bob.send("/quit\n");
  await bob.ended();
  await server.stop();
  expect(await listener.exited).toBe(0);
  expect(await listener.stdout.text()).toMatch(
    /^\* welcome bot [^\n]*\nbob: still there\?\n\* bob left\n\* server is shutting down\n$/,
  );
});

test("without a name, it takes the login name, in whatever environment", async () => {
  await using server = await startServer();
  const login = Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
  for (const env of [["-u", "USER", "-u", "LOGNAME"], [`USER=${login}`]]) {
    const { stdout } = await run(["env", ...env, bun, "client.ts", `:${server.port}`]);
    expect(stdout).toStartWith(`* welcome ${login} (`);
  }
});

test("without a login name, it takes what the environment says, or guest", async () => {
  await using server = await startServer();
  const client = [bun, "client.ts", `:${server.port}`];
  const nameless = ["env", "-u", "USER", "-u", "LOGNAME"];
  const stranger = ["setpriv", "--reuid=54321", "--clear-groups"]; // who has no entry in passwd
  const isRoot = process.getuid!() === 0 && Bun.which("setpriv");
  for (const [start, name] of [
    [["PATH="], "guest"], // there is no program `id` either
    [["PATH=", "LOGNAME=bob"], "bob"],
    [["PATH=", "LOGNAME=bob", "USER=ann"], "ann"],
    ...(isRoot ? [[[...stranger], "guest"] as const] : []),
  ] as const) {
    const { stdout } = await run([...nameless, ...start, ...client]);
    expect(stdout).toStartWith(`* welcome ${name} (`);
  }
});

test("one word is what people mean by it: a name, or a port of this machine", async () => {
  await using server = await startServer();
  const port = String(server.port);
  for (const [words, name] of [
    [[port, "ann"], "ann"],
    [[`localhost:${port}`, "localhost"], "localhost"],
  ] as const) {
    const { stdout } = await run([bun, "client.ts", ...words]);
    expect(stdout).toStartWith(`* welcome ${name} (`);
  }
  const asGuest = ["env", "-u", "USER", "-u", "LOGNAME", "PATH=", bun, "client.ts"];
  expect((await run([...asGuest, port])).stdout).toStartWith("* welcome guest (");
  // Whether there is a server at the default address or not, this is where it looks.
  for (const word of ["ann", "Łukasz", "localhost"]) {
    using session = new Session([bun, "client.ts", word]);
    const name = word === "localhost" ? "" : word;
    await session.shows(`connecting to ${name ? "127.0.0.1" : "localhost"}:2000 as ${name}`);
  }
});

test("a long input in a pipe is delivered whole, at the rate that the server allows", async () => {
  await using server = await startServer(["--rate", "2000"]);
  using bob = await Client.connect(server, "bob");
  const { code } = await run([bun, "client.ts", `:${server.port}`, "bot"], {
    stdin: numbered(8000),
  });
  expect(code).toBe(0);
  await bob.line("* bot left");
  expect(bob.messages.length).toBe(8000);
});

test("endless input and a reader that has gone: no crash, no endless memory", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  const flood = Bun.spawn(
    ["sh", "-c", `yes | "$0" client.ts ":$1" yes; :`, bun, String(server.port)],
    {
      cwd: root,
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  await bob.lines.until(() => bob.messages.length > 300, "300 lines");
  const [pid] = children(flood.pid).sort((a, b) => memory(b) - memory(a)); // the other one is yes
  expect(memory(pid!)).toBeGreaterThan(0);
  expect(memory(pid!)).toBeLessThan(200_000_000);
  process.kill(pid!, "SIGKILL");
  await flood.exited;

  const head = Bun.spawn(
    ["sh", "-c", `"$0" client.ts ":$1" head --listen | head -n 1`, bun, String(server.port)],
    { cwd: root, stdin: "pipe", stdout: "pipe", stderr: "pipe" },
  );
  await bob.line(/^\* head joined/);
  const talking = setInterval(() => bob.send("line\n"), 20); // it notices when it next writes
  expect(await head.exited).toBe(0);
  clearInterval(talking);
  expect(await head.stdout.text()).toMatch(/^\* welcome head [^\n]*\n$/);
  expect(await head.stderr.text()).toBe("");
});

test("each mistake is one line", async () => {
  const cases: [string[], number, RegExp][] = [
    [["--nonsense"], 2, /^client\.ts: Unknown option '--nonsense' \(see --help\)\n$/],
    [["a", "b", "c"], 2, /^client\.ts: Unexpected argument 'c' \(see --help\)\n$/],
    [["host:port"], 2, /^client\.ts: 'host:port' is not an address \(see --help\)\n$/],
    [["host:99999"], 2, /^client\.ts: 99999 is not a port \(see --help\)\n$/],
    [["65536"], 2, /^client\.ts: 65536 is not a port \(see --help\)\n$/],
    [["localhost", "2000"], 2, /^client\.ts: the address is one word and comes first: .*\n$/],
    [["ann", ":2000"], 2, /^client\.ts: the address is one word and comes first: .*\n$/],
    [["--tls", "--ca", "package.json"], 2, /^client\.ts: Invalid CA \(see --help\)\n$/],
    [["nowhere.invalid"], 1, /^client\.ts: nowhere\.invalid:2000: .+\n$/],
  ];
  for (const [args, code, stderr] of cases) {
    const result = await run([bun, "client.ts", ...args]);
    expect([result.code, result.stdout]).toEqual([code, ""]);
    expect(result.stderr).toMatch(stderr);
  }
});

test("Tab completes who is here and silent, and one's own name stands out", async () => {
  const met = Promise.withResolvers<Socket>();
  using server = await listen(0, met.resolve);
  const start = (...options: string[]) =>
    new Session([bun, "client.ts", `:${server.port}`, "ann", ...options]);
  using ann = start("--bell");
  const socket = await met.promise;
  socket.write("* welcome ann (2 online: bob), /help lists the commands\nbob2: hi\n");
  await ann.shows("bob2: hi");
  expect(ann.raw).not.toInclude("\x07");
  ann.type("bo\t");
  await ann.ends("> bob");
  socket.write("bob: I mean Ann, not Anna\n");
  await ann.shows("bob: I mean");
  expect(ann.raw).toMatch(/I mean \x1b\[1m\x07?Ann\x1b\[22m, not Anna/);
  expect(ann.raw).toInclude("\x07");
});

test("a name that is taken is one line, and a line that is too long is not shown as said", async () => {
  await using server = await startServer(["--max-line", "5000"]);
  using _bob = await Client.connect(server, "bob");
  using ann = await startClient(server.port, "ann", 80, "--no-color");
  ann.type("/nick bob\r");
  await ann.shows("* bob is taken, you are bob2");
  for (const n of [1, 2]) {
    ann.type(`/${n}\r`); // which is answered behind all that was said about the name
    await ann.shows(`* no such command: /${n}`);
  }
  expect(ann.screen.text).not.toContain("is now");
  const [long, short] = ["x".repeat(5001), "y".repeat(4500)];
  ann.type(`${long}\r`);
  await ann.shows("* not sent: longer than 5000 bytes");
  ann.type(`${short}\r`);
  await ann.ends("yyy >");
  expect(ann.raw).not.toMatch(/you: x/);
  expect(ann.raw).toMatch(/you: y/); // the client knows now how long a line may be
});

test("half a line at the end of a connection is shown as one", async () => {
  using server = await impostor("* welcome ann (2 online)\nbob: do not pay 1");
  using ann = await startClient(server.port, "ann");
  (await server.met).end();
  await ann.shows("bob: do not pay 1 (the connection was closed here)");
});

/** A server that does with each connection what a test wants. */
async function listen(port: number, meet: (socket: Socket) => void) {
  const server = createServer((socket) => meet(socket.on("error", () => {})));
  await once(server.listen(port, "127.0.0.1"), "listening");
  const { port: taken } = server.address() as AddressInfo;
  return { port: taken, [Symbol.dispose]: () => void server.close() };
}

test("to a server that is slow to answer, nothing is sent but the name; then all of it", async () => {
  const met = Promise.withResolvers<Socket>();
  using server = await listen(0, met.resolve);
  const bot = Bun.spawn([bun, "client.ts", `:${server.port}`, "bot"], {
    cwd: root,
    stdio: [new TextEncoder().encode(numbered(8000)), "pipe", "pipe"],
  });
  const socket = await met.promise;
  let heard = "";
  socket.on("data", (chunk) => (heard += chunk));
  const { value: warning } = await bot.stderr.getReader().read();
  expect(Buffer.from(warning!).toString()).toMatch(/^client\.ts: no answer yet \(.*\)\n$/);
  expect(heard).toBe("bot\n");
  socket.pause().write("* welcome bot (3 online)\n");
  await Bun.sleep(2500); // it is slow to read, too
  const ended = once(socket.resume(), "end");
  await ended;
  socket.end();
  expect(await bot.exited).toBe(0);
  expect(heard === `bot\n${numbered(8000)}`).toBe(true);
});

test("a server that goes before it has everything is an error", async () => {
  using server = await listen(0, (socket) => {
    socket.pause().end("* welcome bot (2 online)\n");
    socket.on("finish", () => setTimeout(() => socket.destroy(), 100));
  });
  const { code, stderr } = await run([bun, "client.ts", `:${server.port}`, "bot"], {
    stdin: numbered(80_000),
  });
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^client\.ts: .* (closed|reset)\n$/)]);
});

test("a server that welcomes nobody gets everything at once, if one says so", async () => {
  const said = Promise.withResolvers<string>();
  using server = await listen(0, (socket) => void text(socket).then(said.resolve));
  const { code } = await run([bun, "client.ts", `:${server.port}`, "bot", "--no-welcome"], {
    stdin: "hi\nthere\n",
  });
  expect([code, await said.promise]).toEqual([0, "bot\nhi\nthere\n"]);
});

test("what was typed to a stopped server is no password", async () => {
  const folder = mkdtempSync(join(tmpdir(), "pipechat-client-"));
  writeFileSync(join(folder, "hash"), await Bun.password.hash("open sesame", "argon2id"));
  await using server = await startServer(["--password-file", join(folder, "hash")]);
  const env = { PIPECHAT_PASSWORD: "open sesame" };
  using bob = new Session([bun, "client.ts", `:${server.port}`, "bob"], 80, env);
  await bob.shows("welcome bob");
  process.kill(server.pid, "SIGSTOP");
  using ann = new Session([bun, "client.ts", `:${server.port}`, "ann"], 80, env);
  await ann.shows("connecting");
  ann.type("hello\r");
  await ann.shows("* the server has not answered yet: what you type waits");
  process.kill(server.pid, "SIGCONT");
  await bob.shows("ann: hello");
  expect(ann.screen.text).not.toContain("wrong password");
  rmSync(folder, { recursive: true });
});

test("what was typed while there was no server waits until there is somebody to read it", async () => {
  const port = freePort();
  const args = ["--port", String(port)];
  await using first = await startServer(args);
  using ann = await startClient(port, "ann");
  first.process.kill("SIGKILL");
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
  using server = await listen(0, (socket) => {
    if (meetings.push(socket) === 1) socket.write("* welcome ann (2 online)\n");
    else socket.end();
    if (meetings.length === 5) met.resolve();
  });
  using ann = await startClient(server.port, "ann");
  meetings[0]!.end();
  await within(met.promise, "the fourth attempt", () => meetings.length);
  expect(ann.screen.text.match(/not connected/g)).toEqual(["not connected"]);
});

test.skipIf(!existsSync("/dev/full"))("what cannot be printed is an error", async () => {
  await using server = await startServer();
  const script = 'echo hi | "$0" client.ts ":$1" bot > /dev/full';
  const { code, stderr } = await run(["sh", "-c", script, bun, String(server.port)]);
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^client\.ts: cannot print .*\n$/)]);
});

test("--quiet prints nothing but errors", async () => {
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  const quiet = [bun, "client.ts", "--quiet", `:${server.port}`, "ci"];
  const done = await run(quiet, { stdin: "done\n/who\n" });
  expect(done).toEqual({ code: 0, stdout: "", stderr: "" });
  await bob.line("ci: done");
  await server.stop();
  const failed = await run(quiet, { stdin: "done\n" });
  expect([failed.code, failed.stdout]).toEqual([1, ""]);
  expect(failed.stderr).toEndWith(": nobody listens there; start a server with `bun server.ts`\n");
});

for (const [what, command] of [
  ["", "$BUN client.ts :$PORT ann"],
  [", also behind a wrapper such as npx", `sh -c '$BUN client.ts :$PORT ann; exit'`],
] as const) {
  test(`Ctrl-Z stops it, and fg brings its line and prompt back${what}`, async () => {
    await using server = await startServer();
    using bob = await Client.connect(server, "bob");
    const env = { BUN: bun, PORT: String(server.port), PS1: "ready: " };
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
  await using server = await startServer();
  using bob = await Client.connect(server, "bob");
  using ann = await startClient(server.port, "ann"); // the first process of its terminal
  ann.type(`${line}\x1a`);
  // A terminal in the wrong mode would itself show and keep what comes now, up to the end of a line.
  await until(
    () => /2004l[^]*2004h/.test(ann.raw),
    "the terminal back in its mode",
    () => ann.raw,
  );
  ann.type("!\x7f?\r");
  await bob.line(`ann: ${line}?`);
  await ann.ends(`you: ${line}? >`);
});
