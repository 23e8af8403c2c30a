/** The benchmark's load against a relay that does to lines what a rule says. */
import { afterEach, expect, test } from "bun:test";
import { Room } from "../bench/clients.ts";
import { bursts, openLoop, timesOf } from "../bench/load.ts";
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

/** A room of four behind a relay; `obey` sets the rule. */
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

const garble = (line: string) => `${line.slice(0, 30)}#${line.slice(31)}`;

test.each([
  ["does nothing wrong", (line: string) => line, []],
  ["loses lines", () => "", ["lost"]],
  ["sends lines twice", (line: string) => line + line, ["twice"]],
  ["changes bytes", garble, ["lost", "garbled"]],
  ["cuts lines", (line: string) => `${line.slice(0, 40)}\n`, ["lost", "cut"]],
] as const)("a relay that %s is reported so", async (_what, change, kinds) => {
  for (const { wrong, changed } of await both(change)) {
    expect(changed).toBeGreaterThan(0);
    const counted = Object.fromEntries(kinds.map((kind) => [kind, changed]));
    expect(wrong).toEqual({ ...right, ...counted });
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
