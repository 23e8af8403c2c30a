/**
 * A client's conversation with a server, from connecting to the end.
 *
 * @module
 */
import type { Socket } from "node:net";
import { type Address, dial } from "./address.ts";
import { asksPassword, isChat, showsThatWeAreIn, wantsTLS } from "./notices.ts";
import { createFramer } from "../shared/text.ts";
import { after } from "../shared/timers.ts";

const alert = 0x15; // the first byte of what a TLS server answers to plain text

/** What a connection needs to be told. */
export interface Events {
  /** Lines may be sent from now on; `lines` are what was heard last. */
  joined(socket: Socket, lines: string[]): void;
  /** The server asks for a password; again, if the last one was wrong. */
  password(socket: Socket, again: boolean): void;
  /** The server has said nothing for a while. Until it does, nothing is sent. */
  silence(): void;
}

/**
 * Connects, says the name, and gives what the server says, as clean lines, until the server ends the
 * connection. Throws an error that says why there is no connection, or why it was lost.
 */
export async function* converse(address: Address, name: string, welcomes: boolean, on: Events) {
  const socket = await dial(address);
  socket.write(`${name}\n`);
  if (!welcomes) on.joined(socket, []);

  let [wasHeard, wasAsked, hasJoined] = [false, false, !welcomes];
  using _late = after(3000, () => wasHeard || hasJoined || on.silence());
  const frame = createFramer(65_536);
  for await (const chunk of withEnd(socket)) {
    const lines = frame(chunk).map((line) => line ?? "* (too long a line)");
    if (!wasHeard && (chunk?.[0] === alert || lines.some(wantsTLS)))
      throw new Error("this server uses TLS, add --tls");
    if (lines.length === 0) continue;
    if (!wasHeard && !isChat(lines[0]!))
      throw new Error(`this is no chat server: it says '${lines[0]!.slice(0, 60)}'`);
    wasHeard = true;
    yield lines;
    // What is sent before the server has let us in could be taken for a password.
    if (!hasJoined && lines.some(showsThatWeAreIn)) {
      hasJoined = true;
      on.joined(socket, lines);
    }
    if (lines.some(asksPassword)) {
      on.password(socket, wasAsked);
      wasAsked = true;
    }
  }
}

async function* withEnd(socket: Socket): AsyncGenerator<Buffer | null> {
  yield* socket;
  yield null; // the end, which may cut a line short
}
