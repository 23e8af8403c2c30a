/**
 * The answer to /who: who is here, which process serves them, and what that uses.
 *
 * @module
 */
import { type Usage, usageOf } from "./proc.ts";
import type { Member, Room } from "./room.ts";

const lifetime = 1000; // of what was read, ms: however many ask, reading must not slow down the server

const known = new Map<number, Usage | undefined>();

function recentUsageOf(pid: number): Usage | undefined {
  if (known.size === 0) setTimeout(() => known.clear(), lifetime).unref();
  if (!known.has(pid)) known.set(pid, usageOf(pid));
  return known.get(pid);
}

/** Lists everyone in a room for one of its members, and a command to try. */
export async function describeRoom<M extends Member>(room: Room<M>, asker: M): Promise<string> {
  const others = room.link ? await room.link.others() : [];
  const lines = [`${room.members.size + (others?.length ?? 0)} online:`];
  if (room.link) lines.push(`${room.link.label}, this one:`);
  for (const member of room.members) {
    const { name, pid, relayed } = member;
    const note = member === asker ? ", you" : "";
    lines.push(`${name} (worker ${pid}: ${describe(relayed, recentUsageOf(pid))})${note}`);
  }
  let server = "";
  for (const other of others ?? []) {
    if (other.server !== server) lines.push(`${other.server}:`);
    server = other.server;
    lines.push(`${other.name} (worker ${other.pid})`);
  }
  if (!others) lines.push("the link is lost: who is on other servers is not known");
  return [...lines, `try: kill -9 ${asker.pid}`].join("\n* ");
}

/** What a process has relayed and uses. */
function describe({ up, down }: Member["relayed"], usage?: Usage): string {
  const used = usage ? `${size(usage.memory)}, ${usage.cpu.toFixed(2)} s CPU, ` : "";
  return `${used}${size(up)} up, ${size(down)} down`;
}

function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
