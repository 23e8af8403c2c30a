#!/usr/bin/env bun
/**
 * pipechat's terminal client: what the others say appears above the line that you type.
 * In a pipe, and in a terminal that can only print lines (TERM=dumb), it is plain.
 *
 *     bun client.ts [HOST[:PORT]] [NAME]
 *     echo hello | bun client.ts :2000 bot
 *
 * @module
 */
import type { Socket } from "node:net";
import { PassThrough } from "node:stream";
import { converse, wasClosed } from "./parts/client/conversation.ts";
import { lineThat, People } from "./parts/client/notices.ts";
import { type ClientOptions, readClientOptions } from "./parts/client/options.ts";
import { pipe } from "./parts/client/pipe.ts";
import { bold, dim, render, Terminal } from "./parts/client/terminal.ts";
import { fail } from "./parts/shared/command-line.ts";

/**
 * Where a chat is. What is typed waits while we are "new", "lost" or "alone".
 *
 *     new      let in ▶ joined, or alone if what was typed would reach nobody     end ▶ exit 1
 *     joined   end ▶ lost
 *     alone    a line comes ▶ joined                                              end ▶ lost
 *     lost     let in ▶ joined, or alone if what was typed would reach nobody
 *     leaving  what was typed is sent, then exit 0. Any state ends here at /quit, Ctrl-C and Ctrl-D
 */
type State = "new" | "joined" | "alone" | "lost" | "leaving";

/** Chats until the user leaves, and connects again when the connection is lost; ends the process. */
async function chat(options: ClientOptions): Promise<void> {
  let state = "new" as State;
  let { password } = options;
  const people = new People(options.name);
  const typed = new PassThrough();
  const ring = options.bell ? "\x07" : "";

  const terminal = new Terminal(options, {
    line(line) {
      if (line !== "") typed.write(`${line}\n`);
      if (line === "/quit") terminal.close();
      if (/^\/(?!\/)/.test(line) || Buffer.byteLength(line) > people.longest) return dim(line);
      return line === "" ? undefined : `${bold("you:")} ${line.replace(/^\/\//, "/")}`;
    },
    complete: (isFirst) => people.completions(isFirst),
    close() {
      typed.end(); // and with it the connection, if there is one, when everything is sent
      setTimeout(() => process.exit(), state === "joined" ? 1000 : 0);
      state = "leaving";
    },
  });
  const ask = () => new Promise<string>((resolve) => terminal.ask(resolve));
  const notice = (text: string) => terminal.print([render(`* ${text}`)]);

  /** One connection. Returns or throws why it ended. */
  async function connection(): Promise<string> {
    let server: Socket;
    const send = () => {
      state = "joined";
      typed.pipe(server);
    };
    const lines = converse(options, people.own, {
      joined(socket, lines) {
        server = socket;
        // After a restart of the server, the first to come back would speak to nobody.
        if (typed.readableLength === 0 || !lineThat.findsNobody.test(lines.at(-1) ?? ""))
          return send();
        state = "alone";
        notice("nobody else is here: what you typed waits until somebody is");
      },
      password: async (again) => (password = (!again && password) || (await ask())),
      silence: () => notice("the server has not answered yet: what you type waits"),
    });
    for await (const said of lines) {
      const news = said.filter((line) => people.learn(line));
      terminal.print(news.map((line) => render(line, people.mention, ring)));
      await terminal.printed();
      if (state === "alone") send();
    }
    return wasClosed;
  }

  for (const end of ["SIGTERM", "SIGHUP", "exit"]) process.on(end, () => terminal.close());
  notice(`connecting to ${options.where} as ${options.name}`);
  for (let [pause, told] = [0, ""]; ; pause = Math.min(2 * pause, 5000)) {
    const reason = await connection().catch((error: Error) => error.message);
    typed.unpipe();
    terminal.ask(); // for nothing any more
    if (state === "leaving") process.exit();
    if (state === "new" || options.noReconnect) {
      terminal.close();
      throw new Error(reason);
    }
    if (state !== "lost") [pause, told] = [250, ""]; // ms
    state = "lost";
    if (reason !== told) notice(`not connected (${(told = reason)}), trying again`);
    await Bun.sleep(pause * (0.5 + Math.random())); // or all who lost a server come back at once
  }
}

const options = readClientOptions(Bun.argv.slice(2));
const { stdin, stdout, env } = process;
const run = stdin.isTTY && stdout.isTTY && env["TERM"] !== "dumb" ? chat : pipe;
await run(options).catch((error: Error) => fail(1, `${options.where}: ${error.message}`));
