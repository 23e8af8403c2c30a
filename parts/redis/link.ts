/**
 * The link between servers that share a room through Redis. `bun server.ts --redis URL` imports it;
 * without that option nothing of it is loaded.
 *
 * The room's log is a stream. What a server's own clients say, that server delivers at once and
 * appends; what the others append, it reads and delivers. Notices (`* ann joined`) are lines like all
 * others, so everyone sees them in order with what was said.
 *
 * When Redis is away, each server goes on alone. What is said meanwhile waits in a bounded queue, and
 * reading goes on behind the last entry that was read; a number that is missing there is told to the
 * room. In a cluster, the link follows the room from node to node.
 *
 * @module
 */
import { hostname } from "node:os";
import { log } from "../server/log.ts";
import type { Link, LinkedRoom, Remote } from "../server/room.ts";
import { nameKey } from "../shared/text.ts";
import { Bookmark } from "./bookmark.ts";
import { explain, isTimeout, redirection } from "./node.ts";
import { AppendQueue, type Batch } from "./queue.ts";
import { LinkState } from "./state.ts";
import { type Claim, type Claimed, type Entry, lastWords, Store } from "./store.ts";
import { timing } from "./timing.ts";

const maxRedirections = 5; // from one node of a cluster to the next

/** A server's ID as people read it: "server 4711 on myhost". */
function label(server: string): string {
  return server.replace(/^(.*)\/(\d+)\/\w+$/, "server $2 on $1");
}

/** A link through Redis. */
class RedisLink implements Link {
  readonly id = `${hostname()}/${process.pid}/${crypto.randomUUID().slice(0, 8)}`; // new at each start
  readonly label = label(this.id);
  readonly #urls: string[]; // what may be tried: --redis, and the other nodes of its cluster
  readonly #names = new Map<string, Claim>(); // of our clients, by the key of the name
  readonly #state = new LinkState((text) => this.#room?.inform(text));
  readonly #queue = new AppendQueue(this.label, (text) => this.#room?.inform(text));
  #room: LinkedRoom | undefined;
  #url: string; // the one that we try first
  #tries = 0; // that failed
  #pause = 0; // before the next attempt to connect, ms: longer and longer, until a connection lasts
  #store: Store | undefined; // while we are connected, as far as we know
  #bookmark: Bookmark | undefined; // since we were connected first
  #ended = Promise.resolve(); // the link was closed
  #wake = () => {}; // there is something to append, or the link is to be closed

  constructor(
    url: string,
    private readonly roomName: string,
  ) {
    this.#urls = [url];
    this.#url = url;
  }

  start(room: LinkedRoom): void {
    this.#room = room;
    this.#ended = this.#run();
  }

  append(block: Uint8Array): void {
    this.#queue.push(block);
    this.#wake();
  }

  get isBehind(): boolean {
    return this.#store !== undefined && this.#queue.isBehind;
  }

  async others(): Promise<Remote[] | undefined> {
    const people = await this.#store?.people().catch(() => undefined);
    return people
      ?.filter(({ server }) => server !== this.id)
      .map((person) => ({ ...person, server: label(person.server) }));
  }

  async close(how: "leave" | "keep"): Promise<void> {
    this.#state.close(how);
    this.#wake();
    if (this.#store) await this.#ended;
    if (!this.#queue.isEmpty) log("the link is lost: other servers miss what was said last");
  }

  // --- Names -------------------------------------------------------------------------------------

  async claim(name: string, pid: number): Promise<number> {
    const owner = this.#names.get(nameKey(name));
    if (owner && owner.pid !== pid) return 0; // else our client changes the case of its name
    const [online = this.#names.size] = (await this.#claim([{ name, pid }])) ?? [];
    return this.owns(name) ? online : 0;
  }

  async adopt(name: string, from?: string): Promise<number> {
    const claims = [{ name, pid: 0 }];
    const [online = this.#names.size, , free = []] = (await this.#claim(claims, from)) ?? [];
    if (free.length > 0) this.#contradict(`* ${name} left`);
    return online;
  }

  /**
   * Claims names, and gives up those that others have: our clients that are called so get others. While
   * the link is lost, it gives nothing, and a name is unique among our own; `#begin()` settles the rest.
   */
  async #claim(claims: Claim[], from?: string): Promise<Claimed | undefined> {
    for (const claim of claims) this.#names.set(nameKey(claim.name), claim);
    const answer = await this.#store?.claim(claims, from).catch(() => undefined);
    const [, taken = []] = answer ?? [];
    for (const claim of claims) {
      const key = nameKey(claim.name);
      if (!taken.includes(key) || this.#names.get(key) !== claim) continue; // or it was released
      this.#names.delete(key);
      this.#room!.rename(claim.name);
    }
    return answer;
  }

  owns(name: string): boolean {
    return this.#names.get(nameKey(name))?.name === name;
  }

  /** The others are told with the next renewal of our lease. */
  setPid(name: string, pid: number): void {
    if (this.owns(name)) this.#names.get(nameKey(name))!.pid = pid;
  }

  release(name: string): void {
    if (!this.owns(name)) return;
    this.#names.delete(nameKey(name));
    if (!this.#store) return; // #begin() frees what is left over
    this.#queue.free(nameKey(name));
    this.#wake();
  }

  // --- The connection ----------------------------------------------------------------------------

  /** Keeps the link until it is closed. Never rejects. */
  async #run(): Promise<void> {
    while (!this.#state.ending) {
      const reason = this.#store && (await this.#use(this.#store));
      // Another node may have the room now. If we are connected again at once, nobody need know.
      if (reason && !isTimeout(reason)) await this.#retry();
      if (!this.#store) this.#state.lost();
      while (!this.#store && !this.#state.ending) await this.#retry();
    }
  }

  async #retry(): Promise<void> {
    await Bun.sleep(this.#pause);
    this.#pause = Math.min(2 * this.#pause || 100, timing.maxPause);
    if (!this.#state.ending) await this.connect().catch(() => {});
  }

  /**
   * Connects to the node that has the room. If that fails, it rejects, with a line for a person, and the
   * next attempt goes to another node.
   */
  async connect(): Promise<void> {
    for (let count = 0; ; count++) {
      const store = new Store(this.#url, this.id, this.roomName);
      try {
        return await this.#begin(store);
      } catch (error) {
        this.#store = undefined;
        const url = this.#url;
        const named = redirection(url, error as Error);
        this.#url = named ?? this.#urls[this.#tries++ % this.#urls.length]!;
        if (!named || count === maxRedirections) throw new Error(explain(url, error as Error));
      }
    }
  }

  /** Begins to use a connection: appends what was in flight, and renews our lease and our names. */
  async #begin(store: Store): Promise<void> {
    const end = await store.prove(); // before we write: what cannot be read must be left as it was
    this.#bookmark?.endsAt(end);
    this.#store = store; // before the claims: a client that joins now claims its name behind them
    const [people, claimed] = await Promise.all([
      store.people(),
      this.#claim([...this.#names.values()]),
      this.#append(store, this.#queue.next()),
    ]);
    if (!claimed) return store.closed.promise;
    for (const { name, server } of people)
      if (server === this.id && !this.#names.has(nameKey(name))) this.#queue.free(nameKey(name));
    this.#state.connected();
  }

  /** Appends, reads and renews until one of them fails, or the link is closed. Gives what has failed. */
  async #use(store: Store): Promise<Error | undefined> {
    const clock = setInterval(() => void this.#beat(), timing.beat);
    const loops = [store.closed.promise, this.#read(store), this.#write(store)];
    let reason: Error | undefined;
    await Promise.race(loops).catch((error: Error) => (reason = error));
    clearInterval(clock);
    store.close();
    this.#store = undefined;
    if (reason) log(`link: ${(reason as Error).message}`);
    return reason;
  }

  /** Renews our lease. However slow Redis is, entries do not wait for it. */
  async #beat(): Promise<void> {
    if (this.#state.ending) return; // what is freed must stay so
    const start = performance.now();
    if (!(await this.#claim([...this.#names.values()]))) return; // the connection is lost
    this.#state.answered(performance.now() - start);
    this.#pause = 0;
  }

  /** Appends what waits, one batch at a time: so their order is ours, and only one is in flight. */
  async #write(store: Store): Promise<void> {
    while (this.#store === store) {
      const batch = this.#queue.next();
      if (batch) await this.#append(store, batch);
      else if (this.#state.ending === "leave") return store.leave();
      else if (this.#state.ending) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #append(store: Store, batch: Batch | undefined): Promise<void> {
    if (!batch) return;
    const freed = batch.freed.filter((key) => !this.#names.has(key));
    const streamId = await store.append({ ...batch, freed });
    this.#queue.acknowledge();
    this.#bookmark ??= new Bookmark(streamId); // we read from our first entry on
  }

  /** Delivers what the others append. One reply waits here: 64 entries at most. */
  async #read(store: Store): Promise<void> {
    this.#urls.splice(1, Infinity, ...(await store.nodes()));
    while (this.#store === store) {
      for (const entry of await store.read(this.#bookmark!.streamId)) {
        const lines = this.#linesOf(entry);
        if (lines) await this.#room!.deliver(Buffer.from(lines)); // a flood waits there
      }
    }
  }

  /** Gives the lines of an entry that our clients have not got yet. */
  #linesOf(entry: Entry): string {
    const { isNew, isGap } = this.#bookmark!.read(entry);
    const notice = isGap ? "* some lines from other servers may be missing here\n" : "";
    if (entry.from !== this.id) return isNew ? notice + entry.block : notice;
    if (entry.number === lastWords && !this.#state.ending) this.#contradict(entry.block);
    return notice;
  }

  /** We were away so long that others were told that our people left: those who did not are back. */
  #contradict(left: string): void {
    for (const [, name = ""] of left.matchAll(/^\* (\S+) left/gm))
      if (this.owns(name)) this.append(Buffer.from(`* ${name} joined (their server is back)\n`));
  }
}

/** Links this server to the others of a room. Rejects, with a line for a person, if it cannot now. */
export async function openLink(url: string, roomName: string): Promise<Link> {
  const link = new RedisLink(url, roomName);
  link.append(new Uint8Array(0)); // shows at once whether we may append, and where we are to read from
  await link.connect();
  return link;
}
