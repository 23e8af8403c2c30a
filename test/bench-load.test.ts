/** The benchmark's load against a relay that does to lines what a rule says. */
import { afterEach, expect, test } from "bun:test";
import { Room } from "../bench/clients.ts";
import { bursts, openLoop, timesOf } from "../bench/load.ts";
import { contenders, startServer } from "../bench/servers.ts";
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
  for (const room of rooms.splice(0)) room[Symbol.dispose]();
  for (const relay of relays.splice(0)) relay.stop(true);
});

/** A room of four behind a relay; `obey` sets the rule. It may give lines back to their sender, too. */
async function open({ echoes = false } = {}) {
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
          if (to === socket && !echoes) continue;
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
  const room = new Room({ host: "127.0.0.1", port: relay.port }, 80, 300);
  rooms.push(room);
  await room.fill(4);
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

const right = { lost: 0, twice: 0, outOfOrder: 0, garbled: 0, cut: 0, echoed: 0, cutOff: 0 };

/** Both loads, one after the other, each under its own rule. */
async function both(change: Parameters<typeof fifth>[0]) {
  const { room, obey } = await open();
  const loads = [
    async () => (await openLoop(room, 500, 0.2)).wrong,
    async () => (await bursts(room, 3).next()).value!.wrong,
  ];
  const results = [];
  for (const load of loads) {
    const { rule, changed } = fifth(change);
    obey(rule);
    results.push({ wrong: await load(), changed: changed() });
  }
  return results;
}

test("a relay that does nothing wrong is reported so, and how much it delivered", async () => {
  for (const { wrong } of await both((line) => line)) expect(wrong).toEqual(right);
  const { delivered } = await openLoop((await open()).room, 500, 0.2);
  expect(delivered).toBe(102 * 3); // 34 lines of each of three clients, to three others
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
  const { wrong } = await openLoop(room, 500, 0.2);
  expect(changed).toBe(9); // three senders, three receivers of each
  expect(wrong).toEqual({ ...right, outOfOrder: changed });
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

test("lines that come back to their sender are counted, whatever else is right", async () => {
  const { room } = await open({ echoes: true });
  const { wrong } = await openLoop(room, 500, 0.2);
  const { echoed, ...rest } = wrong;
  expect(echoed).toBeGreaterThanOrEqual(101); // the last one may come after all that was waited for
  expect({ ...rest, echoed: 0 }).toEqual(right);
});

test("a delay is in every time of a line, and nothing else is wrong", async () => {
  const { room, obey } = await open();
  obey(async (line) => {
    await Bun.sleep(120);
    return line;
  });
  const talk = await openLoop(room, 100, 0.2);
  expect(talk.wrong).toEqual(right);
  // A timer is never early by more than it rounds.
  for (const times of Object.values(timesOf([talk])))
    expect(percentile(times, 0)).toBeGreaterThan(115e6);
});

test("a server that stalls for 2.5 s of 8 s is late with 31 % of the lines, for as long as it stalls", async () => {
  const evented = contenders.find(({ name }) => name === "evented")!;
  await using server = await startServer(evented.start(4));
  using room = new Room(server);
  await room.fill(4);
  setTimeout(() => process.kill(server.pid!, "SIGSTOP"), 2000);
  setTimeout(() => process.kill(server.pid!, "SIGCONT"), 4500);
  const talk = await openLoop(room, 50, 8);
  const { last } = timesOf([talk]);
  const late = last.filter(([time]) => time > 0.05e9).reduce((sum, [, count]) => sum + count, 0);
  expect(talk.wrong).toEqual(right);
  // Of 400 lines, 125 are due in the stall, each by 20 ms less late than the one before. So 40 of 400 are
  // late by more than 2.5 s * (1 - 40 / 125), and 4 by more than 2.5 s * (1 - 4 / 125).
  expect(Math.abs(late / talk.lines.length - 0.31)).toBeLessThan(0.05);
  expect(Math.abs(percentile(last, 90) / 1e9 - 1.7)).toBeLessThan(0.15);
  expect(Math.abs(percentile(last, 99) / 1e9 - 2.42)).toBeLessThan(0.15);
}, 30_000);

test(
  "a client that is cut off is counted, and what it does not get is lost",
  async () => {
    const { room, obey } = await open();
    let cut = 0;
    obey((line, to) => {
      if (to.data.name !== "c0003") return line;
      if (cut++ === 0) to.end();
      return "";
    });
    const { wrong } = await openLoop(room, 500, 0.2);
    expect(wrong).toEqual({ ...right, lost: 102, cutOff: 1 });
  },
  { retry: 2 },
);

test("a line that comes late, after its run, is not taken for one of the next", async () => {
  const { room, obey } = await open();
  const late: (() => void)[] = [];
  obey((line) => new Promise((resolve) => late.push(() => resolve(line))));
  const first = await openLoop(room, 500, 0.02);
  expect(first.wrong.lost).toBe(36); // twelve lines to three others
  obey((line) => line);
  for (const give of late) give();
  const second = await openLoop(room, 500, 0.2);
  expect(second.wrong).toEqual(right);
});
