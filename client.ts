#!/usr/bin/env bun
/**
 * pipechat's terminal client: what the others say appears above the line that you type.
 * In a pipe it is plain, stdin to socket and socket to stdout.
 *
 *     bun client.ts [HOST[:PORT]] [NAME]
 *     echo hello | bun client.ts :2000 bot
 *
 * @module
 */
import { once } from "node:events";
import { connect, isIP, isIPv6, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { PassThrough, Writable } from "node:stream";
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
  const form = /^(?:\[([\da-f:.%]+)\]|([^:[\]\s]*))(?::(\d+))?$/i;
  const [, six, host = six, port = "2000"] = form.exec(isIPv6(text) ? `[${text}]` : text) ?? [];
  if (host === undefined) throw new Error(`'${text}' is no address`);
  if (Number(port) < 1 || Number(port) > 65_535) throw new Error(`${port} is no port`);
  return { host: host || "127.0.0.1", port: Number(port) };
}

let password = process.env["PIPECHAT_PASSWORD"];
const wasClosed = "the connection was closed";
const notChat = "not a chat server, or not without --tls";
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
  let [isChat, asked] = [false, false];
  async function* chunks(): AsyncGenerator<Buffer | null> {
    yield* socket;
    yield null; // the end, which may cut a line short
  }
  socket.once("joined", joined); // our own event: at the welcome, or, as not all have one, 1 s later
  setTimeout(() => asked || socket.destroyed || socket.emit("joined", socket), 1000);
  for await (const chunk of chunks()) {
    const lines = frame(chunk).map((line) => line ?? "* (too long a line)");
    if (lines.length === 0) continue;
    isChat ||= /^\* [^(]|^[^\s:]+: /.test(lines[0]!);
    if (!isChat) throw new Error(`${notChat}: it says '${lines[0]!.slice(0, 60)}'`);
    if (lines.some((line) => line.startsWith("* welcome "))) socket.emit("joined", socket);
    if (lines.some((line) => /^\* (wrong )?password(:$|, try again:$)/.test(line))) {
      if (asked || password === undefined) ask(socket);
      else socket.write(`${password}\n`);
      asked = true;
    }
    yield lines;
  }
}

// Of the 256 terminal colours, some of each hue with a contrast of 3.6 or more on black and on white.
const palette = [160, 166, 130, 64, 28, 30, 32, 67, 61, 99, 134, 163, 132, 161];
const dim = (text: string): string => `\x1b[2m${text}\x1b[22m`; // util.styleText obeys CI, too

/** Makes a line of the protocol ready for the screen: a name in its own colour, a notice dim. */
function render(line: string): string {
  const [, name, text] = /^([^\s:*][^\s:]*): (.*)$/.exec(line) ?? [];
  if (name === undefined) return dim(line);
  return `\x1b[38;5;${palette[Bun.hash.crc32(name) % palette.length]}m${name}:\x1b[39m ${text}`;
}

/** In a terminal: chats until the user leaves; ends the process. */
async function chat(address: Address, name: string, colour: boolean, reconnect: boolean) {
  const { stdin: input, stdout: output } = process;
  const where = `${address.host}:${address.port}`;
  const names = new Set<string>(); // everyone heard of, for Tab
  const said = new PassThrough(); // what was typed; waits here while there is no connection
  let asking: Socket | undefined; // it waits for a password, which is not shown
  let pause = 0; // before the next attempt to connect, ms; 0 before we have ever joined
  let leaving = false;

  // Between readline and the terminal, to hide what is typed. Here and in print(), a space takes the
  // cursor from the end of a full row to the next one, where readline thinks that it is.
  const screen = new Writable({
    write: (text, _, done) => void (asking || output.write(`${text}`.replace("\r", " \r")), done()),
  });
  Object.defineProperty(screen, "columns", { get: () => (asking ? Infinity : output.columns) });
  const rl = createInterface({ input, output: screen, terminal: true, completer: complete });
  rl.on("history", (history) => asking && history.shift());
  output.on("resize", () => print([])); // most terminals have wrapped the line being typed anew
  input.on("data", (keys) => keys.length > 1 && print([])); // readline loses count in a paste

  function complete(line: string): [string[], string] {
    const word = /\S*$/.exec(line)![0];
    const known = [...names].map((name) => name + (word === line ? ": " : " "));
    const all = word === line ? ["/nick ", "/who", "/help", "/quit", ...known] : known;
    return [all.filter((candidate) => word !== "" && candidate.startsWith(word)), word];
  }

  /** Puts rendered lines where the line being typed begins, and that line again below them. */
  function print(lines: string[], { rows } = rl.getCursorPos()): void {
    const clock = output.columns < 60 ? "" : dim(`${new Date().toTimeString().slice(0, 5)} `);
    const text = lines.map((line) => `${clock}${line}\n`).join("");
    output.write(` ${"\x1b[A".repeat(rows)}\r\x1b[J${colour ? text : Bun.stripANSI(text)}`);
    // Not documented, but so in Node and in Bun: the rows that readline goes up before it redraws.
    Object.assign(rl, { prevRows: 0 });
    if (!leaving) rl.prompt(true);
  }

  function leave(): void {
    leaving = true;
    print([]); // clears the line being typed
    Object.assign(rl, { line: "", cursor: 0 });
    said.end(); // and with it the connection, if there is one, when all is sent
    setTimeout(() => process.exit(), said.listenerCount("data") > 0 ? 1000 : 0); // is it piped?
  }

  /** Replaces what was typed, however many rows it took, by the line as it was said. */
  function enter(line: string): void {
    if (asking) {
      asking.write(`${(password = line)}\n`);
      asking = undefined;
      return print([]);
    }
    Object.assign(rl, { line, cursor: line.length }); // for getCursorPos(): readline has cleared it
    const end = rl.getCursorPos();
    Object.assign(rl, { line: "", cursor: 0 });
    const isCommand = /^\/(?!\/)/.test(line);
    const shown = isCommand ? dim(line) : `\x1b[1myou:\x1b[22m ${line.replace(/^\/\//, "/")}`;
    print(line === "" ? [] : [shown], { ...end, rows: end.rows + 1 });
    if (line !== "") said.write(`${line}\n`);
    if (line === "/quit") rl.close();
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
    const joined: Use = (socket) => {
      pause = 250;
      said.pipe(socket);
    };
    for await (const lines of hear(address, name, joined, (socket) => (asking = socket))) {
      lines.forEach(listen);
      print(lines.map(render));
    }
    return wasClosed;
  }

  rl.on("line", enter).on("close", leave); // Ctrl-C and Ctrl-D close it, too
  for (const end of ["SIGTERM", "SIGHUP", "exit"]) process.on(end, () => rl.close());
  print([render(`* connecting to ${where} as ${name}`)]);
  for (; ; pause = Math.min(2 * pause, 5000)) {
    const reason = await session().catch(({ message }: Error) => message);
    said.unpipe(); // what is typed from here on waits
    asking = undefined;
    if (leaving) process.exit();
    if (pause === 0 || !reconnect) {
      rl.close();
      fail(1, `${where}: ${reason}`);
    }
    print([render(`* not connected (${reason}), trying again`)]);
    await Bun.sleep(pause);
  }
}

/** In a pipe: sends what comes on stdin, prints what the server says; ends the process. */
async function pipe(address: Address, name: string, listen: boolean): Promise<void> {
  const { stdin, stdout } = process;
  stdout.on("error", () => process.exit()); // nobody reads us any more
  let welcomed = false; // the article's server never does, nor does it close when we have
  const talk: Use = (socket) => {
    stdin.on("end", () => listen || welcomed || socket.setTimeout(2000, () => process.exit()));
    stdin.pipe(socket, { end: !listen });
  };
  const found = password === undefined ? "not set" : "wrong";
  const ask: Use = () => fail(1, `the server wants a password: PIPECHAT_PASSWORD is ${found}`);
  for await (const lines of hear(address, name, talk, ask)) {
    welcomed ||= lines.some((line) => line.startsWith("* welcome "));
    if (!stdout.write(lines.map((line) => `${line}\n`).join(""))) await once(stdout, "drain");
  }
  if (!stdin.readableEnded) throw new Error(wasClosed);
  stdout.end(() => process.exit());
}

async function main(): Promise<void> {
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
    if (values.tls) address.tls = values.ca ? { ca: await Bun.file(values.ca).text() } : {};
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

if (import.meta.main) await main();
