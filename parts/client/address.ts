/**
 * Where a server is.
 *
 * @module
 */
import { once } from "node:events";
import { connect, isIP, isIPv6, type Socket } from "node:net";
import { connect as connectTLS } from "node:tls";

/** A server's address; with `tls`, its certificate is checked, against the authority `ca` (PEM). */
export interface Address {
  host: string;
  port: number;
  tls?: { ca?: string };
}

/** Understands HOST, HOST:PORT, :PORT, [IPv6]:PORT and a bare IPv6 address; throws on all else. */
export function parseAddress(text: string): Address {
  const form = /^(?:\[([\da-f:.%]+)\]|([^:[\]\s]*))(?::(\d+))?$/i;
  const [, six, host = six, port = "2000"] = form.exec(isIPv6(text) ? `[${text}]` : text) ?? [];
  if (host === undefined) throw new Error(`'${text}' is no address`);
  if (Number(port) < 1 || Number(port) > 65_535) throw new Error(`${port} is no port`);
  return { host: host || "127.0.0.1", port: Number(port) };
}

export const wasClosed = "the connection was closed";

const reasons: Record<string, string> = {
  ECONNREFUSED: "nobody listens there; start a server with `bun server.ts`",
  ENOTFOUND: "there is no host of this name",
  ECONNRESET: "the connection was reset",
  ERR_SSL_WRONG_VERSION_NUMBER: "this server does not use TLS, leave out --tls",
  CERT_HAS_EXPIRED: "its certificate has expired",
};

/** Says for a person why there is no connection to a server, and what to do. */
export function explain(
  error: Error & { code?: string; cert?: { subjectaltname?: string } },
  { host }: Address,
): string {
  const { code = "", message, cert } = error;
  const names = cert?.subjectaltname?.replace(/(DNS|IP Address):/g, "");
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
    return `its certificate is not for ${host}, but for ${names ?? "another host"}`;
  if (/UNABLE_TO|SELF_SIGNED/.test(code))
    return `its certificate is from an authority that is not trusted here; name one with --ca FILE`;
  return reasons[code] ?? message;
}

/** Connects, over TLS if the address says so. Rejects with what is in the way. */
export async function dial({ tls, ...to }: Address): Promise<Socket> {
  const servername = isIP(to.host) ? "" : to.host; // TLS does not send an IP address as a name
  const options = { ...to, ...tls, servername, allowHalfOpen: true };
  const socket: Socket = tls ? connectTLS(options) : connect(options);
  const closed = once(socket, "close").then(() => Promise.reject(new Error(wasClosed)));
  await Promise.race([once(socket, tls ? "secureConnect" : "connect"), closed]);
  return socket;
}
