/**
 * The client's options.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { type Address, parseAddress } from "./address.ts";
import { flag, readCommandLine, text } from "../shared/command-line.ts";

const commandLine = {
  head: "usage: bun client.ts [options] [HOST[:PORT]] [NAME]\n\n",
  words: {
    "HOST, PORT": "where the server is: HOST, HOST:PORT, :PORT or [::1]:PORT (127.0.0.1:2000)",
    NAME: "what to be called (your login name)",
  },
  options: {
    tls: flag("encrypt, and accept no certificate that is not valid for HOST"),
    ca: text("FILE", "trust this authority (PEM) instead of the system's"),
    noReconnect: flag("end when the connection is lost"),
    noColor: flag("no colours; so does NO_COLOR in the environment"),
    noWelcome: flag("send at once: for other servers, which send no '* welcome'"),
    listen: flag("in a pipe: stay when stdin has ended"),
    quiet: flag("in a pipe: print nothing but errors"),
  },
  tail: `
A password that the server asks for is read without echo, or taken from PIPECHAT_PASSWORD.
`,
};

export interface ClientOptions {
  address: Address;
  name: string;
  colour: boolean;
  reconnect: boolean;
  /** Whether the server says anything before it takes lines. */
  welcomes: boolean;
  listen: boolean;
  quiet: boolean;
}

/**
 * Reads the client's arguments. Ends it if they ask for the usage, or with one line that says what is
 * wrong with them.
 */
export function readClientOptions(args: string[]): ClientOptions {
  return readCommandLine(commandLine, args, (values, [where = "", name = login(), extra]) => {
    if (extra !== undefined) throw new Error(`Unexpected argument '${extra}'`);
    if (/^\d+$/.test(name)) throw new Error(`a port goes with its host: '${where}:${name}'`);
    const address = parseAddress(where);
    const { tls, ca, noColor, noReconnect, noWelcome, listen, quiet } = values;
    if (ca && !tls) throw new Error("--ca goes with --tls");
    if (tls) address.tls = ca ? { ca: readFileSync(ca, "utf8") } : {};
    if (address.tls) createSecureContext(address.tls); // throws if the authority is none
    return {
      address,
      name,
      colour: !noColor && !process.env["NO_COLOR"],
      reconnect: !noReconnect,
      welcomes: !noWelcome,
      listen,
      quiet,
    };
  });
}

/** The user's login name: Bun's userInfo() knows it from the environment only. */
function login(): string {
  return Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
}
