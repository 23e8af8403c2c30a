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
import { Bookmark } from "./bookmark.ts";
import { explain, isRefusal, type Node, redirection } from "./node.ts";
import { AppendQueue, type Batch } from "./queue.ts";
import { LinkState } from "./state.ts";
import { type Entry, lastWords, Store } from "./store.ts";
import { timing } from "./timing.ts";

const maxRedirections = 5; // from one node of a cluster to the next
const maxBlock = 65_536; // bytes that are delivered together; a single block may be more

/** A server's ID as people read it: "server 4711 on myhost". */
function label(server: string): string {
  return server.replace(/^(.*)\/(\d+)\/\w+$/, "server $2 on $1");
}

/** A link through Redis. */
class RedisLink implements Link {
  readonly id = `${hostname()}/${process.pid}/${crypto.randomUUID().slice(0, 8)}`; // new at each start
  readonly label = label(this.id);
  readonly #roomName: string;
  readonly #urls: string[]; // what may be tried: --redis, and the other nodes of its cluster
  readonly #names = new Map<string, { pid: number; isOurs: boolean }>(); // of our clients, with
  // their workers' pids; a name that is not ours yet was claimed, and Redis has not answered
  readonly #state = new LinkState((text) => this.#room?.inform(text));
  readonly #queue = new AppendQueue(this.label, (text) => this.#room?.inform(text));
  #room: LinkedRoom | undefined;
  #node: Node; // the one that we try first
  #tries = 0; // that failed
  #store: Store | undefined; // while we are connected, as far as we know
  #bookmark: Bookmark | undefined; // since we were connected first
  #ended = Promise.resolve(); // the link was closed
  #keepsNames = false; // when it is closed
  #wake = () => {}; // there is something to append, or the store was lost
  #asking: Promise<Remote[]> | undefined; // who is in the room

  constructor(url: string, roomName: string) {
    this.#urls = [url];
    this.#node = { url };
    this.#roomName = roomName;
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
    // Those who ask at the same time share what Redis says.
    this.#asking ??= this.#store?.people().finally(() => (this.#asking = undefined));
    const people = await this.#asking?.catch(() => undefined);
    return people
      ?.filter(({ server }) => server !== this.id)
      .map((person) => ({ ...person, server: label(person.server) }));
  }

  /** Frees our names, and tells the others that our people left; or lets the next server have them. */
  async close(how: "leave" | "keep"): Promise<void> {
    this.#keepsNames = how === "keep";
    this.#state.close();
    this.#wake();
    if (this.#store) await this.#ended;
    if (!this.#queue.isEmpty) log("the link is lost: other servers miss what was said last");
  }

  // --- Names -------------------------------------------------------------------------------------

  /** While the link is lost, a name is unique among our own; `#begin()` settles the rest. */
  async claim(name: string, pid: number): Promise<number> {
    if (this.#names.has(name)) return 0;
    const claim = { pid, isOurs: false };
    this.#names.set(name, claim);
    const answer = this.#store?.claim([[name, pid]]).catch(() => undefined);
    const [online, taken] = (answer && (await answer)) ?? [this.#names.size, []];
    claim.isOurs = taken.length === 0;
    if (!claim.isOurs) this.#names.delete(name);
    return claim.isOurs ? online : 0;
  }

  /** Those who were told that the client left, because its server was away for too long, read that it is back. */
  async adopt(name: string, from?: string): Promise<number> {
    this.#names.set(name, { pid: 0, isOurs: true });
    const answer = this.#store?.claim([[name, 0]], from).catch(() => undefined);
    const [online, taken, free] = (answer && (await answer)) ?? [this.#names.size, [], []];
    this.#contradict(free.map((name) => `* ${name} left`).join("\n"));
    this.#giveUp(taken);
    return online;
  }

  owns(name: string): boolean {
    return this.#names.get(name)?.isOurs ?? false;
  }

  /** The others are told with the next renewal of our lease. */
  setPid(name: string, pid: number): void {
    if (this.owns(name)) this.#names.get(name)!.pid = pid;
  }

  release(name: string): void {
    if (!this.owns(name)) return;
    this.#names.delete(name);
    if (!this.#store) return; // #begin() frees what is left over
    this.#queue.free(name);
    this.#wake();
  }

  /** Renews our lease and our names: others may have some, if we were away for too long. */
  async #renew(store: Store): Promise<void> {
    const ours = [...this.#names].filter(([, { isOurs }]) => isOurs);
    const [, taken] = await store.claim(ours.map(([name, { pid }]) => [name, pid]));
    this.#giveUp(taken);
  }

  #giveUp(taken: string[]): void {
    for (const name of taken.filter((name) => this.owns(name))) {
      const { pid } = this.#names.get(name)!;
      this.#names.delete(name);
      // A client that has another name, or has claimed one, gives up this one without being asked.
      const isRenamed = this.#names.values().some((claim) => claim.pid === pid);
      if (!isRenamed) this.#room!.rename(name);
    }
  }

  // --- The connection ----------------------------------------------------------------------------

  /** Keeps the link until it is closed. Never rejects. */
  async #run(): Promise<void> {
    while (!this.#state.isClosing) {
      if (this.#store) {
        const reason = await this.#use(this.#store);
        if (this.#state.isClosing) return;
        log(`link: ${reason?.message}`);
        // Another node may have the room now. If that one accepts us, nobody need know.
        if (isRefusal(reason)) await this.#retry();
      }
      if (!this.#store) this.#state.lost();
      while (!this.#store && !this.#state.isClosing) await this.#retry();
    }
  }

  async #retry(): Promise<void> {
    await Bun.sleep(this.#state.nextPause());
    if (!this.#state.isClosing) await this.connect().catch(() => {});
  }

  /**
   * Connects to the node that has the room. If that fails, it rejects, with a line for a person, and the
   * next attempt goes to another node.
   */
  async connect(): Promise<void> {
    for (let count = 0; ; count++) {
      const store = new Store(this.#node, this.id, this.#roomName);
      try {
        return await this.#begin(store);
      } catch (error) {
        const { url } = this.#node;
        const named = redirection(url, error as Error);
        this.#node = named ?? { url: this.#urls[this.#tries++ % this.#urls.length]! };
        if (!named || count === maxRedirections) throw new Error(explain(url, error as Error));
      }
    }
  }

  /** Begins to use a connection: appends what was in flight, and renews our names. */
  async #begin(store: Store): Promise<void> {
    const end = await store.prove(); // before we write: what cannot be read must be left as it was
    if (this.#bookmark?.isBeyond(end)) this.#bookmark.streamId = end;
    this.#store = store; // before the claims: a client that joins now claims its name behind them
    void store.closed.promise.then(() => this.#forget(store));
    const [people] = await Promise.all([
      store.people(),
      this.#renew(store),
      this.#append(store, this.#queue.next()),
    ]);
    for (const { name, server } of people)
      if (server === this.id && !this.#names.has(name)) this.#queue.free(name);
    this.#state.connected();
  }

  /** The connection is closed. */
  #forget(store: Store): void {
    if (this.#store === store) this.#store = undefined;
    this.#wake();
  }

  /** Appends, reads and renews until one of them fails, which ends all three. Gives the reason. */
  async #use(store: Store): Promise<Error | undefined> {
    const close = (reason?: Error) => store.close(reason);
    this.#hold(store).catch(close);
    const loops = [this.#write(store), this.#read(store)];
    await Promise.all(loops.map((loop) => loop.then(() => close(), close)));
    return store.closed.promise;
  }

  /** Renews our lease again and again: however slow Redis is, entries do not wait for it. */
  async #hold(store: Store): Promise<void> {
    for (let roundTrip = 0; ;) {
      await Bun.sleep(Math.max(0, timing.beat - roundTrip));
      if (this.#store !== store || this.#state.isClosing) return;
      const start = performance.now();
      await this.#renew(store);
      roundTrip = performance.now() - start;
      this.#state.lasted(roundTrip);
    }
  }

  /** Appends what waits, one batch at a time: so their order is ours, and only one is in flight. */
  async #write(store: Store): Promise<void> {
    while (this.#store === store) {
      const batch = this.#queue.next();
      if (batch) await this.#append(store, batch);
      else if (this.#state.isClosing) return this.#keepsNames ? undefined : await store.leave();
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #append(store: Store, batch: Batch | undefined): Promise<void> {
    if (!batch) return;
    const freed = batch.freed.filter((name) => !this.#names.has(name));
    const entry = await store.append({ ...batch, freed });
    this.#queue.acknowledge();
    this.#bookmark ??= new Bookmark(...entry); // we read from our first entry on
  }

  /** Delivers what the others append. One reply waits here: 64 entries at most. */
  async #read(store: Store): Promise<void> {
    this.#urls.splice(1, Infinity, ...(await store.nodes()));
    while (this.#store === store) {
      let lines = "";
      for (const entry of await store.read(this.#bookmark!.streamId)) {
        lines += this.#linesOf(entry);
        if (lines.length < maxBlock) continue;
        await this.#room!.deliver(Buffer.from(lines));
        lines = "";
      }
      if (lines) await this.#room!.deliver(Buffer.from(lines));
    }
  }

  /** Gives the lines of an entry that our clients have not got yet. */
  #linesOf(entry: Entry | string): string {
    if (typeof entry === "string") {
      log(`skipped ${entry} in the stream of ${this.#roomName}: no server wrote it`);
      this.#bookmark!.streamId = entry;
      return "";
    }
    const { isNew, isGap } = this.#bookmark!.read(entry);
    const isOurs = entry.from === this.id;
    if (isOurs && entry.number === lastWords && !this.#state.isClosing)
      this.#contradict(entry.block);
    const notice = isGap ? "* some lines from other servers may be missing here\n" : "";
    return isNew && !isOurs ? notice + entry.block : notice;
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
