#!/usr/bin/env bun
/**
 * pipechat's worker: the process that owns one client's socket.
 *
 * `server.ts` starts it, passes it the socket over IPC and from then on never touches that client
 * again. The worker frames what the client sends into lines, cleans them and writes them to its
 * stdout as `name: text`; what it finds on its stdin, the others' lines, it writes to the socket.
 * Whatever kills it, it takes exactly one client with it.
 *
 * It is not meant to be run by hand: `bun server.ts` runs it.
 *
 * @module
 */
import { Socket } from "node:net";

// --- Control plane: what goes over IPC -----------------------------------------------------------

/** How a client is served: limits (bytes, lines a second), and how it is to prove itself, if so. */
export interface Terms {
  maxLine: number;
  rate: number;
  /** PEM texts. */
  tls?: { cert: string; key: string };
  /** A hash of the password, as `Bun.password` makes it. */
  password?: string;
}

/** The server's orders: the socket and its terms, the answer to a question, the end. */
export type Order =
  ({ type: "serve" } & Terms) | { type: "done"; name: string } | { type: "finish" };

/** What a worker may ask. `name` joins or renames; `tell` is a line for its own client only. */
export type Question =
  | { type: "ready" | "who" | "leave" }
  | { type: "name"; name: string }
  | { type: "tell"; text: string };

/**
 * A question with its place in the stream: IPC and stdout are not ordered against each other, so it
 * carries `at`, the bytes put on stdout before it, and is answered when that many are relayed.
 */
export type Request = Question & { at: number };

/** Whether a message is a request, and its name a clean one: the server does not trust its workers. */
export function isRequest(message: unknown): message is Request {
  const { type, at, name, text } = (message ?? {}) as Record<string, unknown>;
  if (!Number.isSafeInteger(at)) return false;
  if (type === "name") return typeof name === "string" && cleanName(name) === name;
  if (type === "tell") return typeof text === "string" && text.length < 1000;
  return type === "ready" || type === "who" || type === "leave";
}

// --- Clean text ----------------------------------------------------------------------------------

/** A name's limit, in characters (Unicode code points; at most 4 bytes each). */
export const maxName = 32;

// Control characters but tab (C0, DEL, C1), line and paragraph separators, and the bidirectional
// embeddings, overrides and isolates (https://trojansource.codes).
const unsafe = /[\0-\x08\n-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;

/**
 * Makes one line safe for other people's terminals: escape sequences go as a whole, then every other
 * control character but tab, and bidirectional overrides.
 */
export function cleanText(line: string): string {
  // Most lines are printable ASCII: as many bytes and columns as characters. Without a JIT compiler
  // this tells it eight times faster than the expression.
  if (Bun.stringWidth(line) === line.length && Buffer.byteLength(line) === line.length) return line;
  // search() ignores lastIndex
  return line.search(unsafe) < 0 ? line : Bun.stripANSI(line).replace(unsafe, "");
}

/**
 * Makes a name out of what a client sent: no white space, no `:`, nothing invisible (control and
 * format characters), no leading `*`, at most {@link maxName} characters; `guest` if nothing is left.
 */
export function cleanName(text: string): string {
  const name = text
    .replace(/[\s:\p{C}\p{Default_Ignorable_Code_Point}]/gu, "")
    .replace(/^\*+/, "")
    .normalize("NFC"); // last: what went may have kept a letter and its accent apart
  return [...name].slice(0, maxName).join("") || "guest";
}

// --- Lines ---------------------------------------------------------------------------------------

const newline = 0x0a;
const carriageReturn = 0x0d;

/**
 * Cuts a byte stream into lines, wherever its chunks begin and end.
 *
 * @param maxLine the longest line, in bytes without its end (LF or CRLF)
 * @returns a function that takes the next chunk (`null`: the stream has ended) and gives the lines
 * that it completes, decoded and cleaned; a line longer than the limit comes as `null`, once. What
 * waits for its newline is held here: at most `maxLine + 1` bytes.
 */
export function createFramer(maxLine: number): (chunk: Uint8Array | null) => (string | null)[] {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let carry: Uint8Array = new Uint8Array(0);
  let skipping = false; // the rest of a line that was too long

  function decode(line: Uint8Array): string | null {
    const bytes = line.at(-1) === carriageReturn ? line.subarray(0, -1) : line;
    if (bytes.length > maxLine) return null;
    const text = cleanText(decoder.decode(bytes));
    // Each invalid byte has become three (U+FFFD): the limit holds for what is sent on, too.
    return text.length * 3 > maxLine && Buffer.byteLength(text) > maxLine ? null : text;
  }

  return function frame(chunk) {
    const lines: (string | null)[] = [];
    if (chunk === null) {
      if (carry.length > 0) lines.push(decode(carry));
      return lines;
    }
    let start = 0;
    for (let end; (end = chunk.indexOf(newline, start)) >= 0; start = end + 1) {
      const line = chunk.subarray(start, end);
      if (!skipping) lines.push(decode(carry.length > 0 ? Buffer.concat([carry, line]) : line));
      carry = carry.subarray(0, 0);
      skipping = false;
    }
    const rest = chunk.subarray(start);
    if (skipping) return lines;
    carry = carry.length > 0 ? Buffer.concat([carry, rest]) : rest.slice();
    if (carry.length > maxLine + 1) {
      lines.push(null);
      carry = carry.subarray(0, 0);
      skipping = true;
    }
    return lines;
  };
}

// --- One client's session ------------------------------------------------------------------------

const help = `/nick NAME takes another name
* /who lists who is here, and which process serves them
* /quit leaves, as the end of your input does
* //text says /text`;

/**
 * The worker's life: get ready, get a socket, relay until one side is done.
 *
 * Where bytes wait: what the client says, in its socket, read only as fast as the server takes it and
 * `rate` allows, and in the framer; what the client is to see, in our stdin, read only while the
 * socket takes it, and one chunk at most in the socket's buffer. All that it sees comes down that one
 * pipe, in one order, even answers to itself: so no line is cut in two by another.
 */
async function main(): Promise<void> {
  const stdout = Bun.stdout.writer();
  const serve = Promise.withResolvers<Terms & { socket: Socket | undefined }>();
  let name = ""; // what the server calls the client; empty until it has joined
  let said = 0; // bytes put on stdout
  let answered = () => {}; // settles the question that waits
  let leaving = false;

  function send(question: Question): void {
    if (process.connected) process.send!({ ...question, at: said } satisfies Request);
  }

  /** Asks the server and waits: what the client sent later does not overtake it. */
  function ask(question: Question): Promise<void> {
    send(question);
    return new Promise((resolve) => (answered = resolve));
  }

  function leave(): void {
    if (!leaving) send({ type: "leave" });
    leaving = true;
  }

  // Ctrl-C and a closed terminal reach the whole group; the server decides how it ends.
  for (const signal of ["SIGINT", "SIGHUP"]) process.on(signal, () => {});
  // The server is dead, which a paused stdin does not tell: half a second for what it still holds.
  process.on("disconnect", () => setTimeout(() => process.exit(), 500));
  process.on("message", (order: Order, socket: unknown) => {
    if (order.type === "serve") serve.resolve({ ...order, socket: socket as Socket | undefined });
    if (order.type === "finish") leave();
    if (order.type === "done") name = order.name;
    if (order.type === "done") answered();
  });

  // 1. Up and waiting for a client. If stdin ends now, the server has no use for us, or is dead.
  let hangUp = (): void => process.exit();
  let show = (_: Uint8Array): void => {};
  await warmUp();
  const stdin = await openStdin({ data: (chunk) => show(chunk), close: () => hangUp() });
  send({ type: "ready" });
  const { socket, maxLine, rate, tls, password } = await serve.promise;
  if (!socket) process.exit(); // it was reset before it got here
  const client = tls ? await encrypt(socket, tls) : socket;
  client.allowHalfOpen = true; // who has said everything may want to read on
  client.on("error", () => {}); // a reset ends the loop below, as any end does

  // 2. Down: stdin to socket, until the server has nothing more.
  const write = tls ? () => 0 : nativeWrite(client);
  let full = false; // the socket has not taken all
  show = (chunk) => {
    const taken = full ? 0 : write(chunk);
    if (taken === chunk.length) return;
    full = true;
    stdin.pause();
    client.write(chunk.subarray(taken), () => {
      full = client.writableLength > 0;
      if (!full) stdin.resume();
    });
  };
  hangUp = () => {
    if (client.destroyed) process.exit();
    client.once("close", () => process.exit());
    client.end(() => setTimeout(() => process.exit(), 500)); // the kernel has all; it may close first
  };

  // 3. Up: socket to stdout, line by line, until the client has nothing more.
  const frame = createFramer(maxLine);
  const pace = createPace(rate);
  async function hear(chunk: Uint8Array | null): Promise<void> {
    let block = ""; // lines that can go up together
    for (const line of frame(chunk)) {
      if (line === "" && name) continue;
      const early = pace();
      const isMessage = name && line && (line[0] !== "/" || line[1] === "/");
      if (!isMessage || early > 0) block = await say(block);
      if (early > 0) await Bun.sleep(early);
      if (leaving) return;
      if (isMessage) block += `${name}: ${line[0] === "/" ? line.slice(1) : line}\n`;
      else await obey(line);
    }
    await say(block);
  }

  /** Puts lines on stdout; pending while the server does not take them, so the client is not read. */
  async function say(lines: string): Promise<""> {
    said += Buffer.byteLength(lines);
    await stdout.write(lines);
    await stdout.flush();
    return "";
  }

  let wanted = ""; // the name of someone who has not said the password yet
  let tries = 0;
  async function join(line: string): Promise<void> {
    if (!password) return ask({ type: "name", name: cleanName(line) });
    if (!wanted) {
      wanted = cleanName(line);
      return ask({ type: "tell", text: "password:" });
    }
    const isRight = await Bun.password.verify(line, password);
    await Bun.sleep(1000); // whoever guesses, guesses slowly
    if (isRight) return ask({ type: "name", name: wanted });
    const text = ++tries < 3 ? "wrong password, try again:" : "wrong password, goodbye";
    await ask({ type: "tell", text });
    if (tries === 3) leave();
  }

  async function obey(line: string | null): Promise<void> {
    if (line === null) return ask({ type: "tell", text: `not sent: longer than ${maxLine} bytes` });
    if (!name) return join(line);
    const [, verb, argument] = /^\/(\S*)\s*(.*)/.exec(line)!;
    if (verb === "nick" && argument) return ask({ type: "name", name: cleanName(argument) });
    if (verb === "nick") return ask({ type: "tell", text: "usage: /nick NAME" });
    if (verb === "who") return ask({ type: "who" });
    if (verb === "help") return ask({ type: "tell", text: help });
    if (verb === "quit") return leave();
    return ask({ type: "tell", text: `no such command: /${verb}, try /help` });
  }

  try {
    // Left to itself, the loop destroys the socket at its end, even at the client's half of it.
    for await (const chunk of client.iterator({ destroyOnReturn: false })) await hear(chunk);
    await hear(null);
  } catch {
    // Reset by the client, or the server is dead: what was said whole is said.
  }
  leave(); // the server relays what we said, tells the room, and ends our stdin
}

/** The client's side of TLS 1.2 or later, in this process and no other. */
async function encrypt(socket: Socket, pem: { cert: string; key: string }): Promise<Socket> {
  const { TLSSocket } = await import("node:tls"); // loaded only where it is needed
  return new TLSSocket(socket, { isServer: true, minVersion: "TLSv1.2", ...pem });
}

/** Loads what Bun loads at the first use, before a client has to wait for it: 10 ms. */
async function warmUp(): Promise<void> {
  const socket = new Socket();
  socket.push("line");
  socket.push(null);
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) createFramer(9)(chunk);
  socket.destroy();
}

// --- Fast ways, with the plain ones to fall back on ------------------------------------------------

/** Bun adopts an open descriptor; bun-types has the options but not this overload. */
declare module "bun" {
  function connect<Data = undefined>(options: FdSocketOptions<Data>): Promise<Socket<Data>>;
}

/** Reads stdin, a socket pair, as a native socket: a third less CPU a line than process.stdin. */
async function openStdin(on: { data(chunk: Uint8Array): void; close(): void }) {
  try {
    return await Bun.connect({
      fd: 0,
      socket: { data: (_, chunk) => on.data(chunk), close: on.close },
    });
  } catch {
    return process.stdin.on("data", on.data).on("end", on.close);
  }
}

/**
 * Writes straight to the native socket below a `net.Socket`, undocumented: half the CPU a line of
 * `socket.write()`. Where there is none it takes nothing, and the plain way takes it all.
 *
 * @returns a function that writes without buffering and returns how many bytes the kernel took
 */
function nativeWrite(socket: Socket): (chunk: Uint8Array) => number {
  const { _handle } = socket as { _handle?: { write?(chunk: Uint8Array): number } };
  if (!_handle?.write) return () => 0;
  return (chunk) => Math.max(0, _handle.write!(chunk)); // -1: it is closed
}

/**
 * Slows a sender to `rate` lines a second with bursts of twice that (the generic cell rate
 * algorithm, ITU-T I.371: a line that comes too early for its place in the schedule waits).
 *
 * @returns a function to call for each line: the milliseconds to wait before it is said
 */
export function createPace(rate: number): () => number {
  if (rate === 0) return () => 0;
  let due = 0; // when the next line is on schedule, ms
  return function pace() {
    const now = performance.now();
    const early = due - now;
    due = Math.max(due, now) + 1000 / rate;
    return Math.max(0, early - 2000);
  };
}

if (import.meta.main) await main();
