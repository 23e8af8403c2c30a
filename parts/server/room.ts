/**
 * The room: who is in it, and what they are called.
 *
 * @module
 */
import { fail } from "../shared/command-line.ts";
import { broadcast, type Receiver } from "./broadcast.ts";
import { log } from "./log.ts";
import { maxName, nameKey } from "../shared/text.ts";

/** A client's connection, as the room needs it. */
export interface Member extends Receiver {
  /** The client's IP address. */
  readonly address: string;
  /** What it is called; empty before it has joined, and after it has left. Only the room sets it. */
  readonly name: string;
  setName(name: string): void;
  /** The last process that has served it; 0 before there is one. */
  readonly pid: number;
  /** What that process has relayed, in bytes: from the client, and to it. */
  readonly relayed: { up: number; down: number };
  /** Whether the client may still say something. */
  readonly isOpen: boolean;
  /** Whether more than half of what may wait for it does. */
  readonly isBehind: boolean;
  /** Tells its client something, in order with what the others say. */
  tell(text: string): void;
}

/** The servers that share a room: where names are unique, and who else gets what is said here. */
export interface Link {
  /** This server among all that there ever were, and what the others call it. */
  readonly id: string;
  readonly label: string;
  /** Begins to deliver what others say. */
  start(room: LinkedRoom): void;
  /** Passes whole lines on to the other servers. Takes any number, and never throws. */
  append(block: Uint8Array): void;
  /** Whether more is said here than the others can be given: a flood should wait. */
  readonly isBehind: boolean;
  /** Claims a name for a client; gives how many are online with it, or 0 if somebody has the name. */
  claim(name: string, pid: number): Promise<number>;
  /**
   * Claims a name for a client that the server `from` had; gives how many are online. If somebody else has
   * the name, the client gets another one.
   */
  adopt(name: string, from?: string): Promise<number>;
  /** Whether a name is claimed for a client of ours. */
  owns(name: string): boolean;
  /** Another worker has the client of this name now. */
  setPid(name: string, pid: number): void;
  /** Frees a name, behind all that was appended before. */
  release(name: string): void;
  /** Who is on the other servers, sorted by server; undefined while the link is lost. */
  others(): Promise<Remote[] | undefined>;
  /** Ends the link when everything that was said is appended; our people leave, or keep their names. */
  close(how: "leave" | "keep"): Promise<void>;
}

/** Somebody on another server. */
export interface Remote {
  /** What that server is called. */
  server: string;
  name: string;
  pid: number;
}

/** What the link needs of its server's room. */
export interface LinkedRoom {
  /** Delivers whole lines to every client here; pending while a flood has to wait. */
  deliver(lines: Uint8Array): Promise<void>;
  /** Tells every client here something about the link. */
  inform(text: string): void;
  /** A name of ours is somebody else's now: its client here must get another. */
  rename(name: string): void;
}

/** Links this server to others, if there is a Redis to do so; without it, nothing of that is loaded. */
export async function openLink(options: {
  redis?: string;
  room: string;
}): Promise<Link | undefined> {
  if (!options.redis) return undefined;
  const { openLink } = await import("../redis/link.ts");
  return openLink(options.redis, options.room).catch((error) => fail(1, error.message));
}

const maxListed = 10; // names in a welcome
const maxWait = 250; // that a flood waits for those who are behind, ms

/** The members of a room, on this server. */
export class Room<M extends Member> {
  /** The link to the other servers that share the room; undefined without them. */
  readonly link: Link | undefined;
  readonly #members = new Set<M>();
  readonly #naming = new Map<M, Promise<void>>(); // names that are being given

  /** @param relay writes whole lines to everyone on this server; pending while a flood has to wait */
  constructor(relay: (block: Uint8Array) => Promise<void> | undefined, link?: Link) {
    this.link = link;
    link?.start({
      deliver: async (lines) => relay(lines),
      inform: (text) => this.#inform(text),
      rename: (name) => this.#rename(name),
    });
  }

  /** Everyone in the room. */
  get members(): ReadonlySet<M> {
    return this.#members;
  }

  /**
   * A flood has been relayed. A client may be far behind only because the flood has taken the processor from
   * its worker: so the next part of it waits a little for that client, and for the link.
   */
  async catchUp(): Promise<void> {
    const isBehind = () => this.link?.isBehind || this.#members.values().some((m) => m.isBehind);
    for (let ms = 0; ms < maxWait && isBehind(); ms++) await Bun.sleep(1);
  }

  /** Tells everyone on this server something about the link. */
  #inform(text: string): void {
    this.#tell(text);
    log(text);
  }

  /** Tells everyone, on other servers too, what a member has done. */
  #announce(member: M, text: string): void {
    const line = this.#tell(text);
    this.link?.append(line);
    log(`worker ${member.pid} (${member.address}): ${text}`);
  }

  /** Tells everyone on this server something; gives the line. */
  #tell(text: string): Uint8Array {
    const line = Buffer.from(`* ${text}\n`);
    broadcast(line, [...this.#members]);
    return line;
  }

  /**
   * Lets a client join, or gives it another name: the one that it wants or, if somebody has it, the
   * first that is free of ann2, ann3 and so on. Waits only if other servers have a say in it.
   */
  name(member: M, wanted: string): Promise<void> {
    return this.#inTurn(member, () => this.#give(member, wanted));
  }

  /** The link has lost a name to a client of another server: its member here gets the next. */
  #rename(name: string): void {
    const member = this.#members.values().find((member) => member.name === name);
    if (!member) return;
    const give = async () => void (member.name === name && (await this.#give(member, name)));
    void this.#inTurn(member, give);
  }

  /** A client may want a name while it loses the one it has: one after the other. */
  #inTurn(member: M, give: () => Promise<void>): Promise<void> {
    const before = this.#naming.get(member);
    const turn = before ? before.then(give) : give();
    this.#naming.set(member, turn);
    return turn.finally(() => {
      if (this.#naming.get(member) === turn) this.#naming.delete(member);
    });
  }

  async #give(member: M, wanted: string): Promise<void> {
    const before = member.name;
    let name = wanted;
    let online = 0;
    for (let n = 2; name !== before || this.link?.owns(name) === false; n++) {
      if (this.#isTaken(name, member)) online = 0;
      else if (this.link) online = await this.link.claim(name, member.pid);
      else online = this.#members.size + 1; // without waiting: nobody else may get the name meanwhile
      if (online > 0) break;
      name = [...wanted].slice(0, maxName - String(n).length).join("") + n;
    }
    if (!member.isOpen) {
      if (name !== before) this.link?.release(name); // it has gone meanwhile
      return;
    }
    if (name !== wanted) member.tell(`${wanted} is taken, you are ${name}`);
    else if (name === before) member.tell(`you are ${name} already`);
    if (name === before) return;
    this.#announce(
      member,
      before ? `${before} is now ${name}` : `${name} joined (${online} online)`,
    );
    member.setName(name);
    this.#members.add(member);
    if (before) this.link?.release(before);
    else member.tell(`welcome ${name} (${this.#list(online, member)}), /help lists the commands`);
  }

  /** How many are online, and the names of some who are on this server: `3 online: bob, eve`. */
  #list(online: number, newcomer: M): string {
    const others = this.#members.values().filter((member) => member !== newcomer);
    const names = Array.from(others.take(maxListed), ({ name }) => name);
    const more = online - 1 - names.length;
    const list = more > 0 && names.length > 0 ? [...names, `and ${more} more`] : names;
    return [`${online} online`, list.join(", ")].filter(Boolean).join(": ");
  }

  /** Whether somebody else here has a name, or one that differs only in case or width. */
  #isTaken(name: string, member: M): boolean {
    const key = nameKey(name);
    return this.#members.values().some((other) => other !== member && nameKey(other.name) === key);
  }

  /**
   * Takes in a client of a dead server under the name that it had; nobody is told, as nobody was told that
   * it left. Gives how many are online.
   */
  async adopt(member: M, name: string, from?: string): Promise<number> {
    if (this.#isTaken(name, member)) {
      await this.name(member, name);
      return this.#members.size;
    }
    member.setName(name);
    this.#members.add(member);
    return this.link ? this.link.adopt(name, from) : this.#members.size;
  }

  /** Tells the room that another process serves a member. */
  takeOver(member: M, dead: number, how: string): void {
    this.link?.setPid(member.name, member.pid);
    const ending = how.replace(/^killed/, "was killed");
    this.#announce(member, `worker ${dead} of ${member.name} ${ending}, ${member.pid} took over`);
  }

  /** Takes a member out of the room, and tells the others `how` it left. */
  leave(member: M, how = ""): void {
    if (!this.#members.delete(member)) return;
    this.#announce(member, `${member.name} left${how}`);
    this.link?.release(member.name);
    member.setName("");
  }
}
