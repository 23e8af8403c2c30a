/**
 * pipechat's link: servers that share a room through Redis or Valkey. `bun server.ts --redis URL`
 * imports it; without that option nothing of it is loaded. It is the one place that knows Redis.
 *
 * The room's log is a stream. What a server's own clients say, that server delivers at once and
 * appends; what the others append, it reads and delivers. Notices (`* ann joined`) are lines like all
 * others, so everyone sees them in order with what was said. A room has four keys, which the braces
 * keep on one shard of a cluster:
 *
 *     pipechat:ROOM            the stream; an entry is a block of whole lines, and who appended it
 *     {pipechat:ROOM}:entries  how many entries there ever were: each carries its number
 *     {pipechat:ROOM}:names    name -> the server that has it, and the pid of the worker
 *     {pipechat:ROOM}:servers  server -> the second in which its lease ends, by Redis's clock
 *
 * Nothing is lost or told twice when Redis goes away and comes back. What is being appended keeps its
 * number and is sent again until Redis has answered; readers skip a number that they have seen. What
 * is said meanwhile waits in a bounded queue. Reading goes on behind the last entry that was read, and
 * a number that is missing there is told to the room.
 *
 * @module
 */
import { hostname } from "node:os";

/** What the link needs of its server. */
export interface Room {
  /** Delivers whole lines to every client here; pending while a flood has to wait for some of them. */
  hear(lines: Buffer): Promise<void>;
  /** Tells every client here something about the link. */
  inform(text: string): void;
  /** A name of ours is somebody else's now: its client here must get another. */
  rename(name: string): void;
  log(line: string): void;
}

const beatMs = 3000; // between two renewals of our lease
const leaseSeconds = 9; // a server that renews nothing for so long is lost, and its names are free
const blockMs = 2000; // an XREAD waits so long for an entry
const silenceMs = 6000; // Redis is away if a connection brings nothing for so long
const maxEntries = 10_000; // the stream is trimmed to about so many
const maxBlock = 65_536; // bytes that are appended, or delivered, together; a single block may be more
const maxQueued = 8 * 2 ** 20; // bytes that wait to be appended

// --- State ---------------------------------------------------------------------------------------

/** Lines to append; or a name to free, behind the lines that were said under it. */
interface Item {
  block: Buffer;
  freed?: string;
}

/** A block on its way, with its number among all that this server appends. */
interface Entry {
  number: number;
  block: string;
  freed: string[];
}

const id = `${hostname()}/${process.pid}/${crypto.randomUUID().slice(0, 8)}`; // another at each start
const label = (server: string) => server.replace(/^(.*)\/(\d+)\/\w+$/, "server $2 on $1");

let url = "";
let stream = "";
let keys: string[] = [];
let room: Room;
let life = Promise.resolve(); // ends when the link is closed
let closing = false;

let up = false; // both connections work, as far as we know
let writer: Bun.RedisClient;
let reader: Bun.RedisClient; // XREAD blocks its connection: it needs one of its own

const names = new Map<string, number>(); // our clients' names, with their workers' pids
const claiming = new Set<string>(); // names that we have asked Redis for

let queue: Item[] = [];
let queued = 0; // bytes in the queue
let missed = 0; // lines that found it full
let entries = 0; // that we have made: the number of the last
let sending: Entry | undefined; // the one that Redis has not answered for
let wake = () => {}; // there is something to do for write()

let lastId = ""; // of the stream's entries that were read; empty before we have appended the first
let lastEntry = 0; // its number among all
const seen = new Map<string, number>(); // server -> the number of its last block that was read
let listing: Promise<string> | undefined; // the answer to /who that is being made

// --- What runs inside Redis, as one step each ----------------------------------------------------

// A step must bear that its beginning is done twice, hence SET and not INCR: of one that Redis 7.0 was
// writing to disk when it was killed, the first commands are done at the next start but one.
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

/** Appends a block; and frees the names that nobody needs behind it. */
const appendScript = `${prelude}
  for i = 4, #ARGV do
    if server(redis.call('HGET', names, ARGV[i])) == me then redis.call('HDEL', names, ARGV[i]) end
  end
  return add(me, ARGV[2], ARGV[3])`;

/**
 * Renews our lease and claims names, gives how many there are and which we cannot have. Before that
 * it ends the servers whose lease has run out, and tells that their people left: with the number 0,
 * in their name. But if our own lease has run out too, it was Redis that was away, and they get
 * another. A lease of 0 seconds ends our own.
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
    if #lines > 0 then add(lost, 0, table.concat(lines)) end
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

/** Runs a script. Rejects when Redis is away, or refuses: the caller treats both alike. */
function evaluate(script: string, args: (string | number)[]): Promise<any> {
  return writer.send("EVAL", [script, "4", ...keys, id, ...args.map(String)]);
}

function claimAll(claims: Iterable<[string, number]>): Promise<[online: number, taken: string[]]> {
  return evaluate(claimScript, [leaseSeconds, ...[...claims].flat()]);
}

// --- What the server calls -----------------------------------------------------------------------

/** Links the server to a room. Rejects, with a line for a person, if that is not possible now. */
export async function open(redisUrl: string, name: string, server: Room): Promise<void> {
  url = redisUrl;
  stream = `pipechat:${name}`;
  keys = [stream, ...["entries", "names", "servers"].map((key) => `{${stream}}:${key}`)];
  room = server;
  try {
    await connect();
  } catch (error) {
    throw new Error(explain(error as Error));
  }
  life = stay();
}

/** Passes lines on to the other servers. Takes any number: those that are too many are counted. */
export function append(block: Buffer): void {
  if (missed > 0 && queued < maxQueued / 2) tellMissed();
  if (missed > 0 || queued + block.length > maxQueued) {
    if (missed === 0)
      room.inform("too much waits for the link: other servers miss what is said from now");
    for (let at = -1; (at = block.indexOf("\n", at + 1)) >= 0;) missed++;
    return;
  }
  queue.push({ block });
  queued += block.length;
  wake();
}

/** Whether more is said here than Redis takes: a flood had better wait. */
export function behind(): boolean {
  return up && queued > maxQueued / 2;
}

/**
 * Claims a name for a worker's client over all servers; while the link is lost, over our own.
 *
 * @returns how many are online with it; 0 if somebody has the name
 */
export async function claim(name: string, pid: number): Promise<number> {
  if (names.has(name) || claiming.has(name)) return 0;
  claiming.add(name);
  const asked = writer;
  let online = names.size + 1;
  let taken: string[] = [];
  try {
    if (up) [online, taken] = await claimAll([[name, pid]]);
  } catch {
    if (asked === writer) disconnect(); // on return, beat() claims what we have
  }
  claiming.delete(name);
  if (taken.length > 0) return 0;
  names.set(name, pid);
  return online;
}

/** Whether a name is claimed for a client of ours. */
export function owns(name: string): boolean {
  return names.has(name);
}

/** Frees a name, behind all that was appended before. */
export function release(name: string): void {
  if (!names.delete(name) || !up) return; // connect() frees what is left over
  queue.push({ block: Buffer.alloc(0), freed: name });
  wake();
}

/** Lists everyone, grouped by server, ours first. Those who ask at the same time share an answer. */
export function who(): Promise<string> {
  return (listing ??= list().finally(() => (listing = undefined)));
}

async function list(): Promise<string> {
  const groups = new Map([[id, [...names]]]);
  const others = await everyone().catch(() => undefined);
  for (const [name, server, pid] of others ?? [])
    if (server !== id) groups.set(server, [...(groups.get(server) ?? []), [name, pid]]);
  const lines = [...groups].map(([server, people]) => {
    const heading = `\n* ${label(server)}${server === id ? ", this one" : ""}:`;
    return heading + people.map(([name, pid]) => `\n* ${name} (worker ${pid})`).join("");
  });
  if (!others) lines.push("\n* the link is lost: who is on other servers is not known");
  return `${[...groups.values()].flat().length} online:${lines.join("")}`;
}

/** All names of the room, sorted. */
async function everyone(): Promise<[name: string, server: string, pid: number][]> {
  if (!up) throw new Error("the link is lost");
  const owners: Record<string, string> = await writer.send("HGETALL", [keys[2]!]);
  return Object.entries(owners)
    .map(([name, owner]): [string, string, number] => {
      const [server = "", pid] = owner.split(" ");
      return [name, server, Number(pid)];
    })
    .sort(([a, x], [b, y]) => (x + a < y + b ? -1 : 1));
}

/** Ends the link when all is appended that was said: frees our names and tells that they left. */
export async function close(): Promise<void> {
  closing = true;
  wake();
  if (up) await life;
  if (queued > 0 || sending?.block)
    room.log("the link is lost: other servers miss what was said last");
}

// --- The link, from connecting to the end --------------------------------------------------------

/** Keeps the link. Never rejects. */
async function stay(): Promise<void> {
  for (;;) {
    const loops = [write(), read()];
    const reason = await Promise.race(loops).catch((error: Error) => error.message);
    disconnect(); // which ends the other one, too
    await Promise.allSettled(loops);
    if (closing) return;
    room.log(`link: ${reason ?? "a claim failed"}`);
    room.inform("link to other servers lost");
    for (let pause = 100; !closing; pause = Math.min(2 * pause, 2000)) {
      const failure = await connect().catch((error: Error) => error);
      if (!failure) break;
      await Bun.sleep(pause);
    }
    if (closing) return;
    room.inform("link is back");
  }
}

/** Connects, appends what was on its way and renews our claims. Rejects if that is not possible. */
async function connect(): Promise<void> {
  // We reconnect ourselves, to know at any time what Redis has got: what a client of Bun's queues or
  // sends again, nobody counts. The first command connects, and tells why it could not.
  const options = { autoReconnect: false, connectionTimeout: 5000, idleTimeout: silenceMs };
  writer = new Bun.RedisClient(url, options);
  reader = new Bun.RedisClient(url, options);
  try {
    // If there is nothing to append, an empty block shows that Redis takes writes.
    await send((sending ??= take() ?? { number: ++entries, block: "", freed: [] }));
    up = true; // before the claims: whoever joins now claims behind them
    await beat();
    for (const [name, server] of await everyone())
      if (server === id && !names.has(name) && !claiming.has(name))
        queue.push({ block: Buffer.alloc(0), freed: name });
  } catch (error) {
    disconnect();
    throw error;
  }
}

/** Closes both connections; all that waits for them rejects. */
function disconnect(): void {
  up = false;
  writer.close();
  reader.close();
  wake();
}

/** Renews our lease and the claims on our names: some may be lost, if we were away for too long. */
async function beat(): Promise<void> {
  const [, taken] = await claimAll(names);
  for (const name of taken) if (names.delete(name)) room.rename(name);
}

/** Appends what is queued, one entry at a time, so that their order is ours and one can be in doubt. */
async function write(): Promise<void> {
  let due = false;
  const clock = setInterval(() => {
    due = true;
    wake();
  }, beatMs);
  try {
    while (up) {
      sending ??= take();
      if (due) {
        due = false;
        await beat();
      } else if (sending) await send(sending);
      else if (closing) return await evaluate(claimScript, [0]);
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    clearInterval(clock);
  }
}

/** Makes an entry of what waits. */
function take(): Entry | undefined {
  if (queue.length === 0 && missed > 0) tellMissed();
  if (queue.length === 0) return undefined;
  let size = 0;
  let count = 0;
  do size += queue[count++]!.block.length;
  while (count < queue.length && size + queue[count]!.block.length <= maxBlock);
  const items = queue.splice(0, count);
  queued -= size;
  return {
    number: ++entries,
    block: Buffer.concat(items.map((item) => item.block)).toString(),
    freed: items.flatMap((item) => item.freed ?? []),
  };
}

/** Appends an entry; until Redis has answered, it is the one to send. */
async function send({ number, block, freed }: Entry): Promise<void> {
  const unused = freed.filter((name) => !names.has(name) && !claiming.has(name));
  const [streamId, entry] = await evaluate(appendScript, [number, block, ...unused]);
  sending = undefined;
  if (!lastId) [lastId, lastEntry] = [streamId, entry]; // we read from here on
}

/** Delivers what the others append. What is not delivered yet waits here: one reply, 64 blocks. */
async function read(): Promise<void> {
  const options = ["COUNT", "64", "BLOCK", String(blockMs), "STREAMS", stream];
  while (up) {
    const reply = await reader.send("XREAD", [...options, lastId]);
    let lines = "";
    for (const [streamId, fields] of reply?.[stream] ?? []) {
      lines += accept(streamId, fields);
      if (lines.length < maxBlock) continue;
      await room.hear(Buffer.from(lines));
      lines = "";
    }
    if (lines) await room.hear(Buffer.from(lines));
  }
}

/** Takes an entry of the stream; gives the lines to deliver. */
function accept(streamId: string, fields: string[]): string {
  lastId = streamId;
  const appended = parseEntry(fields);
  if (!appended) {
    room.log(`skipped ${streamId} in ${stream}: no server wrote it`);
    return "";
  }
  const { from, number, entry, block } = appended;
  const last = seen.get(from) ?? number - 1; // of one that we did not know, any number is the first
  // Entries are gone if the stream was trimmed before we came to read them, or Redis lost its end.
  const isGap = entry !== lastEntry + 1 || number > last + 1;
  lastEntry = entry;
  const notice = isGap ? "* some lines from other servers may be missing here\n" : "";
  if (from === id && number === 0 && !closing) comeBack(block);
  if (from === id) return notice;
  if (number === 0) return notice + block;
  if (number <= last) return notice; // sent again: the answer to the first was lost
  seen.set(from, number);
  return notice + block;
}

/** Others were told that these people left, for we were away too long: those who did not are back. */
function comeBack(left: string): void {
  for (const [, name = ""] of left.matchAll(/^\* (\S+) left/gm))
    if (names.has(name)) append(Buffer.from(`* ${name} joined (their server is back)\n`));
}

/** Understands an entry's fields, name and value in turn; gives undefined for all that is not ours. */
function parseEntry(fields: string[]) {
  const values: Record<string, string> = {};
  for (let at = 0; at < fields.length; at += 2) values[fields[at]!] = fields[at + 1]!;
  const { from, number = "", entry = "", block } = values;
  if (!from || block === undefined || /[^\n]$/.test(block)) return undefined;
  if (!/^\d{1,15}$/.test(number) || !/^\d{1,15}$/.test(entry)) return undefined;
  return { from, number: Number(number), entry: Number(entry), block };
}

// --- Notices -------------------------------------------------------------------------------------

/** Tells everyone how many lines found the queue full: the other servers where they are missing. */
function tellMissed(): void {
  room.inform(`other servers have missed ${missed} lines`);
  const block = Buffer.from(`* ${missed} lines from ${label(id)} are missing here\n`);
  missed = 0;
  append(block);
}

/** Says what is wrong with a Redis, and never the password in its URL. */
function explain(error: Error & { code?: string }): string {
  const { host, pathname } = new URL(url);
  const redis = `Redis at ${host || pathname}`;
  if (error.code === "ERR_REDIS_AUTHENTICATION_FAILED")
    return `${redis} does not accept the password, or wants one: check --redis`;
  if (/^ERR_REDIS_(CONNECTION|IDLE)/.test(error.code ?? ""))
    return `cannot reach ${redis}: start it, or check --redis`;
  return `cannot use ${redis}: ${error.message.split(" script: ")[0]}`;
}
