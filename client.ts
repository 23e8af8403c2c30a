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
import type { Socket } from "node:net";
import { PassThrough } from "node:stream";
import { type Address, dial, wasClosed } from "./parts/address.ts";
import { readClientOptions } from "./parts/client-options.ts";
import { fail } from "./parts/command-line.ts";
import { asksPassword, isChat, People, welcomedName } from "./parts/notices.ts";
import { bold, dim, render, Terminal } from "./parts/terminal.ts";
import { createFramer } from "./parts/text.ts";

const notChat = "not a chat server, or not without --tls";

// --- A connection --------------------------------------------------------------------------------

/** What a connection needs to be told. */
interface Events {
  /** Lines may be sent from now on. */
  joined(socket: Socket): void;
  /** The server asks for a password; again, if the last one was wrong. */
  password(socket: Socket, again: boolean): void;
}

/**
 * Connects, says the name, and gives what the server says, as clean lines, until the server ends the
 * connection. Throws an error that says why there is no connection, or why it was lost.
 */
async function* converse(address: Address, name: string, on: Events) {
  const socket = await dial(address);
  socket.write(`${name}\n`);

  let [wasHeard, wasAsked, hasJoined] = [false, false, false];
  const join = () => {
    if (!hasJoined && !socket.destroyed) on.joined(socket);
    hasJoined = true;
  };
  setTimeout(() => wasAsked || join(), 1000); // not all servers welcome their clients
  const frame = createFramer(65_536);
  for await (const chunk of withEnd(socket)) {
    const lines = frame(chunk).map((line) => line ?? "* (too long a line)");
    if (lines.length === 0) continue;
    if (!wasHeard && !isChat(lines[0]!))
      throw new Error(`${notChat}: it says '${lines[0]!.slice(0, 60)}'`);
    wasHeard = true;
    if (lines.some(welcomedName)) join();
    if (lines.some(asksPassword)) {
      on.password(socket, wasAsked);
      wasAsked = true;
    }
    yield lines;
  }
}

async function* withEnd(socket: Socket): AsyncGenerator<Buffer | null> {
  yield* socket;
  yield null; // the end, which may cut a line short
}

function lost({ host, port }: Address, reason: string): never {
  return fail(1, `${host}:${port}: ${reason}`);
}

// --- In a terminal -------------------------------------------------------------------------------

/** Chats until the user leaves, and connects again when the connection is lost; ends the process. */
async function chat(address: Address, name: string, { colour = true, reconnect = true }) {
  const people = new People(name);
  const typed = new PassThrough(); // what was typed waits here while there is no connection
  let password = process.env["PIPECHAT_PASSWORD"];
  let pause = 0; // before the next attempt to connect, ms; 0 before the first success
  let isLeaving = false;

  const terminal = new Terminal(
    {
      line(line) {
        if (line !== "") typed.write(`${line}\n`);
        if (line === "/quit") terminal.close();
        if (/^\/(?!\/)/.test(line)) return dim(line);
        return line === "" ? undefined : `${bold("you:")} ${line.replace(/^\/\//, "/")}`;
      },
      complete: (isFirst) => people.completions(isFirst),
      close() {
        isLeaving = true;
        typed.end(); // and with it the connection, if there is one, when everything is sent
        setTimeout(() => process.exit(), typed.listenerCount("data") > 0 ? 1000 : 0); // is it piped?
      },
    },
    { colour },
  );

  const events: Events = {
    joined(socket) {
      pause = 250;
      typed.pipe(socket);
    },
    password(socket, again) {
      if (password !== undefined && !again) return void socket.write(`${password}\n`);
      terminal.ask((secret) => socket.write(`${(password = secret)}\n`));
    },
  };

  /** One connection; gives or throws why it ended. */
  async function session(): Promise<string> {
    for await (const lines of converse(address, people.own, events)) {
      for (const line of lines) people.learn(line);
      terminal.print(lines.map(render));
    }
    return wasClosed;
  }

  for (const end of ["SIGTERM", "SIGHUP", "exit"]) process.on(end, () => terminal.close());
  terminal.print([render(`* connecting to ${address.host}:${address.port} as ${name}`)]);
  for (; ; pause = Math.min(2 * pause, 5000)) {
    const reason = await session().catch(({ message }: Error) => message);
    typed.unpipe(); // what is typed from here on waits
    terminal.stopAsking();
    if (isLeaving) process.exit();
    if (pause === 0 || !reconnect) {
      terminal.close();
      lost(address, reason);
    }
    terminal.print([render(`* not connected (${reason}), trying again`)]);
    await Bun.sleep(pause);
  }
}

// --- In a pipe -----------------------------------------------------------------------------------

/** Sends what comes on stdin and prints what the server says; ends the process. */
async function pipe(address: Address, name: string, { listen = false }): Promise<void> {
  const { stdin, stdout } = process;
  stdout.on("error", () => process.exit()); // nobody reads us any more
  const password = process.env["PIPECHAT_PASSWORD"];
  const found = password === undefined ? "not set" : "wrong";
  let isWelcome = false; // the article's server never says so, nor does it close when we have
  const events: Events = {
    joined(socket) {
      const endIdle = () => socket.setTimeout(2000, () => process.exit());
      stdin.on("end", () => listen || isWelcome || endIdle());
      stdin.pipe(socket, { end: !listen });
    },
    password(socket, again) {
      if (password !== undefined && !again) return void socket.write(`${password}\n`);
      fail(1, `the server wants a password: PIPECHAT_PASSWORD is ${found}`);
    },
  };
  for await (const lines of converse(address, name, events)) {
    isWelcome ||= lines.some((line) => welcomedName(line) !== undefined);
    if (!stdout.write(lines.map((line) => `${line}\n`).join(""))) await once(stdout, "drain");
  }
  if (!stdin.readableEnded) throw new Error(wasClosed);
  stdout.end(() => process.exit());
}

// --- The start -----------------------------------------------------------------------------------

const { address, name, colour, reconnect, listen } = await readClientOptions(Bun.argv.slice(2));
if (process.stdin.isTTY && process.stdout.isTTY) void chat(address, name, { colour, reconnect });
else await pipe(address, name, { listen }).catch((error: Error) => lost(address, error.message));
