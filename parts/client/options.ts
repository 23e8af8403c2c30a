/**
 * The client's options.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { isIPv6 } from "node:net";
import { createSecureContext } from "node:tls";
import { commands, flag, readCommandLine, text } from "../shared/command-line.ts";

const commandLine = {
  head: `usage: ${commands.client} [options] [HOST[:PORT]] [NAME]\n\n`,
  words: {
    "HOST, PORT": "where the server is: HOST, HOST:PORT, PORT or [::1]:PORT (127.0.0.1:2000)",
    NAME: "what to be called (your login name); a word without '.' and ':' alone is a NAME",
  },
  options: {
    tls: flag("encrypt, and accept no certificate that is not valid for HOST"),
    ca: text("FILE", "trust this authority (PEM) instead of the system's"),
    noReconnect: flag("end when the connection is lost"),
    noColor: flag("no colours; so does NO_COLOR in the environment"),
    bell: flag("ring when somebody says your name"),
    noWelcome: flag("send at once: for other servers, which send no '* welcome'"),
    listen: flag("in a pipe: stay when stdin has ended"),
    quiet: flag("in a pipe: print nothing but errors"),
  },
  tail: `
A password that the server asks for is read without echo, or taken from PIPECHAT_PASSWORD.
`,
};

/** A server's address; with `tls`, its certificate is checked, against the authority `ca` (PEM). */
export interface Address {
  host: string;
  port: number;
  tls?: { ca?: string };
}

/** What the client was started with: the table's options, and what the words and the environment say. */
export type ClientOptions = ReturnType<typeof readClientOptions>;

/**
 * Reads the client's arguments. Ends it if they ask for the usage, or with one line that says what is
 * wrong with them.
 */
export function readClientOptions(args: string[]) {
  return readCommandLine(commandLine, args, (values, [first = "", second, extra]) => {
    if (extra !== undefined) throw new Error(`Unexpected argument '${extra}'`);
    if (second && /:|^\d+$/.test(second))
      throw new Error("the address is one word and comes first: HOST:PORT NAME");
    const isName = second === undefined && /^(?!\d+$|localhost$)[^.:[]+$/.test(first);
    const name = (isName ? first : second) ?? login();
    const address = parseAddress(isName ? "" : first);
    if (values.ca && !values.tls) throw new Error("--ca goes with --tls");
    const authority = values.ca ? { ca: readFileSync(values.ca, "utf8") } : {};
    if (values.tls) createSecureContext((address.tls = authority)); // throws if it is none
    const { NO_COLOR, PIPECHAT_PASSWORD: password } = process.env;
    const where = `${address.host}:${address.port}`;
    return { ...values, where, address, name, password, noColor: values.noColor || !!NO_COLOR };
  });
}

/** Reads HOST, HOST:PORT, :PORT, PORT, [IPv6]:PORT and a bare IPv6 address; throws on all else. */
export function parseAddress(text: string): Address {
  const form = /^(?:\[([\da-f:.]+(?:%[\w.-]+)?)\]|([^:[\]\s]*))(?::(\d+))?$/i;
  const whole = isIPv6(text) ? `[${text}]` : text.replace(/^\d+$/, ":$&");
  const [, six, host = six, port = "2000"] = form.exec(whole) ?? [];
  if (host === undefined) throw new Error(`'${text}' is not an address`);
  if (Number(port) < 1 || Number(port) > 65_535) throw new Error(`${port} is not a port`);
  return { host: host || "127.0.0.1", port: Number(port) };
}

/** The user's login name: Bun's userInfo() knows it from the environment only. Not every user has one. */
function login(): string {
  const id = Bun.which("id");
  const asked = id ? Bun.spawnSync([id, "-un"], { stderr: "ignore" }) : undefined;
  const { USER, LOGNAME } = process.env;
  return (asked?.success && asked.stdout.toString().trim()) || USER || LOGNAME || "guest";
}
