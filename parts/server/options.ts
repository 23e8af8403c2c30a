/**
 * The server's options.
 *
 * @module
 */
import { version } from "../../package.json";
import { fail, parseCommandLine, print } from "../shared/command-line.ts";

const usage = `pipechat ${version}: a chat server with one process per connection

usage: bun server.ts [options]
  --port N              TCP port; 0 takes a free one (2000)
  --host ADDRESS        address to listen on; 0.0.0.0 is open to everyone (127.0.0.1)
  --max-clients N       connections at once, counted from accept (256)
  --max-per-address N   connections at once from one address; 0 is no limit (0)
  --max-line N          bytes in a line; a longer one is not sent (4096)
  --max-lag N           bytes that a client may be behind before it is disconnected (4194304)
  --rate N              lines a second from one client, bursts of twice that; 0 is no limit (100)
  --join-timeout N      seconds that a new client has to send a name (30)
  --spares N            workers that wait ready for the next connections (1)
  --redis URL           share the room with other servers through this Redis or Valkey (none)
  --room NAME           the room that they share (lobby)
  --tls-cert FILE       certificate chain, PEM: TLS and nothing else; SIGHUP reads it again (none)
  --tls-key FILE        private key, PEM (none)
  --password-file FILE  what --hash-password printed: asked for after the name (none)
  --hash-password       ask for a password, print its hash, and exit
  --insecure-password   allow a password without TLS beyond this machine
  --verbose             log what is said, too
  -h, --help, --version print this, or the version

Then, in other terminals: bun client.ts
`;

export interface Options {
  port: number;
  host: string;
  /** Connections at once, in all and from one address. */
  maxClients: number;
  maxPerAddress: number;
  /** Bytes. */
  maxLine: number;
  maxLag: number;
  /** Lines a second. */
  rate: number;
  /** Seconds. */
  joinTimeout: number;
  spares: number;
  redis?: string;
  room: string;
  /** Files. */
  tlsCert?: string;
  tlsKey?: string;
  passwordFile?: string;
  hashPassword?: true;
  insecurePassword?: true;
  verbose?: true;
}

/**
 * Understands the server's arguments. Ends it if they ask for the usage or the version, or with one line
 * that says what is wrong with them.
 */
export function readOptions(args: string[]): Options {
  try {
    if (!Bun.semver.satisfies(Bun.version, ">=1.4.0"))
      fail(1, `this is Bun ${Bun.version}, which cannot pass sockets: 1.4.0 or later is needed`);
    const { values } = parseCommandLine(usage, args);
    if (values["help"]) print(usage);
    if (values["version"]) print(`${version}\n`);
    const options = values as unknown as Options;
    check(options);
    return options;
  } catch (error) {
    return fail(2, `${(error as Error).message} (see --help)`);
  }
}

function check({ redis, room }: Options): void {
  // The URL is not shown: it may hold a password.
  if (redis && !(/^(redis|valkey)s?(\+\w+)*:\/\//.test(redis) && URL.canParse(redis)))
    throw new Error("--redis takes a URL, such as redis://127.0.0.1:6379");
  if (!redis && room !== "lobby") throw new Error("--room goes with --redis");
  if (redis && !/^[\w.-]+$/.test(room))
    throw new Error(`--room takes letters, digits, '.', '_' and '-', not '${room}'`);
}
