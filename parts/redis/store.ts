/**
 * What the servers of a room keep in Redis or Valkey, and each step that changes it.
 *
 * A room has four keys. The braces keep them on one shard of a cluster:
 *
 *     pipechat:ROOM            the stream; an entry is a block of whole lines, and who appended it
 *     {pipechat:ROOM}:entries  how many entries there ever were: each carries its number
 *     {pipechat:ROOM}:names    name -> the server that has it, and the pid of the worker
 *     {pipechat:ROOM}:servers  server -> when its lease ends, in seconds by Redis's clock
 *
 * @module
 */
import type { Remote } from "../server/room.ts";
import { type Node, urlOf } from "./node.ts";
import type { Batch } from "./queue.ts";
import { timing } from "./timing.ts";

const maxEntries = 10_000; // the stream is trimmed to about so many

/** The number of the entry that others append in the name of a lost server: its people have left. */
export const lastWords = 0;

/** An entry of the stream. */
export interface Entry {
  streamId: string; // Redis's ID of it, which the next read begins behind
  position: number; // its number among all entries that there ever were
  from: string; // the server that appended it, or in whose name others did
  number: number; // its number among all that this server appends: 1, 2, 3 …
  block: string;
}

// Each script is one step. Running its first commands twice must be harmless, hence SET and not INCR: if
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

/** Appends a block, and frees names of ours. */
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
  local time = redis.call('TIME')
  local now = time[1] + time[2] / 1e6
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
  local taken, free = {}, {}
  for i = 4, #ARGV, 2 do
    local owner = server(redis.call('HGET', names, ARGV[i]))
    if not owner then table.insert(free, ARGV[i]) end
    if owner and owner ~= me and owner ~= ARGV[3] then table.insert(taken, ARGV[i])
    else redis.call('HSET', names, ARGV[i], me .. ' ' .. ARGV[i + 1]) end
  end
  return {redis.call('HLEN', names), taken, free}`;

/** Two connections to Redis. A command that fails closes both, and whatever waits for an answer rejects. */
export class Store {
  /** Resolved when they are closed, with what has failed. */
  readonly closed = Promise.withResolvers<Error | undefined>();
  readonly #writer: Bun.RedisClient;
  readonly #reader: Bun.RedisClient; // XREAD blocks its connection: it needs one of its own
  readonly #stream: string;
  readonly #keys: string[];

  /** For a room on a node, and the server that has this ID there. */
  constructor(
    private readonly node: Node,
    private readonly server: string,
    room: string,
  ) {
    // We reconnect ourselves. A client that queues commands, or repeats them, would leave us not
    // knowing what Redis has got. The first command connects, and rejects if that is not possible.
    const { maxRoundTrip, silence } = timing;
    const options = { autoReconnect: false, connectionTimeout: maxRoundTrip, idleTimeout: silence };
    this.#writer = new Bun.RedisClient(node.url, options);
    options.idleTimeout += maxRoundTrip; // at first, the reader waits for the writer's answer, too
    this.#reader = new Bun.RedisClient(node.url, options);
    this.#stream = `pipechat:${room}`;
    const others = ["entries", "names", "servers"].map((key) => `{${this.#stream}}:${key}`);
    this.#keys = [this.#stream, ...others];
  }

  #send(client: Bun.RedisClient, command: string, args: string[]): Promise<any> {
    if (this.node.isImporting) client.send("ASKING", []).catch(() => {}); // for the next command
    return client.send(command, args).catch((error) => {
      this.close(error);
      throw error;
    });
  }

  #run(script: string, args: (string | number)[]): Promise<any> {
    const all = [script, "4", ...this.#keys, this.server, ...args.map(String)];
    return this.#send(this.#writer, "EVAL", all);
  }

  /** Shows, without a change, that all works for reading; gives the ID of the stream's last entry. */
  async prove(): Promise<string> {
    const [last] = await Promise.all([
      this.#send(this.#writer, "XREVRANGE", [this.#stream, "+", "-", "COUNT", "1"]),
      this.#send(this.#reader, "XREAD", ["COUNT", "1", "STREAMS", this.#stream, "$"]),
    ]);
    return last[0]?.[0] ?? "0-0";
  }

  /** Appends a block and frees names behind it. */
  append({ number, block, freed }: Batch): Promise<[streamId: string, position: number]> {
    return this.#run(appendScript, [number, block, ...freed]);
  }

  /**
   * Renews our lease and claims names, each with its worker's pid.
   *
   * @param from a server whose names we take over
   * @returns how many people are online, the names that other servers have, and those that nobody had
   */
  claim(
    names: Iterable<[string, number]>,
    from = "",
  ): Promise<[online: number, taken: string[], free: string[]]> {
    return this.#run(claimScript, [timing.lease / 1000, from, ...[...names].flat()]);
  }

  /** Ends our lease, frees our names and tells the others that their people left. */
  leave(): Promise<void> {
    return this.#run(claimScript, [0]);
  }

  /** Who is in the room, sorted by server, each with the ID of its server. */
  async people(): Promise<Remote[]> {
    const owners = await this.#send(this.#writer, "HGETALL", [this.#keys[2]!]);
    const people = Object.entries<string>(owners).map(([name, owner]) => {
      const [server = "", pid] = owner.split(" ");
      return { name, server, pid: Number(pid) };
    });
    return people.sort((a, b) => (a.server + a.name < b.server + b.name ? -1 : 1));
  }

  /**
   * Reads what was appended behind an entry: 64 entries at most, none if nothing comes for a while.
   * An entry that no server of ours can have written comes as its ID alone.
   */
  async read(after: string): Promise<(Entry | string)[]> {
    const options = ["COUNT", "64", "BLOCK", String(timing.beat), "STREAMS", this.#stream, after];
    const reply = await this.#send(this.#reader, "XREAD", options);
    const entries: [string, string[]][] = reply?.[this.#stream] ?? [];
    return entries.map(([streamId, fields]) => parseEntry(streamId, fields) ?? streamId);
  }

  /** The URLs of all nodes of the cluster; none if it is no cluster, or will not say. */
  async nodes(): Promise<string[]> {
    type Slots = [from: number, to: number, ...nodes: [host: string | null, port: number][]];
    const ranges: Slots[] = await this.#reader.send("CLUSTER", ["SLOTS"]).catch(() => []);
    const nodes = ranges.flatMap(([, , ...nodes]) => nodes);
    return nodes.map(([host, port]) => urlOf(this.node.url, host ?? "", port));
  }

  close(reason?: Error): void {
    this.closed.resolve(reason); // the first reason counts
    this.#writer.close();
    this.#reader.close();
  }
}

/** Understands an entry's fields, name and value in turn. */
export function parseEntry(streamId: string, fields: string[]): Entry | undefined {
  const values: Record<string, string> = {};
  for (let at = 0; at < fields.length; at += 2) values[fields[at]!] = fields[at + 1]!;
  const { from, number = "", entry = "", block } = values;
  if (!from || block === undefined || /[^\n]$/.test(block)) return undefined;
  if (!/^\d{1,15}$/.test(number) || !/^\d{1,15}$/.test(entry)) return undefined;
  return { streamId, from, number: Number(number), position: Number(entry), block };
}
