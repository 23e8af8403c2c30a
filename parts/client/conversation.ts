/**
 * A conversation with a server, from connecting to its end.
 *
 * @module
 */
import { once } from "node:events";
import { connect, isIP, type Socket } from "node:net";
import { connect as connectTLS } from "node:tls";
import { lineThat } from "./notices.ts";
import type { Address, ClientOptions } from "./options.ts";
import { commands } from "../shared/command-line.ts";
import { limitSilence } from "../shared/socket.ts";
import { createFramer } from "../shared/text.ts";
import { haste } from "../shared/testing.ts";
import { after } from "../shared/timers.ts";

/** What happens in a conversation, besides what is said. */
export interface Events {
  /** Lines may be sent from now on; `lines` are what was read last. */
  joined(socket: Socket, lines: string[]): void;
  /** The server asks for a password; again, if the last one was wrong. Returns the answer. */
  password(again: boolean): string | Promise<string>;
  /** The server has said nothing for a while. Until it does, nothing is sent. */
  silence(): void;
}

export const wasClosed = "the connection was closed";

/**
 * Connects, sends the name, and yields what the server says, as clean lines, until the server ends the
 * connection. If there is no connection or it is lost, throws an error that says why and what to do.
 */
export async function* converse(options: ClientOptions, name: string, on: Events) {
  try {
    yield* talk(await dial(options.address), name, !options.noWelcome, on);
  } catch (error) {
    throw new Error(explain(error as Error, options.address));
  }
}

/** `welcomes` is whether the server says when lines may be sent; if not, that is at once. */
async function* talk(socket: Socket, name: string, welcomes: boolean, on: Events) {
  socket.write(`${name}\n`);
  // How far we are. What is sent before the server has let us in could be taken for a password.
  let progress: "silent" | "greeted" | "asked" | "joined" = welcomes ? "silent" : "joined";
  if (!welcomes) on.joined(socket, []);
  using _late = after(3000 / haste, () => progress === "silent" && on.silence());
  const frame = createFramer(65_536);
  for await (const chunk of withEnd(socket)) {
    const end = chunk ? "" : " (the connection was closed here)";
    const lines = frame(chunk).map((line) => (line ?? "* (too long a line)") + end);
    const some = (kind: RegExp) => lines.some((line) => kind.test(line));
    // A TLS server answers plain text with an alert, which begins with the byte 0x15.
    if (some(lineThat.wantsTLS) || (progress === "silent" && chunk?.[0] === 0x15))
      throw new Error("this server uses TLS, add --tls");
    if (lines.length === 0) continue;
    if (progress === "silent" && !lineThat.isChat.test(lines[0]!))
      throw new Error(`this is not a chat server: it says '${lines[0]!.slice(0, 60)}'`);
    if (progress === "silent") progress = "greeted";
    yield lines;
    if (progress === "joined") continue;
    if (some(lineThat.letsUsIn)) {
      progress = "joined";
      on.joined(socket, lines);
    } else if (some(lineThat.asksForPassword)) {
      const again = progress === "asked";
      progress = "asked";
      void Promise.resolve(on.password(again)).then((secret) => socket.write(`${secret}\n`));
    }
  }
}

/** Connects, over TLS if the address says so. Rejects with what is in the way. */
async function dial({ tls, ...to }: Address): Promise<Socket> {
  const servername = isIP(to.host) ? "" : to.host; // TLS does not send an IP address as a name
  const options = { ...to, ...tls, servername, allowHalfOpen: true };
  const socket: Socket = tls ? connectTLS(options) : connect(options);
  socket.setKeepAlive(true, 60_000); // ms of silence; Bun then asks the server once a second, ten times
  const closed = once(socket, "close").then(() => Promise.reject(new Error(wasClosed)));
  await Promise.race([once(socket, tls ? "secureConnect" : "connect"), closed]);
  limitSilence(socket);
  return socket;
}

async function* withEnd(socket: Socket): AsyncGenerator<Buffer | null> {
  yield* socket;
  yield null; // the end, which may cut a line short
}

const reasons: Record<string, string> = {
  ECONNREFUSED: `nobody listens there; start a server with \`${commands.server}\``,
  ENOTFOUND: "there is no host of this name",
  ECONNRESET: "the connection was reset",
  ETIMEDOUT: "it does not answer any more, or nothing answers there",
  EHOSTUNREACH: "there is no way to this host",
  ENETUNREACH: "there is no way to its network",
  EPIPE: wasClosed,
  ERR_SSL_WRONG_VERSION_NUMBER: "this server does not use TLS, leave out --tls",
  CERT_HAS_EXPIRED: "its certificate has expired",
};

/** Says for a person why there is no connection to a server, and what to do. */
export function explain(
  { code = "", message, cert }: Error & { code?: string; cert?: { subjectaltname?: string } },
  { host }: Address,
): string {
  const names = cert?.subjectaltname?.replace(/(DNS|IP Address):/g, "");
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
    return `its certificate is not for ${host}, but for ${names ?? "another host"}`;
  if (/UNABLE_TO|SELF_SIGNED/.test(code))
    return `its certificate is from an authority that is not trusted here; name one with --ca FILE`;
  return reasons[code] ?? message;
}
