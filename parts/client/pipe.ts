/**
 * The client in a pipe, or in a terminal that can only print lines.
 *
 * @module
 */
import { once } from "node:events";
import type { Socket } from "node:net";
import { converse, type Events, wasClosed } from "./conversation.ts";
import { lineThat } from "./notices.ts";
import type { ClientOptions } from "./options.ts";
import { fail } from "../shared/command-line.ts";

/** Sends what comes on stdin and prints what the server says; ends the process. */
export async function pipe(options: ClientOptions): Promise<void> {
  const { name, password, listen, quiet } = options;
  const { stdin, stdout } = process;
  stdout.on("error", ({ code, message }: NodeJS.ErrnoException) => {
    if (code !== "EPIPE") fail(1, `cannot print what is said: ${message}`);
    process.exit(); // nobody reads us any more
  });
  let server = undefined as Socket | undefined;
  let hasQuit = false; // and the server closes the connection before stdin has ended
  const events: Events = {
    joined(socket, lines) {
      server = socket;
      // A server that does not welcome does not close either when we have.
      if (!lines.some((line) => lineThat.welcomes.test(line)))
        socket.on("finish", () => socket.setTimeout(2000, () => process.exit()));
      stdin.on("data", (chunk) => (hasQuit ||= /^\/quit\r?$/m.test(String(chunk))));
      stdin.pipe(socket, { end: !listen });
    },
    password(again) {
      if (password === undefined || again)
        fail(1, `the server wants a password: PIPECHAT_PASSWORD is ${again ? "wrong" : "not set"}`);
      return password;
    },
    silence: () =>
      process.stderr.write("client.ts: no answer yet (does this server need --no-welcome?)\n"),
  };
  for await (const said of converse(options, name, events)) {
    const text = quiet ? "" : said.map((line) => `${line}\n`).join("");
    if (!stdout.write(text)) await once(stdout, "drain");
  }
  const isSent = stdin.readableEnded && (listen || server?.writableFinished);
  if (!isSent && !hasQuit) throw new Error(wasClosed);
  stdout.end(() => process.exit());
}
