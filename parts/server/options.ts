/**
 * The server's options.
 *
 * @module
 */
import { version } from "../../package.json";
import {
  commands,
  fail,
  flag,
  readCommandLine,
  text,
  type Values,
  whole,
} from "../shared/command-line.ts";
import { maxName } from "../shared/text.ts";

const many = 2 ** 30;
const longestTimer = 2_147_483; // seconds: 2^31 ms do not fit

const table = {
  port: whole(0, 65_535, "TCP port; 0 takes a free one", 2000),
  host: text("ADDRESS", "address to listen on; 0.0.0.0 is open to everyone", "127.0.0.1"),
  maxClients: whole(1, many, "connections at once, counted from accept", 256),
  maxPerAddress: whole(0, many, "connections at once from one address; 0 is no limit", 0),
  maxLine: whole(1, many, "bytes in a line; a longer one is not sent", 4096),
  maxLag: whole(1, many, "bytes that a client may be behind before it is disconnected", 4_194_304),
  rate: whole(0, many, "lines a second from one client, bursts of twice that; 0 is no limit", 100),
  joinTimeout: whole(1, longestTimer, "seconds that a new client has to send a name", 30),
  spares: whole(0, 1000, "workers that wait ready for the next connections", 1),
  redis: text("URL", "share the room with other servers through this Redis or Valkey (none)"),
  room: text("NAME", "the room that they share", "lobby"),
  tlsCert: text("FILE", "certificate chain, PEM: accept TLS only; SIGHUP reads it again (none)"),
  tlsKey: text("FILE", "private key, PEM (none)"),
  passwordFile: text("FILE", "what --hash-password printed: asked for after the name (none)"),
  hashPassword: flag("ask for a password, print its hash, and exit"),
  insecurePassword: flag("allow a password without TLS beyond this machine"),
  verbose: flag("log what is said, too"),
};

const commandLine = {
  version,
  head: `pipechat ${version}: a chat server with one process per connection

usage: ${commands.server} [options]
`,
  options: table,
  tail: `\nThen, in other terminals: ${commands.client}\n`,
};

/** What the server was started with; numbers have the units that the table's help gives them. */
export type Options = Values<typeof table>;

/**
 * Reads the server's arguments. Ends it if they ask for the usage, the version or a password's hash, or with
 * one line that says what is wrong with them.
 */
export async function readOptions(args: string[]): Promise<Options> {
  if (!Bun.semver.satisfies(Bun.version, ">=1.4.0"))
    fail(1, `this is Bun ${Bun.version}, which cannot pass sockets: 1.4.0 or later is needed`);
  // It would run this script again beside what runs: a second listener, without the workers of the first.
  if (process.execArgv.includes("--hot"))
    fail(2, "--hot cannot replace a running server: use --watch, or restart it");
  const options = readCommandLine(commandLine, args, (options) => {
    checkRoom(options);
    // A longest line, by the longest of names, could not wait for anybody.
    if (options.maxLine + 4 * maxName + 3 > options.maxLag)
      throw new Error("--max-lag has to be larger than --max-line, by 200 bytes");
    return options;
  });
  if (options.hashPassword) await (await import("./hash-password.ts")).printPasswordHash();
  return options;
}

function checkRoom({ redis, room }: Options): void {
  // The URL is not shown: it may hold a password.
  if (redis && !(/^(redis|valkey)s?(\+\w+)*:\/\//.test(redis) && URL.canParse(redis)))
    throw new Error("--redis takes a URL, such as redis://127.0.0.1:6379");
  if (!redis && room !== "lobby") throw new Error("--room goes with --redis");
  if (redis && !/^[\w.-]+$/.test(room))
    throw new Error(`--room takes letters, digits, '.', '_' and '-', not '${room}'`);
}
