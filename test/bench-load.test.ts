/** The benchmark's load against a relay that does to lines what a rule says. */
import { afterEach, expect, test } from "bun:test";
import { closeRoom, fill, openRoom, type Room } from "../bench/clients.ts";
import { openFlood, openLoop } from "../bench/load.ts";
import { percentile } from "../bench/stats.ts";

/** What becomes of a line on its way to a client. */
type Rule = (line: string, to: Bun.Socket<Peer>) => string | Promise<string>;

interface Peer {
  name: string;
  carry: string;
  unsent: string;
}

const relays: Bun.TCPSocketListener<Peer>[] = [];
const rooms: Room[] = [];
afterEach(() => {
  for (const room of rooms.splice(0)) closeRoom(room);
  for (const relay of relays.splice(0)) relay.stop(true);
});

/** A room of four behind a relay; `obey` sets the rule, which counts how often it was broken. */
async function open() {
  let rule: Rule = (line) => line;
  const clients = new Set<Bun.Socket<Peer>>();
  const flush = (socket: Bun.Socket<Peer>) => {
    const bytes = Buffer.from(socket.data.unsent, "latin1");
    socket.data.unsent = bytes.toString("latin1", Math.max(0, socket.write(bytes)));
  };
  const give = (to: Bun.Socket<Peer>, text: string) => {
    const isFirst = to.data.unsent === "";
    to.data.unsent += text;
    if (isFirst) flush(to);
  };
  const relay = Bun.listen<Peer>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.data = { name: "", carry: "", unsent: "" };
        clients.add(socket);
      },
      data(socket, chunk) {
        const lines = (socket.data.carry + chunk.toString("latin1")).split("\n");
        socket.data.carry = lines.pop()!;
        socket.data.name ||= lines.shift() ?? "";
        for (const to of clients) {
          if (to === socket) continue;
          const all = lines.map((line) => rule(`${socket.data.name}: ${line}\n`, to));
          give(to, all.filter((given) => typeof given === "string").join(""));
          for (const given of all)
            if (typeof given !== "string") void given.then((late) => give(to, late));
        }
      },
      drain: flush,
      close: (socket) => void clients.delete(socket),
    },
  });
  relays.push(relay);
  const room = openRoom({ host: "127.0.0.1", ports: [relay.port], form: "text" }, 80, 300);
  rooms.push(room);
  await fill(room, 4);
  return { room, obey: (next: Rule) => (rule = next) };
}

/** A rule for every fifth line, and how many it was used for. */
function fifth(change: (line: string, to: Bun.Socket<Peer>) => string | Promise<string>) {
  let [seen, changed] = [0, 0];
  const rule: Rule = (line, to) => {
    if (++seen % 5 > 0) return line;
    changed++;
    return change(line, to);
  };
  return { rule, changed: () => changed };
}

const right = { lost: 0, twice: 0, outOfOrder: 0, garbled: 0, cut: 0, cutOff: 0 };

/** Both loads, one after the other, each under its own rule. */
async function both(change: Parameters<typeof fifth>[0]) {
  const { room, obey } = await open();
  const loads = { loop: openLoop(room, 500), flood: openFlood(room, 3, () => undefined) };
  const results = [];
  for (const load of [loads.loop, loads.flood]) {
    const { rule, changed } = fifth(change);
    obey(rule);
    await load.run(0.2);
    results.push({ ...load.report(), changed: changed() });
  }
  return results;
}

test("a relay that does nothing wrong is reported so, and how much it delivered", async () => {
  const results = await both((line) => line);
  for (const { wrong } of results) expect(wrong).toEqual(right);
  expect(results[0]!.delivered).toBe(102 * 3); // 34 lines of each of three clients, to three others
});

test("lines that are lost are counted", async () => {
  for (const { wrong, changed } of await both(() => "")) {
    expect(changed).toBeGreaterThan(0);
    expect(wrong).toEqual({ ...right, lost: changed });
  }
});

test("lines that come twice are counted", async () => {
  for (const { wrong, changed } of await both((line) => line + line)) {
    expect(changed).toBeGreaterThan(0);
    expect(wrong).toEqual({ ...right, twice: changed });
  }
});

test("lines that come after a later one of their sender are counted", async () => {
  // Each client's first line of a sender waits until the second has come.
  const { room, obey } = await open();
  const loop = openLoop(room, 500);
  const held = new Map<string, string>();
  let changed = 0;
  obey((line, to) => {
    const key = `${to.data.name} ${line.slice(0, 5)}`;
    const before = held.get(key);
    if (before === undefined) {
      held.set(key, line);
      return "";
    }
    if (before === "") return line;
    held.set(key, "");
    changed++;
    return line + before;
  });
  await loop.run(0.2);
  expect(changed).toBe(9); // three senders, three receivers of each
  expect(loop.report().wrong).toEqual({ ...right, outOfOrder: changed });
});

test("lines with other bytes are counted, and what they were is lost", async () => {
  for (const at of [9, 30, 84]) {
    const garble = (line: string) => `${line.slice(0, at)}#${line.slice(at + 1)}`;
    for (const { wrong, changed } of await both(garble)) {
      expect(changed).toBeGreaterThan(0);
      expect(wrong).toEqual({ ...right, lost: changed, garbled: changed });
    }
  }
});

test("lines without their end are counted, and they are lost", async () => {
  for (const { wrong, changed } of await both((line) => `${line.slice(0, 40)}\n`)) {
    expect(changed).toBeGreaterThan(0);
    expect(wrong).toEqual({ ...right, lost: changed, cut: changed });
  }
});

test("a delay is in every time of a line, and nothing else is wrong", async () => {
  const { room, obey } = await open();
  const loop = openLoop(room, 100);
  obey(async (line) => {
    await Bun.sleep(120);
    return line;
  });
  await loop.run(0.2);
  const { wrong, first, each, last } = loop.report();
  expect(wrong).toEqual(right);
  // A timer is never early by more than it rounds.
  for (const times of [first, each, last]) expect(percentile(times, 0)).toBeGreaterThan(115e6);
});

test("a client that is cut off is counted, and what it does not get is lost", async () => {
  const { room, obey } = await open();
  let cut = 0;
  obey((line, to) => {
    if (to.data.name !== "c0003") return line;
    if (cut++ === 0) to.end();
    return "";
  });
  const loop = openLoop(room, 500);
  await loop.run(0.2);
  expect(loop.report().wrong).toEqual({ ...right, lost: 102, cutOff: 1 });
});

test("a line that comes late, after its run, is not taken for one of the next", async () => {
  const { room, obey } = await open();
  const late: (() => void)[] = [];
  obey((line) => new Promise((resolve) => late.push(() => resolve(line))));
  const first = openLoop(room, 500);
  await first.run(0.02);
  expect(first.report().wrong.lost).toBe(36); // twelve lines to three others
  obey((line) => line);
  for (const give of late) give();
  const second = openLoop(room, 500);
  await second.run(0.2);
  expect(second.report().wrong).toEqual(right);
});
