/**
 * The room: who is in it, what they are called, and that each of them gets what the others say.
 *
 * @module
 */
import type { Request } from "../shared/control.ts";
import { log } from "./log.ts";
import { maxName } from "../shared/text.ts";
import { createUsageReader, type Usage } from "./usage.ts";

/** A client's connection, as the room needs it. */
export interface Member {
  /** The client's IP address. */
  readonly address: string;
  /** The process that serves it now. */
  readonly pid: number;
  /** What that process has relayed, in bytes: from the client, and to it. */
  readonly relayed: { up: number; down: number };
  /** Whether it is neither closing nor dead. */
  readonly isOpen: boolean;
  /** Whether more than half of what may wait for it does. */
  readonly isBehind: boolean;
  /** Sends it whole lines. */
  deliver(block: Uint8Array): void;
  /** Asks something in its name, behind what it has asked itself. */
  ask(request: Request): void;
}

/** The servers that share a room: where names are unique, and who else gets what is said here. */
export interface Link {
  /** What the others call this server. */
  readonly label: string;
  /** Begins to deliver what others say. */
  start(room: LinkedRoom): void;
  /** Passes whole lines on to the other servers. Takes any number, and never throws. */
  append(block: Uint8Array): void;
  /** Whether more is said here than the others can be given: a flood should wait. */
  readonly isBehind: boolean;
  /** Claims a name for a client; gives how many are online with it, or 0 if somebody has the name. */
  claim(name: string, pid: number): Promise<number>;
  /** Whether a name is claimed for a client of ours. */
  owns(name: string): boolean;
  /** Another worker has the client of this name now. */
  setPid(name: string, pid: number): void;
  /** Frees a name, behind all that was appended before. */
  release(name: string): void;
  /** Who is on the other servers, sorted by server; undefined while the link is lost. */
  others(): Promise<Remote[] | undefined>;
  /** Ends the link when everything that was said is appended. */
  close(): Promise<void>;
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

const flood = 16_384; // bytes in a block that only somebody in a hurry sends
const maxWait = 250; // that a flood waits for those who are behind, ms

/** The members of a room, on this server. */
export class Room {
  readonly #members = new Map<Member, string>(); // and their names
  readonly #link: Link;
  readonly #logsTalk: boolean;
  readonly #readUsage = createUsageReader();

  /** @param link to the other servers of the room */
  constructor(link: Link, { verbose = false } = {}) {
    this.#link = link;
    this.#logsTalk = verbose;
    link.start({
      deliver: (lines) => this.#relay(lines),
      inform: (text) => this.inform(text),
      rename: (name) => this.#rename(name),
    });
  }

  /**
   * Opens a room: with a Redis, one that this server shares with others. Rejects, with a line for a
   * person, if it cannot be reached now.
   */
  static async open(options: { redis?: string; room: string; verbose?: boolean }): Promise<Room> {
    if (!options.redis) return new Room(noLink(), options);
    const { openLink } = await import("../redis/link.ts"); // a server that is alone does not need it
    return new Room(await openLink(options.redis, options.room), options);
  }

  /** What a member is called; empty before it has joined and after it has left. */
  nameOf(member: Member): string {
    return this.#members.get(member) ?? "";
  }

  // --- What is said ------------------------------------------------------------------------------

  /** Relays whole lines to everyone but their sender. Pending while a flood has to wait. */
  async say(sender: Member, block: Uint8Array): Promise<void> {
    this.#link.append(block);
    await this.#relay(block, sender);
  }

  async #relay(block: Uint8Array, sender?: Member): Promise<void> {
    for (const member of this.#members.keys()) if (member !== sender) member.deliver(block);
    if (this.#logsTalk) log(new TextDecoder().decode(block).trimEnd());
    // A client may be far behind only because the flood has taken the processor from its worker: so
    // a flood waits a little for it, and for the link. A single line never waits.
    for (let ms = 0; block.length >= flood && ms < maxWait && this.#isBehind(); ms++)
      await Bun.sleep(1);
  }

  #isBehind(): boolean {
    return this.#link.isBehind || this.#members.keys().some((member) => member.isBehind);
  }

  /** Tells one client something, in order with what the others say. */
  tell(member: Member, text: string): void {
    member.deliver(Buffer.from(`* ${text}\n`));
  }

  /** Tells everyone on this server something. */
  inform(text: string): void {
    for (const member of this.#members.keys()) this.tell(member, text);
    log(text);
  }

  /** Tells everyone, on other servers too, what a member has done. */
  #announce(member: Member, text: string): void {
    for (const other of this.#members.keys()) this.tell(other, text);
    this.#link.append(Buffer.from(`* ${text}\n`));
    log(`worker ${member.pid} (${member.address}): ${text}`);
  }

  // --- Who is here -------------------------------------------------------------------------------

  /** Tells a member who is here, which process serves them, and what that uses. */
  async who(member: Member): Promise<void> {
    if (!this.#members.has(member)) return;
    const usage = await this.#readUsage(Array.from(this.#members.keys(), ({ pid }) => pid));
    const others = await this.#link.others();
    const people = [...this.#members].map(([other, name]) => {
      const note =
        describe(other.relayed, usage.get(other.pid)) + (other === member ? ", you" : "");
      return `${name} (worker ${other.pid}${note}`;
    });
    const lines = [`${people.length + (others?.length ?? 0)} online:`];
    if (this.#link.label) lines.push(`${this.#link.label}, this one:`);
    lines.push(...people);
    let server = "";
    for (const other of others ?? []) {
      if (other.server !== server) lines.push(`${(server = other.server)}:`);
      lines.push(`${other.name} (worker ${other.pid})`);
    }
    if (!others) lines.push("the link is lost: who is on other servers is not known");
    this.tell(member, [...lines, `try: kill -9 ${member.pid}`].join("\n* "));
  }

  /**
   * Lets a client join, or gives it another name: the one that it wants or, if somebody has it, the
   * first that is free of ann2, ann3 and so on. Waits only if other servers have a say in it.
   */
  async name(member: Member, wanted: string): Promise<void> {
    const before = this.nameOf(member);
    let name = wanted;
    let online = 0;
    for (let n = 2; name !== before || !this.#link.owns(name); n++) {
      online = await this.#link.claim(name, member.pid);
      if (online > 0) break;
      name = [...wanted].slice(0, maxName - String(n).length).join("") + n;
    }
    if (!member.isOpen) {
      if (name !== before) this.#link.release(name); // it has gone meanwhile
      return;
    }
    if (name !== wanted) this.tell(member, `${wanted} is taken, you are ${name}`);
    if (name === before) return this.tell(member, `you are ${name} already`);
    this.#announce(
      member,
      before ? `${before} is now ${name}` : `${name} joined (${online} online)`,
    );
    this.#members.set(member, name);
    if (before) this.#link.release(before);
    else this.tell(member, `welcome ${name} (${online} online), /help lists the commands`);
  }

  /** The link has lost a name to a client of another server: its member here gets the next. */
  #rename(name: string): void {
    for (const [member, of] of this.#members)
      if (of === name) member.ask({ type: "name", name, at: 0 });
  }

  /** Tells the room that another process serves a member. */
  takeOver(member: Member, dead: number, how: string): void {
    const name = this.nameOf(member);
    this.#link.setPid(name, member.pid);
    const ending = how.replace(/^killed/, "was killed");
    this.#announce(member, `worker ${dead} of ${name} ${ending}, ${member.pid} took over`);
  }

  /** Takes a member out of the room, and tells the others `how` it left. */
  leave(member: Member, how = ""): void {
    const name = this.nameOf(member);
    if (!this.#members.delete(member)) return;
    this.#announce(member, `${name} left${how}`);
    this.#link.release(name);
  }

  /** Ends the link to other servers. */
  close(): Promise<void> {
    return this.#link.close();
  }
}

/** Says what a process has relayed and uses: the rest of its line in the answer to /who. */
function describe({ up, down }: Member["relayed"], usage?: Usage): string {
  const used = usage ? `${size(usage.memory)}, ${usage.cpu.toFixed(2)} s CPU, ` : "";
  return `: ${used}${size(up)} up, ${size(down)} down)`;
}

function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The link of a server that shares its room with no other. */
export function noLink(): Link {
  const names = new Set<string>();
  return {
    start() {},
    isBehind: false,
    append() {},
    async claim(name) {
      return names.has(name) ? 0 : names.add(name).size;
    },
    owns: (name) => names.has(name),
    setPid() {},
    release: (name) => void names.delete(name),
    label: "",
    others: async () => [],
    async close() {},
  };
}
