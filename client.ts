#!/usr/bin/env bun
/**
 * pipechat's terminal client: what the others say appears above the line that you type.
 *
 *     bun client.ts [HOST[:PORT]] [NAME]
 *
 * In a pipe it is plain, stdin to socket and socket to stdout: `echo hello | bun client.ts :2000 bot`.
 *
 * @module
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, isIP, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { connect as connectTLS, createSecureContext } from "node:tls";
import { parseArgs } from "node:util";
import { createFramer } from "./worker.ts";

const usage = `usage: bun client.ts [options] [HOST[:PORT]] [NAME]

  HOST, PORT      where the server is: HOST, HOST:PORT, :PORT or [::1]:PORT (127.0.0.1:2000)
  NAME            what to be called (your login name)
  --tls           encrypt, and accept no certificate that is not valid for HOST
  --ca FILE       trust this authority (PEM) instead of the system's
  --no-reconnect  end when the connection is lost
  --no-color      no colours; so does NO_COLOR in the environment
  --listen        in a pipe: stay when stdin has ended
  --help          print this

A password that the server asks for is read without echo, or taken from PIPECHAT_PASSWORD.
`;

function fail(code: number, reason: string): never {
  process.stderr.write(`client.ts: ${reason}\n`);
  process.exit(code);
}

/** Where a server is, and whether its certificate is to be checked (against `ca`, PEM). */
export type Address = { host: string; port: number; tls?: { ca?: string } };

/** Understands HOST, HOST:PORT, :PORT, [IPv6]:PORT and a bare IPv6 address; throws on all else. */
export function parseAddress(text: string): Address {
  const [, six, host, port] =
    /^(?:\[([\da-f:.%]+)\]|([^:[\]\s]*))(?::(\d+))?$/i.exec(text) ??
    /^([\da-f.]*:[\da-f.]*:[\da-f:.]*)$/i.exec(text) ??
    [];
  if (six === undefined && host === undefined) throw new Error(`'${text}' is no address`);
  if (Number(port ?? 1) < 1 || Number(port) > 65_535) throw new Error(`${port} is no port`);
  return { host: six || host || "127.0.0.1", port: Number(port ?? 2000) };
}

// --- A connection --------------------------------------------------------------------------------

let password = process.env["PIPECHAT_PASSWORD"];
const wasClosed = "the connection was closed";

type Use = (socket: Socket) => void;

/**
 * Connects, says the name, and gives what the server says to the end: clean lines, as they come.
 * Throws what is in the way, or why it did not end in peace. Calls `joined` when lines may be sent,
 * and `ask` when a password is wanted that we do not know, or the one that we know is wrong.
 */
async function* hear({ tls, ...to }: Address, name: string, joined: Use, ask: Use) {
  const servername = isIP(to.host) ? "" : to.host; // an address is no name to ask for
  const options = { ...to, ...tls, servername, allowHalfOpen: true };
  const socket: Socket = tls ? connectTLS(options) : connect(options);
  const closed = once(socket, "close").then(() => Promise.reject(new Error(wasClosed)));
  await Promise.race([once(socket, tls ? "secureConnect" : "connect"), closed]);
  socket.write(`${name}\n`);

  const frame = createFramer(65_536);
  let [isChat, isIn, asked] = [false, false, false];
  const enter = (): void => {
    if (!isIn && !socket.destroyed) joined(socket);
    isIn = true;
  };
  async function* chunks(): AsyncGenerator<Buffer | null> {
    yield* socket;
    yield null; // the end, which may cut a line short
  }
  setTimeout(() => asked || enter(), 1000); // the article's server has no welcome
  for await (const chunk of chunks()) {
    const framed = frame(chunk);
    if (framed.length === 0) continue;
    isChat ||= /^\* |^[^\s:]+: /.test(framed[0] ?? "");
    const lines = framed.map((line) => line ?? "* (too long a line)");
    if (!isChat)
      throw new Error(
        `not a chat server, or not without --tls: it says '${lines[0]!.slice(0, 60)}'`,
      );
    if (lines.some((line) => line.startsWith("* welcome "))) enter();
    if (lines.some((line) => /^\* (wrong )?password(:$|, try again:$)/.test(line))) {
      if (asked || password === undefined) ask(socket);
      else socket.write(`${password}\n`);
      asked = true;
    }
    yield lines;
  }
}

// --- What a line looks like ----------------------------------------------------------------------

// Of the 256 terminal colours, some of each hue with a contrast of 3.6 or more on black and on white.
const palette = [160, 166, 130, 64, 28, 30, 32, 67, 61, 99, 134, 163, 132, 161];
const dim = "2";
const bold = "1";

function paint(sgr: string, text: string): string {
  return `\x1b[${sgr}m${text}\x1b[0m`;
}

/** Makes a line of the protocol ready for the screen: a name in its own colour, a notice dim. */
export function render(line: string): string {
  const [, name, text] = /^([^\s:*][^\s:]*): (.*)$/.exec(line) ?? [];
  if (name === undefined) return paint(dim, line);
  return `${paint(`38;5;${palette[Bun.hash.crc32(name) % palette.length]}`, `${name}:`)} ${text}`;
}

// --- In a terminal -------------------------------------------------------------------------------

/** Chats until the user leaves; ends the process. */
async function chat(address: Address, name: string, colour: boolean, reconnect: boolean) {
  const { stdin: input, stdout: output } = process;
  const where = `${address.host}:${address.port}`;
  const names = new Set<string>(); // everyone heard of, for Tab
  const unsent: string[] = []; // typed while there was no connection
  let socket: Socket | undefined; // once we have joined
  let asking: Socket | undefined; // it waits for a password, which is not shown
  let pause = 0; // before the next attempt to connect, ms; 0 before we have ever joined
  let leaving = false;

  // Between readline and the terminal, to hide what is typed.
  const screen = new Writable({
    write: (chunk, _encoding, done) => void (asking || output.write(chunk), done()),
  });
  Object.defineProperty(screen, "columns", { get: () => output.columns });
  output.on("resize", () => screen.emit("resize"));
  const rl = createInterface({ input, output: screen, terminal: true, completer: complete });
  rl.on("history", (history) => asking && history.shift());

  function complete(line: string): [string[], string] {
    const word = /\S*$/.exec(line)![0];
    const known = [...names].map((name) => name + (word === line ? ": " : " "));
    const all = word === line ? ["/nick ", "/who", "/help", "/quit", ...known] : known;
    return [all.filter((candidate) => word !== "" && candidate.startsWith(word)), word];
  }

  /** Puts rendered lines where the line being typed begins, and that line again below them. */
  function print(lines: string[]): void {
    const { rows } = rl.getCursorPos();
    const time = `${new Date().toTimeString().slice(0, 5)} `;
    const clock = output.columns < 60 ? "" : paint(dim, time);
    const text = lines.map((line) => `${clock}${line}\n`).join("");
    output.write(`${"\x1b[A".repeat(rows)}\r\x1b[J${colour ? text : Bun.stripANSI(text)}`);
    // Not documented, but so in Node and in Bun: the rows that readline goes up before it redraws.
    Object.assign(rl, { prevRows: 0 });
    if (!leaving) rl.prompt(true);
  }

  function leave(): void {
    if (leaving) return;
    leaving = true;
    print([]); // clears the line being typed
    rl.close(); // the terminal is as it was
    socket?.end();
    setTimeout(() => process.exit(), socket ? 1000 : 0);
  }

  /** Replaces what was typed, however many rows it took, by the line as it was said. */
  function enter(line: string): void {
    if (asking) {
      asking.write(`${(password = line)}\n`);
      asking = undefined;
      return print([]);
    }
    Object.assign(rl, { line, cursor: line.length }); // for getCursorPos(): readline has cleared it
    const { rows } = rl.getCursorPos();
    Object.assign(rl, { line: "", cursor: 0 });
    output.write(`\x1b[${rows + 1}A\r\x1b[J`);
    if (line === "") return print([]);
    const isCommand = line.startsWith("/") && !line.startsWith("//");
    const text = line.startsWith("//") ? line.slice(1) : line;
    print([isCommand ? paint(dim, line) : `${paint(bold, "you:")} ${text}`]);
    if (socket) socket.write(`${line}\n`);
    else unsent.push(line);
    if (line === "/quit") leave();
  }

  /** Takes from the server's lines who is there, and what we are called ourselves. */
  function listen(line: string): void {
    const [, speaker] = /^(?:\* )?([^\s:*][^\s:]*)(?:: | joined \(| \(worker )/.exec(line) ?? [];
    const [, before, after] = /^\* (\S+) (?:left\b|is now (\S+)$)/.exec(line) ?? [];
    const [, own] = /^\* welcome (\S+) \(/.exec(line) ?? [];
    if (before) names.delete(before);
    for (const present of [speaker, after]) if (present) names.add(present);
    if (own || (before === name && after)) name = own ?? after!;
  }

  /** One connection; gives or throws why it ended. */
  async function session(): Promise<string> {
    const joined = (connection: Socket): void => {
      socket = connection;
      pause = 250;
      for (const line of unsent.splice(0)) socket.write(`${line}\n`);
    };
    for await (const lines of hear(address, name, joined, (connection) => (asking = connection))) {
      lines.forEach(listen);
      print(lines.map(render));
    }
    return wasClosed;
  }

  rl.on("line", enter).on("SIGINT", leave).on("close", leave);
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, leave);
  process.on("exit", () => rl.close());
  print([paint(dim, `* connecting to ${where} as ${name}`)]);
  for (; ; pause = Math.min(2 * pause, 5000)) {
    const reason = await session().catch(({ message }: Error) => message);
    socket = asking = undefined;
    if (leaving) process.exit();
    if (pause === 0 || !reconnect) {
      leave();
      fail(1, `${where}: ${reason}`);
    }
    print([paint(dim, `* not connected (${reason}), trying again`)]);
    await Bun.sleep(pause);
  }
}

// --- In a pipe -----------------------------------------------------------------------------------

/** Sends what comes on stdin, prints what comes from the server; ends the process. */
async function pipe(address: Address, name: string, listen: boolean): Promise<void> {
  const { stdin, stdout } = process;
  stdout.on("error", () => process.exit()); // nobody reads us any more
  let welcomed = false; // the article's server never does, nor does it close when we have
  const talk = (socket: Socket): void => {
    stdin.on("end", () => listen || welcomed || socket.setTimeout(2000, () => process.exit()));
    stdin.pipe(socket, { end: !listen });
  };
  const ask = (): never => {
    if (password === undefined) fail(1, "the server wants a password: set PIPECHAT_PASSWORD");
    fail(1, "the password in PIPECHAT_PASSWORD is wrong");
  };
  for await (const lines of hear(address, name, talk, ask)) {
    welcomed ||= lines.some((line) => line.startsWith("* welcome "));
    if (!stdout.write(lines.map((line) => `${line}\n`).join(""))) await once(stdout, "drain");
  }
  if (!stdin.readableEnded) throw new Error(wasClosed);
  stdout.end(() => process.exit());
}

function main(): void {
  const flag = { type: "boolean", default: false } as const;
  const flags = { help: flag, listen: flag, tls: flag, "no-reconnect": flag, "no-color": flag };
  const options = { ...flags, ca: { type: "string" } } as const;
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    if (values.help) return void process.stdout.write(usage);
    // Bun's userInfo() knows the login name from the environment only.
    const login = () => Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
    const [where = "", name = login(), extra] = positionals;
    if (extra !== undefined) throw new Error(`'${extra}' is one word too many`);
    const address: Address = parseAddress(where);
    if (values.tls) address.tls = values.ca ? { ca: readFileSync(values.ca, "utf8") } : {};
    else if (values.ca) throw new Error("--ca goes with --tls");
    if (address.tls) createSecureContext(address.tls); // throws if the authority is none
    const colour = !values["no-color"] && !process.env["NO_COLOR"];
    if (process.stdin.isTTY && process.stdout.isTTY)
      return void chat(address, name, colour, !values["no-reconnect"]);
    const failed = (error: Error) => fail(1, `${address.host}:${address.port}: ${error.message}`);
    pipe(address, name, values.listen).catch(failed);
  } catch (error) {
    fail(2, `${(error as Error).message.split(/\.\s/)[0]} (see --help)`);
  }
}

if (import.meta.main) main();
