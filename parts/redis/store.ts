/**
 * What the servers of a room keep in Redis or Valkey, and each step that changes it.
 *
 * A room has three keys. The braces keep them on one shard of a cluster:
 *
 *     pipechat:ROOM            the stream; an entry is a block of whole lines, and who appended it
 *     {pipechat:ROOM}:names    a name's key -> the server that has it, the name, the worker's pid
 *     {pipechat:ROOM}:servers  server -> when its lease ends, in seconds by Redis's clock
 *
 * An entry's ID is the time, which never goes back, and its number among all entries that there ever
 * were: 1764068000000-1, 1764068000123-2.
 *
 * @module
 */
import type { Remote } from "../server/room.ts";
import { nameKey } from "../shared/text.ts";
import { urlOf } from "./node.ts";
import type { Batch } from "./queue.ts";
import { timing } from "./timing.ts";

const maxEntries = 10_000; // the stream is trimmed to about so many

/** The number of the entry that others append in the name of a lost server: its people have left. */
export const lastWords = 0;

/** An entry of the stream. */
export interface Entry {
  streamId: string;
  from: string; // the server that appended it, or in whose name others did
  number: number; // its number among all that this server appends: 1, 2, 3 …; NaN if no server did
  block: string;
}

/** A name, and the pid of the worker that serves its client. */
export type Claim = Omit<Remote, "server">;

/** What a claim gives: how many people are online, and the names that others have, or that nobody had. */
export type Claimed = [online: number, taken: string[], free: string[]];

const prelude = `
  local stream, names, servers = unpack(KEYS)
  local me = ARGV[1]
  local time = redis.call('TIME')
  local now = time[1] + time[2] / 1e6
  local function add(from, number, block)
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    local ms, position = string.match(last and last[1] or '0-0', '(%d+)-(%d+)')
    ms = math.max(ms, math.floor(now * 1000))
    return redis.call('XADD', stream, 'MAXLEN', '~', ${maxEntries},
      string.format('%.0f-%.0f', ms, position + 1), 'from', from, 'number', number, 'block', block)
  end
  local function owner(key)
    return string.match(redis.call('HGET', names, key) or '', '%S+')
  end`;

/** Appends a block, and frees names of ours. */
const appendScript = `${prelude}
  for i = 4, #ARGV do
    if owner(ARGV[i]) == me then redis.call('HDEL', names, ARGV[i]) end
  end
  return add(me, ARGV[2], ARGV[3])`;

/**
 * Renews our lease and claims names. Before that it ends the servers whose lease has run out, and
 * appends in their name that their people left. If our own lease has run out too, Redis was away, not
 * they: then it renews theirs as well. A lease of 0 seconds ends our own.
 */
const claimScript = `${prelude}
  local lease = tonumber(ARGV[2])
  local function drop(lost, why)
    local lines = {}
    local all = redis.call('HGETALL', names)
    for i = 1, #all, 2 do
      local server, name = string.match(all[i + 1], '(%S+) (%S+)')
      if server == lost then
        redis.call('HDEL', names, all[i])
        table.insert(lines, '* ' .. name .. ' left (their server ' .. why .. ')\\n')
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
    local server = owner(ARGV[i])
    if not server then table.insert(free, ARGV[i]) end
    if server and server ~= me and server ~= ARGV[3] then table.insert(taken, ARGV[i])
    else redis.call('HSET', names, ARGV[i], me .. ' ' .. ARGV[i + 1]) end
  end
  return {redis.call('HLEN', names), taken, free}`;

/** Two connections to Redis. A command that fails closes both, and whatever waits for an answer rejects. */
export class Store {
  /** Rejects when they are closed, with what has failed first. */
  readonly closed = Promise.withResolvers<never>();
  readonly #writer: Bun.RedisClient;
  readonly #reader: Bun.RedisClient; // XREAD blocks its connection: it needs one of its own
  readonly #keys: [stream: string, names: string, servers: string];

  /** For a room on a node, and the server that has this ID there. */
  constructor(
    private readonly url: string,
    private readonly server: string,
    room: string,
  ) {
    // We reconnect ourselves. A client that queues commands, or repeats them, would leave us not
    // knowing what Redis has got. The first command connects, and rejects if that is not possible.
    const { maxRoundTrip, silence } = timing;
    const options = { autoReconnect: false, connectionTimeout: maxRoundTrip, idleTimeout: silence };
    this.#writer = new Bun.RedisClient(this.url, options);
    options.idleTimeout += maxRoundTrip; // at first, the reader waits for the writer's answer, too
    this.#reader = new Bun.RedisClient(this.url, options);
    const stream = `pipechat:${room}`;
    this.#keys = [stream, `{${stream}}:names`, `{${stream}}:servers`];
    this.closed.promise.catch(() => {}); // nobody may be waiting for it
  }

  #send(client: Bun.RedisClient, command: string, ...args: string[]): Promise<any> {
    return client.send(command, args).catch((error) => {
      this.close(error);
      throw error;
    });
  }

  #run(script: string, ...args: (string | number)[]): Promise<any> {
    const all = ["3", ...this.#keys, this.server, ...args.map(String)];
    return this.#send(this.#writer, "EVAL", script, ...all);
  }

  /** Shows, without a change, that all works for reading; gives the ID of the stream's last entry. */
  async prove(): Promise<string> {
    const [stream] = this.#keys;
    await this.#send(this.#reader, "XREAD", "COUNT", "1", "STREAMS", stream, "$");
    const [last] = await this.#send(this.#reader, "XREVRANGE", stream, "+", "-", "COUNT", "1");
    return last?.[0] ?? "0-0";
  }

  /** Appends a block and frees names behind it; gives the entry's ID. */
  append({ number, block, freed }: Batch): Promise<string> {
    return this.#run(appendScript, number, block, ...freed);
  }

  /** Renews our lease and claims names, also those that the server `from` has. */
  claim(claims: Claim[], from = ""): Promise<Claimed> {
    const args = claims.flatMap(({ name, pid }) => [nameKey(name), `${name} ${pid}`]);
    return this.#run(claimScript, timing.lease / 1000, from, ...args);
  }

  /** Ends our lease, frees our names and tells the others that their people left. */
  leave(): Promise<void> {
    return this.#run(claimScript, 0);
  }

  /** Who is in the room, sorted by server, each with the ID of its server. */
  async people(): Promise<Remote[]> {
    const owners: Record<string, string> = await this.#send(this.#writer, "HGETALL", this.#keys[1]);
    return Object.values(owners)
      .sort()
      .map((owner) => owner.split(" "))
      .map(([server = "", name = "", pid]) => ({ server, name, pid: Number(pid) }));
  }

  /** Reads what was appended behind an entry: 64 entries at most, none if nothing comes for a while. */
  async read(after: string): Promise<Entry[]> {
    const [stream] = this.#keys;
    const options = ["COUNT", "64", "BLOCK", String(timing.beat), "STREAMS", stream, after];
    const reply = await this.#send(this.#reader, "XREAD", ...options);
    const entries: [string, string[]][] = reply?.[stream] ?? [];
    return entries.map(([streamId, fields]) => parseEntry(streamId, fields));
  }

  /** The URLs of all nodes of the cluster; none if it is no cluster, or will not say. */
  async nodes(): Promise<string[]> {
    type Slots = [from: number, to: number, ...nodes: [host: string | null, port: number][]];
    const ranges: Slots[] = await this.#reader.send("CLUSTER", ["SLOTS"]).catch(() => []);
    const nodes = ranges.flatMap(([, , ...nodes]) => nodes);
    return nodes.map(([host, port]) => urlOf(this.url, host ?? "", port));
  }

  close(reason?: Error): void {
    this.closed.reject(reason); // the first one counts
    this.#writer.close();
    this.#reader.close();
  }
}

/** Understands an entry's fields, which anyone may have written. */
export function parseEntry(streamId: string, fields: string[]): Entry {
  const [, from = "", , number, , block = ""] = fields;
  const isValid = from !== "" && /^\d{1,15}$/.test(number ?? "") && !/[^\n]$/.test(block);
  return { streamId, from, number: isValid ? Number(number) : NaN, block };
}
