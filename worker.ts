#!/usr/bin/env bun
/**
 * pipechat's worker: the process that owns one client's socket.
 *
 * `server.ts` starts it, passes it the socket over IPC, and leaves that client to it as long as it
 * lives. The worker cuts what the client sends into lines, cleans them and writes them to its stdout
 * as `name: text`; what it finds on its stdin, the others' lines, it writes to the socket. All that
 * the server tells the client comes down that one pipe, even the answers to itself: so everything is in
 * one order, and no line is cut in two by another.
 *
 * It is not meant to be run by hand: `bun server.ts` runs it.
 *
 * @module
 */
import { once } from "node:events";
import type { Socket } from "node:net";
import type { Heritage, Order, Terms } from "./parts/shared/control.ts";
import { brokenRule, cleanName, createFramer } from "./parts/shared/text.ts";
import { waitForServer } from "./parts/worker/orphan.ts";
import { Pace } from "./parts/shared/pace.ts";
import { openRelay, type Remains } from "./parts/worker/relay.ts";
import { Server } from "./parts/worker/requests.ts";
import { isForeign } from "./parts/worker/strangers.ts";
import { Telnet } from "./parts/worker/telnet.ts";

const help = `/nick NAME takes another name
* /who lists who is here, and which process serves them
* /quit leaves, as the end of your input does
* //text says /text`;

let terms: Terms & { heritage?: Heritage | undefined } = { maxLine: 9, rate: 0 };
let wanted: string | undefined; // the name of a client that has not said the password yet
let tries = 0; // at the password

// 1. Open stdin and stdout, rehearse, and be ready. What runs for the first time is slow: so a name was asked
// for before, which the server answers, and gives to nobody.
const relay = await openRelay(Bun.argv[2] === "plain"); // how bytes move: parts/worker/relay.ts
const server = new Server(relay); // what goes over IPC: parts/worker/requests.ts
process.on("disconnect", () => {
  relay.hurry();
  // The server is dead: half a second for what it still holds, unless our client waits for another.
  setTimeout(() => server.meeting || process.exit(), 500);
});
process.once("SIGTERM", () => {
  relay.hurry();
  // systemctl(1) sends SIGTERM to everyone: then the server orders us to finish. Without that order, the
  // signal was meant for this worker.
  setTimeout(() => server.isLeaving || process.kill(process.pid, "SIGTERM"), 300);
});
await handle(createFramer(9)(Buffer.from("rehearsal\n")));
server.report({ type: "ready" });

// 2. Get the client's socket.
const [order, socket] = (await once(process, "message")) as [Order, Socket | undefined];
if (order.type !== "serve" || !socket) process.exit(); // the client was reset on the way
server.report({ type: "serving" });
terms = order;
server.inherit(terms.heritage);
const client = terms.tls ? await encrypt(socket, terms.tls) : socket;

// 3. Move lines, until the server has ended our stdin and the client has everything.
const isTorn = terms.heritage?.isTorn ?? false;
const frame = createFramer(terms.maxLine, isTorn);
const telnet = new Telnet(isTorn);
const limits = { maxLine: terms.maxLine, pace: new Pace(terms.rate), telnet };
const hold = server.hold.bind(server);
const name = () => server.name;
const orphaned = (remains: Remains) => waitForServer(server, remains); // parts/worker/orphan.ts
await relay.run(client ?? socket, { name, hear, end, hold, orphaned }, limits);
process.exit();

// --- What the client says ------------------------------------------------------------------------

function hear(chunk: Uint8Array): Promise<void> | undefined {
  if (terms.tls && !client) return server.refuse("this server uses TLS, add --tls");
  if (!server.name && chunk[0] === 0x16) return server.refuse("this server does not use TLS");
  const handled = handle(frame(chunk));
  return telnet.takeMark() ? server.mark(handled) : handled;
}

/** The client says nothing more. The server relays what was said, tells the room, and ends our stdin. */
async function end(wasReset: boolean): Promise<void> {
  if (!wasReset) await handle(frame(null));
  server.leave();
}

/**
 * Says lines and obeys commands, in the order in which the client sent them. Gives a promise only where
 * something has to be waited for: a plain line goes up at once.
 */
function handle(lines: (string | null)[]): Promise<void> | undefined {
  let block = ""; // lines that go up together
  while (lines.length > 0 && !server.isLeaving) {
    const line = lines.shift()!;
    if (line === "" && server.name) continue;
    if (!server.name || line === null || (line[0] === "/" && line[1] !== "/"))
      return handleFirst(block, line, lines.length > 0).then(() => handle(lines));
    block += `${server.name}: ${line[0] === "/" ? line.slice(1) : line}\n`;
  }
  server.hold("lines", false);
  return block ? relay.say(block) : undefined;
}

/** Says the lines before a line that is no message, and then deals with that. */
async function handleFirst(block: string, line: string | null, isMore: boolean): Promise<void> {
  server.hold("lines", isMore);
  if (block) await relay.say(block);
  if (line === null) return server.tell(`not sent: longer than ${terms.maxLine} bytes`);
  return server.name ? obey(line) : join(line);
}

/** Takes the client's first line as its name; if there is a password, the next lines are that. */
async function join(line: string): Promise<void> {
  // A web page can make a browser speak to any port of its machine, but only in HTTP.
  if (wanted === undefined && isForeign(line)) return server.refuse("this is a chat server");
  if (wanted === undefined && line.trim() === "") return server.tell("your name?");
  if (wanted === undefined && line.startsWith("/")) return server.tell("your name first");
  if (!terms.password) return server.ask({ type: "name", name: await makeName(line) });
  if (wanted === undefined) {
    wanted = await makeName(line);
    return server.tell("password:");
  }
  const isRight = await Bun.password.verify(line, terms.password);
  await Bun.sleep(1000); // guessing must be slow
  if (isRight) return server.ask({ type: "name", name: wanted });
  if (++tries < 3) return server.ask({ type: "warn", text: "wrong password, try again:" });
  return server.refuse("wrong password, goodbye");
}

/** Makes a name of what the client sent, and tells it what had to be changed, and why. */
async function makeName(text: string): Promise<string> {
  const [clean, broken] = [cleanName(text), brokenRule(text)];
  const sent = text.trim() && `${cut(text.trim())}: `;
  if (broken) await server.tell(`${sent}${broken}, you are ${clean}`);
  return clean;
}

/** The beginning of what the client sent, to show it again. */
function cut(text: string): string {
  const characters = [...text];
  return characters.length > 40 ? `${characters.slice(0, 40).join("")}…` : text;
}

async function obey(command: string): Promise<void> {
  const [, verb, argument] = /^\/(\S*)\s*(.*)/.exec(command)!;
  if (verb === "nick" && argument)
    return server.ask({ type: "name", name: await makeName(argument) });
  if (verb === "nick") return server.tell("usage: /nick NAME");
  if (verb === "who") return server.ask({ type: "who" });
  if (verb === "help") return server.tell(help);
  if (verb === "quit") return server.leave();
  return server.tell(`no such command: /${cut(verb!)}, try /help`);
}

/** The client's side of TLS; undefined if it speaks something else. */
async function encrypt(socket: Socket, pem: { cert: string; key: string }) {
  return (await import("./parts/worker/tls.ts")).encrypt(socket, pem); // loaded only where it is needed
}
