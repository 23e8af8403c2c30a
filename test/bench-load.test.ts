/** The benchmark's load, against a relay that does to lines what a rule says, and its faults, with real servers. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { Room } from "../bench/clients.ts";
import { measureFault } from "../bench/faults.ts";
import { bursts, openLoop, timesOf } from "../bench/load.ts";
import { contenders, startServer } from "../bench/servers.ts";
import { percentile } from "../bench/stats.ts";
import { patience, temporaryFolder } from "./helpers.ts";

setDefaultTimeout(2 * patience);

/** Writes to one client, the same function for all its lines. */
type Give = (text: string) => void;

let rule = (line: string, give: Give) => give(line);
process.env["XDG_RUNTIME_DIR"] = temporaryFolder(); // where a server that is started again finds its clients

const clients = new Map<Socket, Give>();
const relay = createServer((socket) => {
  let [name, carry] = ["", ""];
  clients.set(socket, (text) => socket.write(text, "latin1"));
  socket.on("error", () => {});
  socket.on("data", (chunk) => {
    const lines = (carry + chunk.toString("latin1")).split("\n");
    carry = lines.pop()!;
    name ||= lines.shift() ?? "";
    for (const [other, give] of clients)
      if (other !== socket) for (const line of lines) rule(`${name}: ${line}\n`, give);
  });
});
await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
const { port } = relay.address() as AddressInfo;
const room = new Room({ host: "127.0.0.1", port }, 80, 300);
await room.fill(4);
afterAll(() => {
  room[Symbol.dispose]();
  relay.close();
});

const right = { lost: 0, twice: 0, outOfOrder: 0, garbled: 0, cut: 0, echoed: 0, cutOff: 0 };

test.each([
  ["an open loop", async () => (await openLoop(room, 500, 0.1)).wrong],
  ["a burst", async () => (await bursts(room, 3).next()).value!.wrong],
])("what a relay does wrong in %s is counted by its kind", async (_, load) => {
  const changes = [
    () => "", // lost
    (line: string) => line + line, // twice
    (line: string) => `${line.slice(0, 30)}#${line.slice(31)}`, // garbled
    (line: string) => `${line.slice(0, 40)}\n`, // cut
  ];
  const changed = [0, 0, 0, 0];
  let seen = 0;
  rule = (line, give) => {
    const kind = (seen++ / 5) % 4; // of every fifth line
    if (!Number.isInteger(kind)) return give(line);
    changed[kind]!++;
    give(changes[kind]!(line));
  };
  const wrong = await load();
  const [dropped, twice, garbled, cut] = changed as [number, number, number, number];
  expect(Math.min(...changed)).toBeGreaterThan(0);
  expect(wrong).toEqual({ ...right, lost: dropped + garbled + cut, twice, garbled, cut });
});

test("lines that come after a later one of their sender are counted", async () => {
  // Each client's first line of a sender waits until the second has come.
  const held = new Map<Give, Map<string, string>>();
  let changed = 0;
  rule = (line, give) => {
    const lines = held.getOrInsertComputed(give, () => new Map());
    const name = line.slice(0, 5);
    const before = lines.get(name);
    lines.set(name, before === undefined ? line : "");
    if (before) changed++;
    if (before !== undefined) give(line + before);
  };
  const { wrong } = await openLoop(room, 500, 0.1);
  expect(changed).toBe(9); // three senders, three receivers of each
  expect(wrong).toEqual({ ...right, outOfOrder: changed });
});

test("a delay is in every time of a line, and nothing else is wrong", async () => {
  rule = (line, give) => void setTimeout(give, 120, line);
  const talk = await openLoop(room, 100, 0.1);
  expect(talk.wrong).toEqual(right);
  // A timer is never early by more than it rounds.
  for (const times of Object.values(timesOf([talk])))
    expect(percentile(times, 0)).toBeGreaterThan(115e6);
});

test("a line that comes late, after its run, is not taken for one of the next", async () => {
  const late: (() => void)[] = [];
  rule = (line, give) => void late.push(() => give(line));
  const first = await openLoop(room, 500, 0.02);
  expect(first.wrong.lost).toBe(36); // twelve lines to three others
  rule = (line, give) => give(line);
  for (const give of late) give();
  const second = await openLoop(room, 500, 0.1);
  expect(second.wrong).toEqual(right);
});

async function outcomeOfKill(name: string) {
  await using server = await startServer(contenders.find((one) => one.name === name)!.start(20));
  return await measureFault(server, "kill", 1, 3);
}

const testOnLinux = test.skipIf(process.platform !== "linux");
testOnLinux("a killed process hurts one client, or all where there is one for all", async () => {
  const [pipechat, evented] = [await outcomeOfKill("pipechat"), await outcomeOfKill("evented")];
  expect(pipechat).toMatchObject({ skipped: null, victim: { cutOff: false } });
  expect(pipechat.others).toMatchObject({ cutOff: 0, lost: 0, forGood: false });
  expect(pipechat.others!.told).toBeGreaterThan(0);
  expect(pipechat.victim!.served).toBeGreaterThan(0);
  expect(evented.others).toMatchObject({ cutOff: 2, forGood: true, told: NaN });
  expect(evented.victim).toMatchObject({ cutOff: true, served: Infinity });
});
