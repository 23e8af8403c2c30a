/**
 * The client's options.
 *
 * @module
 */
import { createSecureContext } from "node:tls";
import { type Address, parseAddress } from "./address.ts";
import { fail, parseCommandLine, print } from "../shared/command-line.ts";

const usage = `usage: bun client.ts [options] [HOST[:PORT]] [NAME]

  HOST, PORT      where the server is: HOST, HOST:PORT, :PORT or [::1]:PORT (127.0.0.1:2000)
  NAME            what to be called (your login name)
  --tls           encrypt, and accept no certificate that is not valid for HOST
  --ca FILE       trust this authority (PEM) instead of the system's
  --no-reconnect  end when the connection is lost
  --no-color      no colours; so does NO_COLOR in the environment
  --no-welcome    send at once: for other servers, which send no '* welcome'
  --listen        in a pipe: stay when stdin has ended
  --quiet         in a pipe: print nothing but errors
  -h, --help      print this

A password that the server asks for is read without echo, or taken from PIPECHAT_PASSWORD.
`;

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
 * Understands the client's arguments. Ends it if they ask for the usage, or with one line that says what
 * is wrong with them.
 */
export async function readClientOptions(args: string[]): Promise<ClientOptions> {
  try {
    const { values, positionals } = parseCommandLine(usage, args, true);
    if (values["help"]) print(usage);
    const [where = "", name = login(), extra] = positionals;
    if (extra !== undefined) throw new Error(`'${extra}' is one word too many`);
    if (/^\d+$/.test(name)) throw new Error(`a port goes with its host: '${where}:${name}'`);
    const address = parseAddress(where);
    const { ca } = values as { ca?: string };
    if (values["tls"]) address.tls = ca ? { ca: await Bun.file(ca).text() } : {};
    else if (ca) throw new Error("--ca goes with --tls");
    if (address.tls) createSecureContext(address.tls); // throws if the authority is none
    return {
      address,
      name,
      colour: !values["noColor"] && !process.env["NO_COLOR"],
      reconnect: !values["noReconnect"],
      welcomes: !values["noWelcome"],
      listen: values["listen"] === true,
      quiet: values["quiet"] === true,
    };
  } catch (error) {
    return fail(2, `${(error as Error).message} (see --help)`);
  }
}

/** The user's login name: Bun's userInfo() knows it from the environment only. */
function login(): string {
  return Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
}
