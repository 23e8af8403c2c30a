/**
 * What isolation buys: 50 clients chat, and something happens to one of them. What do the others notice?
 * The server is not told: its processes are found from outside, as those that hold a client's socket.
 */
import { type Client, Room, type Target } from "./clients.ts";
import { openLoop, type Talk, talk } from "./load.ts";
import type { Fault } from "./schema.ts";
import { coreOf, servingProcess } from "./system.ts";

/** Clients in the room, if nobody asks for another number; one of them is the victim. */
export const clients = 50;
const silent = 200; // clients that never say a name

/** Something that happens. */
interface Kind {
  title: string; // for the report; `{s}` stands for the seconds that it lasts
  share: number; // how long it lasts, or what follows counts as "during"; in parts of `--seconds`
  rate: number; // lines a second that all clients together say
  size: number; // bytes in a line
  hits: "client" | "process" | "nobody"; // a process has to be ours
  /** Lets it happen. Returns what ends it. */
  begin(victim: Client, pid: number, room: Room): Promise<() => unknown> | (() => unknown);
}

const usual = { share: 0.5, rate: 50, size: 80 };

/** What can happen, by its name. */
export const kinds: Record<string, Kind> = {
  kill: {
    ...usual,
    title: "its process is killed",
    hits: "process",
    begin: (_, pid) => signal(pid, "SIGKILL", 0),
  },
  hang: {
    ...usual,
    title: "its process hangs for {s} s",
    hits: "process",
    begin: (_, pid) => signal(pid, "SIGSTOP", "SIGCONT"),
  },
  flood: {
    ...usual,
    title: "it floods the room for {s} s",
    hits: "client",
    begin: flood,
  },
  "stops reading": {
    // The kernel holds about 3 MB for a client that reads nothing: it takes that much to be noticed.
    title: "it reads nothing for {s} s",
    share: 2,
    rate: 200,
    size: 4000,
    hits: "client",
    begin({ socket }) {
      socket.pause();
      return () => socket.resume();
    },
  },
  "busy core": {
    ...usual,
    title: "a busy loop takes its core for {s} s",
    hits: "process",
    begin: (_, pid) => takeCore(pid),
  },
  "silent clients": {
    ...usual,
    title: `${silent} others connect and say no name`,
    hits: "nobody",
    async begin(_victim, _pid, room) {
      const all = Array.from({ length: silent }, () => room.connect(""));
      const guests = await Promise.allSettled(all);
      return () => guests.forEach((guest) => "value" in guest && guest.value.socket.terminate());
    },
  },
};

function signal(pid: number, first: NodeJS.Signals, last: NodeJS.Signals | 0): () => unknown {
  process.kill(pid, first);
  return () => last && process.kill(pid, last);
}

/** What happens, for the report; it takes time in proportion to `--seconds`. */
export const titleOf = (fault: string, seconds: number): string =>
  kinds[fault]!.title.replace("{s}", `${kinds[fault]!.share * seconds}`);

/** Sends lines of 1,000 bytes that a chat should not pass on as they are, as fast as they are taken. */
function flood(client: Client): () => void {
  const hostile = "\x1b[2J\x1b]0;owned\x07\x00\x08\x7f\r\x9b31m\u202e\xff\xfe\xc3(";
  const line = Buffer.alloc(1000, Buffer.from(hostile, "latin1")).fill("\n", 999);
  const block = Buffer.alloc(1000 * 1000, line);
  const timer = setInterval(() => {
    if (client.unsent.length === 0) client.send(block);
  }, 1);
  return () => {
    clearInterval(timer);
    client.unsent = Buffer.alloc(0);
  };
}

/** Ties a process to the core on which it runs, and runs a busy loop beside it. */
async function takeCore(pid: number): Promise<() => Promise<void>> {
  const taskset = (...args: string[]) =>
    Bun.spawn(["taskset", ...args], { stderr: "ignore" }).stdout.text();
  const mask = /: (\w+)$/.exec((await taskset("-p", `${pid}`)).trim())?.[1] ?? "";
  const core = `${coreOf(pid)}`;
  await taskset("-acp", core, `${pid}`);
  const loop = Bun.spawn(["taskset", "-c", core, "sh", "-c", "while :; do :; done"]);
  return async () => {
    loop.kill("SIGKILL");
    await taskset("-ap", mask, `${pid}`);
  };
}

/** How long before it, during and after it the room is looked at, s. */
export const phases = (fault: string, seconds: number) => ({
  before: seconds / 2,
  during: kinds[fault]!.share * seconds,
  after: Math.max(1.5, 0.75 * seconds),
});

type Outcome = Omit<Fault, "server" | "fault">;

/** Lets something happen to one of the clients of a server. */
export async function measureFault(
  server: Target,
  fault: string,
  seconds: number,
  count = clients,
): Promise<Outcome> {
  const skip = (skipped: string): Outcome => ({ skipped, others: null, victim: null });
  const { hits, rate, size, begin: inflict } = kinds[fault]!;
  if (hits === "process" && server.pid === undefined) return skip("its processes are not ours");
  using room = new Room(server, size);
  await room.fill(count - 1);
  room.victim = room.names;
  const victim = await room.connect();
  room.clients.push(victim);
  await room.meet(0); // the victim says nothing that is counted
  await openLoop(room, rate, 0.5); // warms up
  await Bun.sleep(500); // whoever passes a socket on has let go of it
  const { remotePort, localPort } = victim.socket;
  const pid = hits === "process" ? servingProcess(server.pid!, remotePort, localPort) : 0;
  if (pid === undefined) return skip("none of its processes has the client's socket");
  if (fault === "busy core" && !Bun.which("taskset")) return skip("there is no taskset here");

  let [begin, end, told, again] = [0, 0, NaN, NaN];
  room.onForeign = (receiver, line) => {
    const isNotice = line.includes(room.nameOf(victim.number)) && receiver !== victim.number;
    if (begin > 0 && isNotice) told ||= Bun.nanoseconds() - begin;
  };
  const speakers = room.clients.slice(0, -1).map(({ number }) => number);
  const { before, during, after } = phases(fault, seconds);
  const happened = Promise.withResolvers<void>();
  const said = await talk(room, speakers, rate, before + during + after, async (first) => {
    await Bun.sleep((first - Bun.nanoseconds()) / 1e6 + before * 1000);
    begin = Bun.nanoseconds();
    void comeBack(room, victim, begin + (during + after) * 1e9).then((heard) => (again = heard));
    const finish = await inflict(victim, pid, room);
    await Bun.sleep((begin - Bun.nanoseconds()) / 1e6 + during * 1000);
    await finish();
    end = Bun.nanoseconds();
    happened.resolve();
  });
  await happened.promise;
  const others = room.clients.filter((client) => client !== victim);
  const last = begin + (during + after) * 1e9;
  const since = fault === "kill" ? begin : end;
  const noticed = { ...judgeOthers(said, others, begin, end, last), told };
  const suffered = judgeVictim(said, victim, begin, end, since, again);
  return { skipped: null, others: noticed, victim: hits === "nobody" ? null : suffered };
}

/** If a client is cut off, it connects again as a user would. Returns when it got a line, or NaN. */
async function comeBack(room: Room, victim: Client, until: number): Promise<number> {
  const isTime = () => Bun.nanoseconds() < until;
  while (victim.isOpen && isTime()) await Bun.sleep(5);
  while (isTime()) {
    const again = await room.connect(room.nameOf(victim.number)).catch(() => undefined);
    for (let ms = 0; ms < 1000 && again?.isOpen && isTime(); ms += 5) {
      if (again.heard) return again.heard;
      await Bun.sleep(5);
    }
    again?.socket.terminate();
    await Bun.sleep(50);
  }
  return NaN;
}

function judgeOthers({ lines }: Talk, others: Client[], begin: number, end: number, last: number) {
  const times = lines.flatMap(({ due, speaker, arrivals }) =>
    others
      .filter(({ number }) => number !== speaker)
      .map(({ number }) => ({ due, time: arrivals[number]! - due || Infinity })),
  );
  /** p99 of the lines that were due in a time; null if it was lost. */
  const p99 = (from: number, to: number) => {
    const all = times.filter(({ due }) => due >= from && due < to).map(({ time }) => time);
    return all.sort((a, b) => a - b)[Math.ceil(all.length * 0.99) - 1] ?? NaN;
  };
  /** How long each of them waited for each line, and then for the end. */
  const gaps = others.map(({ number }) => {
    const all = lines.map(({ arrivals }) => arrivals[number]!).filter((time) => time >= begin);
    const heard = [begin, ...all.sort((a, b) => a - b)];
    return heard.map((time, nth) => (heard[nth + 1] ?? Math.max(last, time)) - time);
  });
  return {
    cutOff: others.filter(({ isOpen }) => !isOpen).length,
    lost: times.filter(({ time }) => time === Infinity).length,
    gap: Math.max(...gaps.flat()),
    forGood: gaps.some((waits) => waits.at(-1)! > 1e9),
    before: p99(0, begin),
    during: p99(begin, end),
    after: p99(end, Infinity),
  };
}

/** The victim is served again with the first line that was due `since` then, or `again` on a new connection. */
function judgeVictim(
  { lines }: Talk,
  { number, isOpen }: Client,
  ...[begin, end, since, again]: [number, number, number, number]
): Fault["victim"] {
  const due = (from: number, to: number) => lines.filter(({ due }) => due >= from && due < to);
  const arrivals = [again, ...due(since, Infinity).map((line) => line.arrivals[number]!)];
  const missing = due(begin, end).filter((line) => Number.isNaN(line.arrivals[number])).length;
  const served = Math.min(...arrivals.filter(Number.isFinite)) - since;
  return { cutOff: !isOpen, missing, served };
}
