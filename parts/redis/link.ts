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
import { Outbox } from "./outbox.ts";
import {
  type Appended,
  beatMs,
  explain,
  isRefusal,
  lastWords,
  type Node,
  type Owner,
  redirection,
  Store,
} from "./store.ts";

const slowMs = 2000; // a link whose round trip takes longer is slow
const quickMs = 1000; // and one that was slow is so until it takes less
const maxPause = 2000; // ms, before we connect again
const maxRedirections = 5; // from one node of a cluster to the next
const maxBlock = 65_536; // bytes that are delivered together; a single block may be more

/** A server's ID as people read it: "server 4711 on myhost". */
function label(server: string): string {
  return server.replace(/^(.*)\/(\d+)\/\w+$/, "server $2 on $1");
}

/** Our clients' names, and which of them we may keep. */
class Names {
  readonly #owned = new Map<string, number>(); // with their workers' pids
  readonly #claimed = new Set<string>(); // names that we have asked for

  get size(): number {
    return this.#owned.size;
  }

  [Symbol.iterator](): Iterator<[string, number]> {
    return this.#owned[Symbol.iterator]();
  }

  owns(name: string): boolean {
    return this.#owned.has(name);
  }

  /** Whether a client of ours has the name, or may get it. */
  uses(name: string): boolean {
    return this.#owned.has(name) || this.#claimed.has(name);
  }

  setPid(name: string, pid: number): void {
    if (this.#owned.has(name)) this.#owned.set(name, pid);
  }

  delete(name: string): boolean {
    return this.#owned.delete(name);
  }

  /** Owns a name if `decide` resolves to how many are online with it; 0 means that others have it. */
  async claim(name: string, pid: number, decide: () => Promise<number>): Promise<number> {
    if (this.uses(name)) return 0;
    this.#claimed.add(name);
    const online = await decide();
    this.#claimed.delete(name);
    if (online > 0) this.#owned.set(name, pid);
    return online;
  }
}

/** How far the stream was read, and what in it is new. */
export class Bookmark {
  streamId = ""; // of the last entry; empty before we have appended the first
  #position = 0; // its number among all entries
  readonly #numbers = new Map<string, number>(); // server -> the number of its last block

  /** Begins behind an entry. */
  set(streamId: string, position: number): void {
    if (this.streamId === "") [this.streamId, this.#position] = [streamId, position];
  }

  skip(streamId: string): void {
    this.streamId = streamId;
  }

  /** Whether a stream that ends there has lost what was read: reading on would skip what comes next. */
  isBeyond(end: string): boolean {
    const [ms = 0, n = 0] = this.streamId.split("-").map(Number);
    const [endMs = 0, endN = 0] = end.split("-").map(Number);
    return ms > endMs || (ms === endMs && n > endN);
  }

  /**
   * Moves on to an entry. `isNew`: its block was not read before. `isGap`: entries before it are
   * missing, because the stream was trimmed before we read them, or Redis has lost its end.
   */
  move({ streamId, from, number, position }: Appended): { isNew: boolean; isGap: boolean } {
    const isLastWords = number === lastWords;
    // Of a server that we did not know, any number is the first.
    const before = this.#numbers.get(from) ?? number - 1;
    const isGap = position !== this.#position + 1 || (!isLastWords && number > before + 1);
    const isNew = isLastWords || number > before; // or it was sent again: the first answer was lost
    this.streamId = streamId;
    this.#position = position;
    if (isNew && !isLastWords) this.#numbers.set(from, number);
    return { isNew, isGap };
  }
}

/** A link through Redis. */
class RedisLink implements Link {
  readonly #id = `${hostname()}/${process.pid}/${crypto.randomUUID().slice(0, 8)}`; // new at each start
  readonly #urls: string[]; // what may be tried: --redis, and the other nodes of its cluster
  readonly #roomName: string;
  readonly #names = new Names();
  readonly #outbox = new Outbox(label(this.#id), (text) => this.#room?.inform(text));
  readonly #bookmark = new Bookmark();
  #room: LinkedRoom | undefined;
  #store: Store | undefined; // while the link is up, as far as we know
  #node: Node; // the one that we try first
  #tries = 0; // that failed
  #reason: Error | undefined; // why the last store was lost
  #ended = Promise.resolve(); // the link was closed
  #pause = 0; // before we connect again, ms; it grows until a link has lasted for a while
  #isShaky = false; // a link was made, and none has lasted for a while since
  #isLost = false; // the room was told so, and not yet that the link is back
  #isSlow = false; // the room was told so
  #slowness = 0; // the link's round trip, ms; a long one is forgotten slowly
  #isClosing = false;
  #wake = () => {}; // there is something to append, or the link has changed
  #asking: Promise<Owner[]> | undefined; // who is on other servers

  constructor(url: string, roomName: string) {
    this.#urls = [url];
    this.#node = { url };
    this.#roomName = roomName;
  }

  start(room: LinkedRoom): void {
    this.#room = room;
    this.#isShaky = false; // the first link is as good as one that has lasted
    this.#ended = this.#stay();
  }

  append(block: Uint8Array): void {
    this.#outbox.push(block);
    this.#wake();
  }

  get isBehind(): boolean {
    return this.#store !== undefined && this.#outbox.isBehind;
  }

  // --- Names -------------------------------------------------------------------------------------

  /** While the link is lost, a name is unique among our own; `#connect()` settles the rest. */
  claim(name: string, pid: number): Promise<number> {
    return this.#names.claim(name, pid, async () => {
      const store = this.#store;
      const alone = this.#names.size + 1;
      try {
        if (!store) return alone;
        const [online, taken] = await store.claim([[name, pid]]);
        return taken.length > 0 ? 0 : online;
      } catch (error) {
        this.#lose(store!, error as Error);
        return alone;
      }
    });
  }

  owns(name: string): boolean {
    return this.#names.owns(name);
  }

  /** The others are told with the next renewal of our lease. */
  setPid(name: string, pid: number): void {
    this.#names.setPid(name, pid);
  }

  release(name: string): void {
    if (!this.#names.delete(name) || !this.#store) return; // #connect() frees what is left over
    this.#outbox.free(name);
    this.#wake();
  }

  /** Renews our lease and the claims on our names: some may be lost, if we were away for too long. */
  async #renew(store: Store): Promise<void> {
    const [, taken] = await store.claim(this.#names);
    for (const name of taken) if (this.#names.delete(name)) this.#room?.rename(name);
  }

  get label(): string {
    return label(this.#id);
  }

  async others(): Promise<Remote[] | undefined> {
    // Those who ask at the same time share what Redis says.
    this.#asking ??= this.#store?.owners().finally(() => (this.#asking = undefined));
    const owners = await this.#asking?.catch(() => undefined);
    return owners
      ?.filter(({ server }) => server !== this.#id)
      .map(({ server, name, pid }) => ({ server: label(server), name, pid }));
  }

  // --- The link, from connecting to the end ------------------------------------------------------

  /** Keeps the link. Never rejects. */
  async #stay(): Promise<void> {
    while (!this.#isClosing) {
      const store = this.#store;
      if (store) {
        const lose = (reason?: Error) => this.#lose(store, reason); // which ends all three
        const loops = [this.#write(store), this.#read(store)];
        this.#hold(store).catch(lose);
        await Promise.all(loops.map((loop) => loop.then(() => lose(), lose)));
        if (this.#isClosing) return;
        log(`link: ${this.#reason?.message}`);
        // Another node may have the room now. If that one takes us, nobody need know.
        if (isRefusal(this.#reason)) await this.#retry();
      }
      if (!this.#store) this.#tellLost(true);
      while (!this.#store && !this.#isClosing) await this.#retry();
    }
  }

  /** Tries to connect after a pause. If that fails, the next attempt goes to another node. */
  async #retry(): Promise<void> {
    await Bun.sleep(this.#pause);
    this.#pause = Math.min(2 * this.#pause || 100, maxPause);
    if (this.#isClosing) return;
    await this.connect().catch(() => {
      this.#node = { url: this.#urls[this.#tries++ % this.#urls.length]! };
    });
  }

  /** Connects to the node that has the room. Rejects, with a line for a person, if that fails. */
  async connect(): Promise<void> {
    for (let count = 0; ; count++) {
      try {
        return await this.#connectTo(this.#node);
      } catch (error) {
        const other = redirection(this.#node.url, error as Error);
        if (!other || count === maxRedirections)
          throw new Error(explain(this.#node.url, error as Error));
        this.#node = other;
      }
    }
  }

  /** Connects, appends what was in doubt and renews our claims. Rejects if that is not possible. */
  async #connectTo(node: Node): Promise<void> {
    const store = new Store(node, this.#id, this.#roomName);
    try {
      const end = await store.prove(); // before we write: what cannot be read must be left as it was
      const isBeyond = this.#bookmark.isBeyond(end);
      const isFirst = this.#bookmark.streamId === ""; // then an empty block will do: we read from there
      const parcel = isFirst ? this.#outbox.nextOrEmpty() : this.#outbox.next();
      this.#store = store; // before the claims: a client that joins now claims its name behind them
      const [owners] = await Promise.all([
        store.owners(),
        this.#renew(store),
        parcel && this.#send(store, parcel),
      ]);
      if (isBeyond) this.#bookmark.skip(end);
      for (const { name, server } of owners)
        if (server === this.#id && !this.#names.uses(name)) this.#outbox.free(name);
      if (!this.#isShaky) this.#tellLost(false);
      this.#isShaky = true;
    } catch (error) {
      this.#lose(store, error as Error);
      throw error;
    }
  }

  /** The link is down from now on; all that waits for an answer rejects. */
  #lose(store: Store, reason?: Error): void {
    if (this.#store === store) [this.#store, this.#reason] = [undefined, reason];
    store.close();
    this.#wake();
  }

  /** Tells the room when the link is lost, and when it is back: each once. */
  #tellLost(isLost: boolean): void {
    if (isLost !== this.#isLost)
      this.#room?.inform(isLost ? "link to other servers lost" : "link is back");
    this.#isLost = isLost;
  }

  /** Tells the room when the link is slow, and when it is quick again: each once. */
  #tellSlow(roundTrip: number): void {
    this.#slowness = Math.max(roundTrip, 0.7 * this.#slowness);
    const isSlow = this.#slowness > (this.#isSlow ? quickMs : slowMs);
    const late = `about ${Math.round(roundTrip / 1000)} s late`;
    if (isSlow !== this.#isSlow)
      this.#room?.inform(
        isSlow ? `link to other servers is slow: lines come ${late}` : "link is quick again",
      );
    this.#isSlow = isSlow;
  }

  /** Renews our lease again and again: however slow Redis is, entries do not wait for it. */
  async #hold(store: Store): Promise<void> {
    for (let roundTrip = 0; ;) {
      await Bun.sleep(Math.max(0, beatMs - roundTrip));
      if (this.#store !== store || this.#isClosing) return;
      const start = performance.now();
      await this.#renew(store);
      roundTrip = performance.now() - start;
      [this.#pause, this.#isShaky] = [0, false]; // the link has lasted for a while
      this.#tellLost(false);
      this.#tellSlow(roundTrip);
    }
  }

  /** Appends what waits, one entry at a time: so their order is ours, and only one can be in doubt. */
  async #write(store: Store): Promise<void> {
    while (this.#store === store) {
      const parcel = this.#outbox.next();
      if (parcel) await this.#send(store, parcel);
      else if (this.#isClosing) return await store.leave();
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** Appends a parcel; until Redis has answered, it is the one in doubt. */
  async #send(store: Store, parcel: ReturnType<Outbox["nextOrEmpty"]>): Promise<void> {
    const unused = parcel.freed.filter((name) => !this.#names.uses(name));
    const { streamId, position } = await store.append(parcel, unused);
    this.#outbox.done();
    this.#bookmark.set(streamId, position); // we read from our first entry on
  }

  /** Delivers what the others append. One reply waits here: 64 entries at most. */
  async #read(store: Store): Promise<void> {
    this.#urls.splice(1, Infinity, ...(await store.nodes()));
    while (this.#store === store) {
      let lines = "";
      for (const entry of await store.read(this.#bookmark.streamId)) {
        lines += this.#linesOf(entry);
        if (lines.length < maxBlock) continue;
        await this.#room?.deliver(Buffer.from(lines));
        lines = "";
      }
      if (lines) await this.#room?.deliver(Buffer.from(lines));
    }
  }

  /** Gives the lines of an entry that our clients have not got yet. */
  #linesOf(entry: Appended | string): string {
    if (typeof entry === "string") {
      log(`skipped ${entry} in the stream of ${this.#roomName}: no server wrote it`);
      this.#bookmark.skip(entry);
      return "";
    }
    const { isNew, isGap } = this.#bookmark.move(entry);
    const isOurs = entry.from === this.#id;
    if (isOurs && entry.number === lastWords && !this.#isClosing) this.#contradict(entry.block);
    const notice = isGap ? "* some lines from other servers may be missing here\n" : "";
    return isNew && !isOurs ? notice + entry.block : notice;
  }

  /** We were away so long that others were told that our people left: those who did not are back. */
  #contradict(left: string): void {
    for (const [, name = ""] of left.matchAll(/^\* (\S+) left/gm))
      if (this.#names.owns(name))
        this.append(Buffer.from(`* ${name} joined (their server is back)\n`));
  }

  /** Frees our names, and tells the others that our people left. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#wake();
    if (this.#store) await this.#ended;
    if (!this.#outbox.isEmpty) log("the link is lost: other servers miss what was said last");
  }
}

/** Links this server to the others of a room. Rejects, with a line for a person, if it cannot now. */
export async function openLink(url: string, roomName: string): Promise<Link> {
  const link = new RedisLink(url, roomName);
  await link.connect();
  return link;
}
