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
import { type Address, explain, wasClosed } from "./parts/client/address.ts";
import { type ClientOptions, readClientOptions } from "./parts/client/options.ts";
import { fail } from "./parts/shared/command-line.ts";
import { converse, type Events } from "./parts/client/conversation.ts";
import { isAlone, isWelcome, People } from "./parts/client/notices.ts";
import { bold, dim, render, Terminal } from "./parts/client/terminal.ts";

function lost({ host, port }: Address, reason: string): never {
  return fail(1, `${host}:${port}: ${reason}`);
}

// --- In a terminal -------------------------------------------------------------------------------

/** Chats until the user leaves, and connects again when the connection is lost; ends the process. */
async function chat({ address, name, colour, reconnect, welcomes }: ClientOptions) {
  const people = new People(name);
  const typed = new PassThrough(); // what was typed waits here while nobody would hear it
  let password = process.env["PIPECHAT_PASSWORD"];
  let pause = 0; // before the next attempt to connect, ms; 0 before the first success
  let told = ""; // why there is no connection; each reason is told once
  let isLeaving = false;
  let alone: Socket | undefined; // we are in, but nobody would hear what waits

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
  const notice = (text: string) => terminal.print([render(`* ${text}`)]);

  const events: Events = {
    joined(socket, lines) {
      [pause, told] = [250, ""];
      // After a restart of the server, the first to come back would speak to nobody.
      if (typed.readableLength === 0 || !isAlone(lines.at(-1))) return void typed.pipe(socket);
      alone = socket;
      notice("nobody else is here: what you typed waits until somebody is");
    },
    password(socket, again) {
      if (password !== undefined && !again) return void socket.write(`${password}\n`);
      terminal.ask((secret) => socket.write(`${(password = secret)}\n`));
    },
    silence: () => notice("the server has not answered yet: what you type waits"),
  };

  /** One connection; gives or throws why it ended. */
  async function session(): Promise<string> {
    for await (const lines of converse(address, people.own, welcomes, events)) {
      for (const line of lines) people.learn(line);
      terminal.print(lines.map(render));
      if (alone) typed.pipe(alone);
      alone = undefined;
    }
    return wasClosed;
  }

  for (const end of ["SIGTERM", "SIGHUP", "exit"]) process.on(end, () => terminal.close());
  notice(`connecting to ${address.host}:${address.port} as ${name}`);
  for (; ; pause = Math.min(2 * pause, 5000)) {
    const reason = await session().catch((error: Error) => explain(error, address));
    typed.unpipe(); // what is typed from here on waits
    alone = undefined;
    terminal.stopAsking();
    if (isLeaving) process.exit();
    if (pause === 0 || !reconnect) {
      terminal.close();
      lost(address, reason);
    }
    if (reason !== told) notice(`not connected (${(told = reason)}), trying again`);
    await Bun.sleep(pause);
  }
}

// --- In a pipe -----------------------------------------------------------------------------------

/** Sends what comes on stdin and prints what the server says; ends the process. */
async function pipe({ address, name, welcomes, listen, quiet }: ClientOptions): Promise<void> {
  const { stdin, stdout } = process;
  stdout.on("error", ({ code, message }: NodeJS.ErrnoException) => {
    if (code !== "EPIPE") fail(1, `cannot print what is said: ${message}`);
    process.exit(); // nobody reads us any more
  });
  const password = process.env["PIPECHAT_PASSWORD"];
  const found = password === undefined ? "not set" : "wrong";
  let wasWelcomed = false; // a server that does not say so does not close either when we have
  let isSent = listen; // all of stdin
  const events: Events = {
    joined(socket) {
      socket.on("finish", () => {
        isSent = true;
        socket.setTimeout(2000, () => wasWelcomed || process.exit());
      });
      stdin.pipe(socket, { end: !listen });
    },
    password(socket, again) {
      if (password !== undefined && !again) return void socket.write(`${password}\n`);
      fail(1, `the server wants a password: PIPECHAT_PASSWORD is ${found}`);
    },
    silence: () =>
      process.stderr.write("client.ts: no answer yet (does this server need --no-welcome?)\n"),
  };
  for await (const lines of converse(address, name, welcomes, events)) {
    wasWelcomed ||= lines.some(isWelcome);
    const text = quiet ? "" : lines.map((line) => `${line}\n`).join("");
    if (!stdout.write(text)) await once(stdout, "drain");
  }
  if (!stdin.readableEnded || !isSent) throw new Error(wasClosed);
  stdout.end(() => process.exit());
}

// --- The start -----------------------------------------------------------------------------------

const options = readClientOptions(Bun.argv.slice(2));
const { address } = options;
if (process.stdin.isTTY && process.stdout.isTTY) void chat(options);
else await pipe(options).catch((error: Error) => lost(address, explain(error, address)));
