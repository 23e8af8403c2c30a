/**
 * What the servers of a room keep in Redis or Valkey, and each step that changes it. No other file
 * knows Redis.
 *
 * A room has four keys. The braces keep them on one shard of a cluster:
 *
 *     pipechat:ROOM            the stream; an entry is a block of whole lines, and who appended it
 *     {pipechat:ROOM}:entries  how many entries there ever were: each carries its number
 *     {pipechat:ROOM}:names    name -> the server that has it, and the pid of the worker
 *     {pipechat:ROOM}:servers  server -> the second in which its lease ends, by Redis's clock
 *
 * @module
 */

const leaseSeconds = 9; // a server that does not renew its lease for so long is lost
const maxRoundTrip = 4000; // ms; a Redis that takes longer to answer counts as away

/** How long a connection may go unused, ms: our lease is renewed so often, an XREAD waits so long. */
export const beatMs = 2000;

const silenceMs = beatMs + maxRoundTrip + 500; // a connection that brings nothing for so long is lost
const maxEntries = 10_000; // the stream is trimmed to about so many

/** The number of the entry that others append in the name of a lost server: its people have left. */
export const lastWords = 0;

/** A block that a server appends, with its number among all that this server appends: 1, 2, 3 … */
export interface Entry {
  number: number;
  block: string;
}

/** An entry of the stream, as it is read. */
export interface Appended extends Entry {
  /** The server that appended it, or in whose name others did. */
  from: string;
  /** Its number among all entries that there ever were. */
  position: number;
  /** Redis's ID of it, which the next read begins behind. */
  streamId: string;
}

/** Who has a name. */
export interface Owner {
  name: string;
  server: string;
  pid: number;
}

/** A Redis, or a node of a cluster. */
export interface Node {
  url: string;
  /** Whether it is about to get the room: until then it serves only those who know, and say so. */
  isImporting?: boolean;
}

// Each script is one step. It must bear that its beginning is done twice, hence SET and not INCR: if
// Redis 7.0 is killed while it writes a step to disk, it repeats the first commands of that step when
// it starts for the second time after that.
const prelude = `
  local stream, entries, names, servers = unpack(KEYS)
  local me = ARGV[1]
  local function add(from, number, block)
    local entry = (redis.call('GET', entries) or 0) + 1
    redis.call('SET', entries, entry)
    return {redis.call('XADD', stream, 'MAXLEN', '~', ${maxEntries}, '*',
      'from', from, 'number', number, 'entry', entry, 'block', block), entry}
  end
  local function server(owner)
    return owner and string.match(owner, '%S+')
  end`;

/** Appends a block, and then frees the names that nobody uses any more. */
const appendScript = `${prelude}
  for i = 4, #ARGV do
    if server(redis.call('HGET', names, ARGV[i])) == me then redis.call('HDEL', names, ARGV[i]) end
  end
  return add(me, ARGV[2], ARGV[3])`;

/**
 * Renews our lease and claims names; gives how many there are, and which of them others have. Before
 * that it ends the servers whose lease has run out, and appends in their name that their people left.
 * If our own lease has run out too, Redis was away, not they: then it renews theirs as well. A lease
 * of 0 seconds ends our own.
 */
const claimScript = `${prelude}
  local lease = tonumber(ARGV[2])
  local now = tonumber(redis.call('TIME')[1])
  local function drop(lost, why)
    local lines = {}
    local all = redis.call('HGETALL', names)
    for i = 1, #all, 2 do
      if server(all[i + 1]) == lost then
        redis.call('HDEL', names, all[i])
        table.insert(lines, '* ' .. all[i] .. ' left (their server ' .. why .. ')\\n')
      end
    end
    redis.call('ZREM', servers, lost)
    if #lines > 0 then add(lost, ${lastWords}, table.concat(lines)) end
  end
  local mine = tonumber(redis.call('ZSCORE', servers, me) or now + 1)
  for _, lost in ipairs(redis.call('ZRANGEBYSCORE', servers, '-inf', now)) do
    if mine <= now then redis.call('ZADD', servers, now + lease, lost)
    else drop(lost, 'was lost') end
  end
  if lease == 0 then return drop(me, 'was shut down') end
  redis.call('ZADD', servers, now + lease, me)
  local taken = {}
  for i = 3, #ARGV, 2 do
    local owner = server(redis.call('HGET', names, ARGV[i]))
    if owner and owner ~= me then table.insert(taken, ARGV[i])
    else redis.call('HSET', names, ARGV[i], me .. ' ' .. ARGV[i + 1]) end
  end
  return {redis.call('HLEN', names), taken}`;

/**
 * Two connections to Redis, until one of them is lost or closed. Every method rejects from then on, and
 * also when Redis refuses: its callers treat both alike.
 */
export class Store {
  readonly #writer: Bun.RedisClient;
  readonly #reader: Bun.RedisClient; // XREAD blocks its connection: it needs one of its own
  readonly #server: string;
  readonly #stream: string;
  readonly #keys: string[];
  readonly #node: Node;

  /**
   * @param server our ID among the servers of the room
   * @param room the room's name
   */
  constructor(node: Node, server: string, room: string) {
    // We reconnect ourselves. A client that queues commands, or repeats them, would leave us not
    // knowing what Redis has got. The first command connects, and rejects if that is not possible.
    const options = { autoReconnect: false, connectionTimeout: maxRoundTrip };
    const readerSilenceMs = silenceMs + maxRoundTrip; // at first it waits for the writer's answer, too
    this.#writer = new Bun.RedisClient(node.url, { ...options, idleTimeout: silenceMs });
    this.#reader = new Bun.RedisClient(node.url, { ...options, idleTimeout: readerSilenceMs });
    this.#node = node;
    this.#server = server;
    this.#stream = `pipechat:${room}`;
    const others = ["entries", "names", "servers"].map((key) => `{${this.#stream}}:${key}`);
    this.#keys = [this.#stream, ...others];
  }

  /**
   * Shows that both connections work and that the stream can be read. Changes nothing in Redis.
   *
   * @returns the ID of the stream's last entry
   */
  async prove(): Promise<string> {
    const [last] = await Promise.all([
      this.#send(this.#writer, "XREVRANGE", [this.#stream, "+", "-", "COUNT", "1"]),
      this.#send(this.#reader, "XREAD", ["COUNT", "1", "STREAMS", this.#stream, "$"]),
    ]);
    return last[0]?.[0] ?? "0-0";
  }

  #send(client: Bun.RedisClient, command: string, args: string[]): Promise<any> {
    if (this.#node.isImporting) client.send("ASKING", []).catch(() => {}); // holds for the next command
    return client.send(command, args);
  }

  #run(script: string, args: (string | number)[]): Promise<any> {
    const all = [script, "4", ...this.#keys, this.#server, ...args.map(String)];
    return this.#send(this.#writer, "EVAL", all);
  }

  /** Appends a block and frees names behind it. */
  async append(
    { number, block }: Entry,
    freed: string[],
  ): Promise<Pick<Appended, "streamId" | "position">> {
    const [streamId, position] = await this.#run(appendScript, [number, block, ...freed]);
    return { streamId, position };
  }

  /**
   * Renews our lease and claims names, each with its worker's pid.
   *
   * @returns how many people are online, and the names that other servers have
   */
  claim(names: Iterable<[string, number]>): Promise<[online: number, taken: string[]]> {
    return this.#run(claimScript, [leaseSeconds, ...[...names].flat()]);
  }

  /** Ends our lease, frees our names and tells the others that their people left. */
  async leave(): Promise<void> {
    await this.#run(claimScript, [0]);
  }

  /** All names of the room, sorted by server. */
  async owners(): Promise<Owner[]> {
    const owners: Record<string, string> = await this.#send(this.#writer, "HGETALL", [
      this.#keys[2]!,
    ]);
    return Object.entries(owners)
      .map(([name, owner]): Owner => {
        const [server = "", pid] = owner.split(" ");
        return { name, server, pid: Number(pid) };
      })
      .sort((a, b) => (a.server + a.name < b.server + b.name ? -1 : 1));
  }

  /**
   * Reads what was appended behind an entry: 64 entries at most, none if nothing comes for a while.
   * An entry that no server of ours can have written comes as its ID alone.
   */
  async read(after: string): Promise<(Appended | string)[]> {
    const options = ["COUNT", "64", "BLOCK", String(beatMs), "STREAMS", this.#stream];
    const reply = await this.#send(this.#reader, "XREAD", [...options, after]);
    const entries: [string, string[]][] = reply?.[this.#stream] ?? [];
    return entries.map(([streamId, fields]) => parseEntry(streamId, fields) ?? streamId);
  }

  /** The URLs of all nodes of the cluster; none if it is no cluster, or will not say. */
  async nodes(): Promise<string[]> {
    type Slots = [from: number, to: number, ...nodes: [host: string | null, port: number][]];
    const ranges: Slots[] = await this.#reader.send("CLUSTER", ["SLOTS"]).catch(() => []);
    const nodes = ranges.flatMap(([, , ...nodes]) => nodes);
    return nodes.map(([host, port]) => urlOf(this.#node.url, host ?? "", port));
  }

  /** Closes both connections: what waits for an answer rejects. */
  close(): void {
    this.#writer.close();
    this.#reader.close();
  }
}

/** Understands an entry's fields, name and value in turn. */
export function parseEntry(streamId: string, fields: string[]): Appended | undefined {
  const values: Record<string, string> = {};
  for (let at = 0; at < fields.length; at += 2) values[fields[at]!] = fields[at + 1]!;
  const { from, number = "", entry = "", block } = values;
  if (!from || block === undefined || /[^\n]$/.test(block)) return undefined;
  if (!/^\d{1,15}$/.test(number) || !/^\d{1,15}$/.test(entry)) return undefined;
  return { streamId, from, number: Number(number), position: Number(entry), block };
}

/** The URL of another node of a cluster; without a host, it has the same. */
function urlOf(known: string, host: string, port: string | number): string {
  const url = new URL(known);
  if (host) url.hostname = host.includes(":") ? `[${host}]` : host;
  url.port = String(port);
  return url.href;
}

/** The node that a cluster's node names when it is asked for a room that it has not, or soon will not. */
export function redirection(url: string, { message }: Error): Node | undefined {
  const [, kind, host, port] = /^(MOVED|ASK) \d+ (\S*):(\d+)$/.exec(message) ?? [];
  return port ? { url: urlOf(url, host!, port), isImporting: kind === "ASK" } : undefined;
}

/** Whether Redis has answered, but not as we wished: it may do so in a moment. */
export function isRefusal(error: (Error & { code?: string }) | undefined): boolean {
  return error?.code === "ERR_REDIS_SERVER_ERROR";
}

/** Says what is wrong with a Redis, and never the password in its URL. */
export function explain(url: string, error: Error & { code?: string }): string {
  const { host, pathname } = new URL(url);
  const redis = `Redis at ${host || pathname}`;
  // Bun takes whatever Redis refuses at the beginning for a wrong password.
  const isFull = error.message.includes("max number of clients");
  if (error.code === "ERR_REDIS_AUTHENTICATION_FAILED" && !isFull)
    return `${redis} does not accept the password, or wants one: check --redis`;
  if (/^ERR_REDIS_(CONNECTION|IDLE)_TIMEOUT/.test(error.code ?? ""))
    return `${redis} takes more than ${maxRoundTrip / 1000} s to answer: check the way to it, or check --redis`;
  if (error.code?.startsWith("ERR_REDIS_CONNECTION"))
    return `cannot reach ${redis}: start it, or check --redis`;
  return `cannot use ${redis}: ${error.message.split(" script: ")[0]}`;
}
