#!/usr/bin/env bun
/**
 * pipechat's worker: the process that owns one client's socket.
 *
 * `server.ts` starts it, passes it the socket over IPC and from then on never touches that client
 * again. The worker cuts what the client sends into lines, cleans them and writes them to its stdout
 * as `name: text`; what it finds on its stdin, the others' lines, it writes to the socket. All that
 * the client sees comes down that one pipe, even the answers to itself: so everything is in one order,
 * and no line is cut in two by another.
 *
 * It is not meant to be run by hand: `bun server.ts` runs it.
 *
 * @module
 */
import { once } from "node:events";
import type { Socket } from "node:net";
import type { Heritage, Order, Question, Request, Terms } from "./parts/shared/control.ts";
import { openRelay } from "./parts/worker/open-relay.ts";
import { brokenRule, cleanName, createFramer } from "./parts/shared/text.ts";
import { createThrottle } from "./parts/worker/throttle.ts";

const handshake = 0x16; // the first byte of a client that speaks TLS (RFC 8446, 5.1)

const help = `/nick NAME takes another name
* /who lists who is here, and which process serves them
* /quit leaves, as the end of your input does
* //text says /text`;

let name = ""; // what the server calls the client; empty until it has joined
let wanted: string | undefined; // the name of a client that has not said the password yet
let tries = 0; // at the password
let isLeaving = false;
let answer = Promise.withResolvers<void>(); // to the question that waits
const serve = Promise.withResolvers<Terms & { socket?: Socket; heritage?: Heritage }>();

// The server is dead, which a paused stdin does not tell: half a second for what it still holds.
process.on("disconnect", () => setTimeout(() => process.exit(), 500));
process.on("message", (order: Order, socket: unknown) => {
  if (order.type === "serve")
    serve.resolve({ ...order, ...(socket ? { socket: socket as Socket } : {}) });
  if (order.type === "finish") leave();
  if (order.type === "done") {
    name = order.name;
    answer.resolve();
  }
});

// 1. Up and waiting for a client. If stdin ends now, the server does not need this process, or is dead.
const relay = await openRelay();
// systemctl(1) sends SIGTERM to everyone: then the server orders us to finish. Else it is for us alone.
process.once("SIGTERM", () => {
  relay.hurry();
  setTimeout(() => isLeaving || process.kill(process.pid, "SIGTERM"), 300);
});
cleanName("rehearsal"); // what is used for the first time is slow, and the first client would wait for it
createFramer(9)(Buffer.from("rehearsal\n"));
process.send!({ type: "ready" });
const order = await Promise.race([serve.promise, relay.closed]);
if (!order?.socket) process.exit(); // or the client was reset before its socket got here
process.send!({ type: "serving" });
const { socket, tls, heritage, ...terms } = order;
name = heritage?.name ?? "";
const speaksTLS = tls && (await Promise.race([firstByte(socket), relay.closed])) === handshake;
relay.serve(speaksTLS ? await encrypt(socket, tls) : socket, terms.maxLine, (isTorn) => {
  process.send!({ type: "torn", isTorn });
});

// 2. What the client says goes up, what the others say comes down, until one side ends.
await Promise.race([talk(), relay.closed]);

// 3. The server relays what was said, tells the room, and ends our stdin.
leave();
await relay.closed;
process.exit();

// --- What the client says ------------------------------------------------------------------------

async function talk(): Promise<void> {
  const frame = createFramer(terms.maxLine, heritage?.isTorn);
  const throttle = createThrottle(terms.rate);
  if (tls && !speaksTLS) return refuse("this server uses TLS, add --tls");
  for await (const chunk of relay) {
    if (!name && chunk[0] === handshake) return refuse("this server does not use TLS");
    await handle(frame(name ? chunk : withoutTelnet(chunk)), throttle);
  }
  if (!relay.wasReset) await handle(frame(null), throttle);
}

/** Drops what telnet negotiates before a client says its name: IAC, a verb and an option each (RFC 854). */
function withoutTelnet(chunk: Uint8Array): Uint8Array {
  let start = 0;
  while (chunk[start] === 0xff && chunk[start + 1]! >= 0xfb) start += 3;
  return chunk.subarray(start);
}

/** Says lines and obeys commands, in the order in which the client sent them. */
async function handle(lines: (string | null)[], throttle: () => number): Promise<void> {
  let block = ""; // lines that can go up together
  for (const line of lines) {
    if (line === "" && name) continue;
    const early = throttle();
    const isMessage = name && line && (line[0] !== "/" || line[1] === "/");
    if (block && (!isMessage || early > 0)) {
      await relay.say(block);
      block = "";
    }
    if (early > 0) await Bun.sleep(early);
    if (isLeaving) return;
    if (isMessage) block += `${name}: ${line[0] === "/" ? line.slice(1) : line}\n`;
    else if (line === null) await tell(`not sent: longer than ${terms.maxLine} bytes`);
    else if (name) await obey(line);
    else await join(line);
  }
  if (block) await relay.say(block);
}

/** Takes the client's first line as its name; if there is a password, the next lines are that. */
async function join(line: string): Promise<void> {
  // A web page can make a browser speak to any port of its machine, but only in HTTP.
  if (/^[A-Z]+ \S+ HTTP\/\d/.test(line)) return refuse("this is no web server");
  if (wanted === undefined && line.startsWith("/")) return tell("your name first");
  if (!terms.password) return ask({ type: "name", name: await makeName(line) });
  if (wanted === undefined) {
    wanted = await makeName(line);
    return tell("password:");
  }
  const isRight = await Bun.password.verify(line, terms.password);
  await Bun.sleep(1000); // guessing must be slow
  if (isRight) return ask({ type: "name", name: wanted });
  if (++tries < 3) return ask({ type: "warn", text: "wrong password, try again:" });
  return refuse("wrong password, goodbye");
}

/** Makes a name of what the client sent, and tells it what had to be changed, and why. */
async function makeName(text: string): Promise<string> {
  const [clean, broken] = [cleanName(text), brokenRule(text)];
  const sent = text.trim() && `${cut(text.trim())}: `;
  if (broken) await tell(`${sent}${broken}, you are ${clean}`);
  return clean;
}

/** The beginning of what the client sent, to show it again. */
function cut(text: string): string {
  const characters = [...text];
  return characters.length > 40 ? `${characters.slice(0, 40).join("")}…` : text;
}

async function obey(command: string): Promise<void> {
  const [, verb, argument] = /^\/(\S*)\s*(.*)/.exec(command)!;
  if (verb === "nick" && argument) return ask({ type: "name", name: await makeName(argument) });
  if (verb === "nick") return tell("usage: /nick NAME");
  if (verb === "who") return ask({ type: "who" });
  if (verb === "help") return tell(help);
  if (verb === "quit") return leave();
  return tell(`no such command: /${cut(verb!)}, try /help`);
}

// --- What the server is asked --------------------------------------------------------------------

/** Asks the server and waits for its answer: what the client sent later does not overtake it. */
function ask(question: Question): Promise<void> {
  answer = Promise.withResolvers();
  request(question);
  return answer.promise;
}

/** Tells our own client something, in order with what the others say. */
function tell(text: string): Promise<void> {
  return ask({ type: "tell", text });
}

/** Tells our own client why it is not served, and the log as well: that is its end. */
function refuse(text: string): Promise<void> {
  return ask({ type: "refuse", text });
}

function leave(): void {
  if (!isLeaving) request({ type: "leave" });
  isLeaving = true;
}

function request(question: Question): void {
  if (process.connected) process.send!({ ...question, at: relay.said } satisfies Request);
}

/** What a client sends first, which stays in its socket; undefined if it is gone before. */
async function firstByte(socket: Socket): Promise<number | undefined> {
  await Promise.race([once(socket, "readable"), once(socket, "close")]).catch(() => {}); // or a reset
  const bytes: Buffer | null = socket.read();
  if (bytes) socket.unshift(bytes);
  return bytes?.[0];
}

/** The client's side of TLS 1.2 or later, in this process and no other. */
async function encrypt(socket: Socket, pem: { cert: string; key: string }): Promise<Socket> {
  const { TLSSocket } = await import("node:tls"); // loaded only where it is needed
  return new TLSSocket(socket, { isServer: true, minVersion: "TLSv1.2", ...pem });
}
