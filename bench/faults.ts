#!/usr/bin/env bun
/**
 * What isolation buys: 50 clients chat, and something happens to one of them. What do the others notice?
 *
 * Nothing is said to the server: its processes are found from outside, as those that hold a client's
 * socket. `compare.ts` starts this, once for each server and fault:
 *
 *     bun bench/faults.ts '{"server":{"host":"127.0.0.1","ports":[2000],"pid":4242,"form":"text"},
 *       "fault":"kill"}'
 *
 * It prints a {@link Fault} as JSON, or `{ "error": … }`.
 *
 * @module
 */
import {
  type Client,
  connect,
  connectSilently,
  fill,
  Ledger,
  openRoom,
  type Room,
  send,
  victimName,
} from "./clients.ts";
import { openLoop, type Talk, talk } from "./load.ts";
import type { Target } from "./measure.ts";
import type { Fault } from "./schema.ts";
import { coreOf, servingProcess } from "./system.ts";

/** Clients in the room; one of them is the victim. */
export const clients = 50;
/** Clients that never say a name. */
export const silent = 200;

const [secondsBefore, secondsAfter] = [2, 3];

/** Something that happens. */
interface Kind {
  /** What it is, for the report. */
  title: string;
  /** Seconds that it lasts, or for which what follows counts as "during". */
  seconds: number;
  /** Lines a second that all clients together say, and bytes in a line. */
  rate: number;
  size: number;
  /** Whether it happens to one client; else there is no victim. */
  hasVictim: boolean;
  /** Whether it happens to a process, which has to be ours. */
  needsProcess: boolean;
  /** Lets it happen; gives what ends it. */
  begin(scene: {
    room: Room;
    victim: Client;
    pid: number;
  }): Promise<() => unknown> | (() => unknown);
}

const usual = { seconds: 2, rate: 50, size: 80, hasVictim: true, needsProcess: true };

export const kinds: Record<string, Kind> = {
  kill: {
    ...usual,
    title: "its process is killed",
    begin({ pid }) {
      process.kill(pid, "SIGKILL");
      return () => {};
    },
  },
  hang: {
    ...usual,
    title: "its process hangs for 2 s",
    begin({ pid }) {
      process.kill(pid, "SIGSTOP");
      return () => process.kill(pid, "SIGCONT");
    },
  },
  flood: {
    ...usual,
    title: "it floods the room for 2 s",
    needsProcess: false,
    begin: ({ victim }) => flood(victim),
  },
  "stops reading": {
    // The kernel holds about 3 MB for a client that reads nothing: it takes that much to be noticed.
    ...usual,
    title: "it reads nothing for 8 s",
    seconds: 8,
    rate: 200,
    size: 4000,
    needsProcess: false,
    begin({ victim }) {
      victim.socket.pause();
      return () => victim.socket.resume();
    },
  },
  "busy core": {
    ...usual,
    title: "a busy loop takes its core for 2 s",
    begin: ({ pid }) => takeCore(pid),
  },
  "silent clients": {
    ...usual,
    title: `${silent} others connect and say no name`,
    hasVictim: false,
    needsProcess: false,
    async begin({ room }) {
      const guests = await Promise.allSettled(
        Array.from({ length: silent }, () => connectSilently(room)),
      );
      return () => {
        for (const guest of guests)
          if (guest.status === "fulfilled") guest.value.socket.terminate();
      };
    },
  },
};

/** Sends lines of 1,000 bytes that a chat should not pass on as they are, as fast as they are taken. */
function flood(client: Client): () => void {
  const hostile = Buffer.from(
    "\x1b[2J\x1b]0;owned\x07\x00\x08\x7f\r\x9b31m\u202e\xff\xfe\xc3(",
    "latin1",
  );
  const line = Buffer.alloc(1000, hostile).fill("\n", 999);
  const block = Buffer.alloc(1000 * 1000, line);
  const timer = setInterval(() => {
    if (client.unsent.length === 0) send(client, block);
  }, 1);
  return () => {
    clearInterval(timer);
    client.unsent = Buffer.alloc(0);
  };
}

/** Ties a process to the core on which it runs, and runs a busy loop beside it. */
async function takeCore(pid: number): Promise<() => Promise<void>> {
  const taskset = async (...args: string[]) => {
    const child = Bun.spawn(["taskset", ...args], { stderr: "ignore" });
    return child.stdout.text();
  };
  const mask = /: (\w+)$/.exec((await taskset("-p", String(pid))).trim())?.[1] ?? "";
  const core = String(coreOf(pid));
  await taskset("-acp", core, String(pid));
  const loop = Bun.spawn(["taskset", "-c", core, "sh", "-c", "while :; do :; done"]);
  return async () => {
    loop.kill("SIGKILL");
    await taskset("-ap", mask, String(pid));
  };
}

// --- One fault -----------------------------------------------------------------------------------

/** What to measure. */
export interface FaultPlan {
  server: Target;
  fault: string;
}

type Outcome = Pick<Fault, "lasted" | "others" | "victim" | "skipped">;

const skip = (skipped: string): Outcome => ({ skipped, lasted: null, others: null, victim: null });

async function measure({ server, fault }: FaultPlan): Promise<Outcome> {
  const kind = kinds[fault]!;
  if (kind.needsProcess && server.pid === undefined) return skip("its processes are not ours");
  const room = openRoom(server, kind.size);
  await fill(room, clients - 1);
  const victim = await letVictimIn(room);
  await openLoop(room, kind.rate).run(0.5); // warms up
  await Bun.sleep(500); // whoever passes a socket on has let go of it
  const pid = kind.needsProcess
    ? servingProcess(server.pid!, victim.socket.remotePort, victim.socket.localPort)
    : 0;
  if (pid === undefined) return skip("none of its processes has the client's socket");
  if (fault === "busy core" && !Bun.which("taskset")) return skip("there is no taskset here");

  let [begin, end, told, again] = [0, 0, NaN, NaN];
  room.onForeign = (receiver, line) => {
    const isNotice = line.includes(victimName(victim.number)) && receiver !== victim.number;
    if (begin > 0 && isNotice && Number.isNaN(told)) told = Bun.nanoseconds() - begin;
  };
  const speakers = room.clients.slice(0, -1).map(({ number }) => number);
  const seconds = secondsBefore + kind.seconds + secondsAfter;
  const happened = Promise.withResolvers<void>();
  const said = await talk(room, speakers, kind.rate, seconds, async (first) => {
    await Bun.sleep((first - Bun.nanoseconds()) / 1e6 + secondsBefore * 1000);
    begin = Bun.nanoseconds();
    void comeBack(room, victim, first + seconds * 1e9).then((heard) => (again = heard));
    const finish = await kind.begin({ room, victim, pid });
    await Bun.sleep((begin - Bun.nanoseconds()) / 1e6 + kind.seconds * 1000);
    await finish();
    end = Bun.nanoseconds();
    happened.resolve();
  });
  await happened.promise;
  return {
    skipped: null,
    lasted: fault === "kill" ? 0 : end - begin,
    others: {
      ...judgeOthers(said, room, victim, [begin, end, begin + (kind.seconds + secondsAfter) * 1e9]),
      told: known(told),
    },
    victim: kind.hasVictim
      ? judgeVictim(said, victim, begin, end, fault === "kill" ? begin : end, again)
      : null,
  };
}

const known = (value: number) => (Number.isFinite(value) ? value : null);

/** The victim joins last, and says nothing that is counted. It is in when it has heard somebody. */
async function letVictimIn(room: Room): Promise<Client> {
  room.victim = room.names;
  const victim = await connect(room);
  room.clients.push(victim);
  for (let attempt = 0; attempt < 20; attempt++) {
    const ledger = new Ledger(room, [0], 1);
    send(room.clients[0]!, ledger.line(0, 0));
    await Promise.race([ledger.complete, Bun.sleep(500)]);
    if (ledger.lost === 0) return victim;
  }
  throw new Error("the last client could not join");
}

/** If a client is cut off, it connects again as a user would. Gives when it heard somebody, or NaN. */
async function comeBack(room: Room, victim: Client, until: number): Promise<number> {
  while (victim.isOpen) {
    if (Bun.nanoseconds() > until) return NaN;
    await Bun.sleep(5);
  }
  let heard = NaN;
  while (Bun.nanoseconds() < until && Number.isNaN(heard)) {
    let said = "";
    const socket = await Bun.connect({
      hostname: room.host,
      port: room.ports[0]!,
      socket: {
        data(_, chunk) {
          said = (said + chunk.toString("latin1")).slice(-10_000);
          if (/^c\d{4}: \d{4} \d{8} /m.test(said) && Number.isNaN(heard)) heard = Bun.nanoseconds();
        },
      },
    }).catch(() => undefined);
    socket?.write(`${victimName(victim.number)}\n`);
    const patience = Bun.nanoseconds() + 1e9; // then it tries again
    while (socket && Number.isNaN(heard) && Bun.nanoseconds() < Math.min(until, patience))
      await Bun.sleep(5);
    socket?.terminate();
    await Bun.sleep(50);
  }
  return heard;
}

type Others = Omit<NonNullable<Fault["others"]>, "told">;

function judgeOthers(
  said: Talk,
  room: Room,
  victim: Client,
  [begin, end, last]: [number, number, number],
): Others {
  const others = room.clients.filter((client) => client !== victim);
  const windows = { before: [] as number[], during: [] as number[], after: [] as number[] };
  let lost = 0;
  for (let line = 0; line < said.lines; line++) {
    const due = said.due(line);
    const window = due < begin ? "before" : due < end ? "during" : "after";
    for (const { number } of others) {
      if (number === said.speaker(line)) continue;
      const arrival = said.arrival(line, number);
      if (Number.isNaN(arrival)) lost++;
      windows[window].push(Number.isNaN(arrival) ? Infinity : arrival - due);
    }
  }
  let [gap, forGood] = [0, false];
  for (const { number } of others) {
    const arrivals = Array.from({ length: said.lines }, (_, line) => said.arrival(line, number));
    const heard = arrivals.filter((arrival) => arrival >= begin).sort((a, b) => a - b);
    const moments = [begin, ...heard, Math.max(last, heard.at(-1) ?? 0)];
    for (const [n, moment] of moments.slice(1).entries()) gap = Math.max(gap, moment - moments[n]!);
    forGood ||= last - (heard.at(-1) ?? begin) > 1e9;
  }
  const p99 = (times: number[]) =>
    known(times.sort((a, b) => a - b)[Math.ceil(times.length * 0.99) - 1] ?? NaN);
  return {
    count: others.length,
    cutOff: others.filter(({ isOpen }) => !isOpen).length,
    expected: said.lines * (others.length - 1),
    lost,
    gap,
    forGood,
    before: p99(windows.before),
    during: p99(windows.during),
    after: p99(windows.after),
  };
}

function judgeVictim(
  said: Talk,
  victim: Client,
  begin: number,
  end: number,
  from: number,
  again: number,
): Fault["victim"] {
  let [missing, served] = [0, again];
  for (let line = 0; line < said.lines; line++) {
    const [due, arrival] = [said.due(line), said.arrival(line, victim.number)];
    if (due >= begin && due < end && Number.isNaN(arrival)) missing++;
    if (due >= from && !(served <= arrival) && !Number.isNaN(arrival)) served = arrival;
  }
  return { cutOff: !victim.isOpen, missing, served: known(served - from) };
}

if (import.meta.main) {
  const result = await measure(JSON.parse(process.argv[2]!) as FaultPlan).catch((error: Error) => ({
    error: error.message,
  }));
  process.stdout.write(JSON.stringify(result), () => process.exit());
}
