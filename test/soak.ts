#!/usr/bin/env bun
/**
 * A long run: clients come, talk, stall and leave at random, their workers are killed, and a ledger
 * checks what each of them has heard.
 *
 *     bun test/soak.ts [--minutes 5] [--clients 50] [--seed N]
 *
 * All see the same order. So one client, the witness, listens from the beginning to the end, and
 * what it hears between `* c7 joined` and `* c7 left` is what c7 must have heard, but for c7's own
 * lines: all of it if c7 left in peace, the beginning of it if c7 was torn away, whatever became of its
 * workers. And the lines of c7 are numbered, so that the witness misses none: all that c7 said if it
 * left in peace, but for one read of each of its workers that was killed.
 *
 * Ctrl-C ends the run early, with all its checks; a second one at once. The exit code is 1 if
 * anything was wrong.
 *
 * @module
 */
import { readCommandLine, whole } from "../parts/shared/command-line.ts";
import { Client, descriptors, isAlive, memory, missingBefore, randomFrom } from "./helpers.ts";
import { root, spoken, until, watchServer, within } from "./helpers.ts";

const values = readCommandLine(
  {
    head: "usage: bun test/soak.ts [options]\n",
    options: {
      minutes: whole(1, 10_000, "how long it runs", 5),
      clients: whole(1, 10_000, "how many there are at once", 50),
      seed: whole(0, 2 ** 31, "repeats what an earlier run tried (none)"),
    },
  },
  Bun.argv.slice(2),
  (given) => given,
);
const { minutes, clients, seed = Math.floor(Math.random() * 2 ** 31) } = values;

// --- The ledger ----------------------------------------------------------------------------------

/** One client from its join to its end. */
interface Visit {
  name: string;
  said: number; // lines that it has sent
  accepted: number; // of these, the lines that the witness has heard
  from: number; // where the witness heard that it joined; -1: not yet
  to: number; // where the witness heard that it left
  how: string; // what the witness heard about that: "" for in peace
  kills: number; // workers that were killed: each may have taken one read of its lines along
  left: PromiseWithResolvers<void>;
}

const oneRead = 65_536; // bytes that a worker may hold when it dies
const isPlain = process.env["PIPECHAT_PLAIN"] !== undefined; // then it may hold more, in both directions

const visits = new Map<string, Visit>(); // those who are here, by name
const violations: string[] = [];
const tally: Record<string, number> = { visits: 0, lines: 0, deliveries: 0 };
const count = (what: string, by = 1) => (tally[what] = (tally[what] ?? 0) + by);

function violated(what: string): void {
  violations.push(what);
  process.stderr.write(`\nVIOLATION (seed ${seed}): ${what}\n`);
}

/** What the witness heard: the order of everything. What nobody here can need any more is cut off. */
const record: string[] = [];
let cut = 0; // lines cut off: record[0] is the line with this number

/** Enters what the witness has newly heard. */
function observe(): void {
  for (const line of witness.lines.all.splice(0)) {
    const [, name = "", event, rest = ""] =
      /^(?:\* )?(c\d+)( joined| left|: )(.*)$/.exec(line) ?? [];
    const visit = visits.get(name);
    if (visit && event === " joined") visit.from = cut + record.length;
    else if (visit && event === " left") {
      visit.to = cut + record.length;
      visit.how = rest.trim();
      visit.left.resolve();
    } else if (visit && event === ": ") {
      const missing = missingBefore(name, visit.accepted, rest);
      if (!missing || (missing.lines > 0 && visit.kills === 0))
        violated(`after ${visit.accepted} lines: ${line}`);
      else if (missing.bytes > visit.kills * oneRead && !isPlain)
        violated(`${visit.name} lost ${missing.bytes} bytes to ${visit.kills} kills`);
      if (missing?.lines) count("lines lost by victims", missing.lines);
      if (missing) visit.accepted += missing.lines + 1;
      count("lines");
    } else if (/^\* worker \d+ of c\d+ was killed by SIG\w+, \d+ took over$/.test(line))
      count("takeovers");
    else if (!line.startsWith("* welcome witness")) violated(`nobody can have said: ${line}`);
    record.push(line);
  }
}

/** Compares what a client has heard with what the witness has. */
function settle(visit: Visit, client: Client): void {
  const isPrivate =
    /^\* (welcome |\d+ online:|\S+ \(worker \d+|try: kill|a line of yours may|lines of others may)/;
  const heard = client.lines.all.filter((line) => !isPrivate.test(line));
  const due = record
    .slice(visit.from + 1 - cut, visit.to - cut)
    .filter((line) => !line.startsWith(`${visit.name}: `));
  const known = new Set(heard);
  if (isPlain && visit.kills > 0)
    due.splice(0, due.length, ...due.filter((line) => known.has(line)));
  const wrong = heard.findIndex((line, n) => line !== due[n]);
  if (wrong >= 0)
    violated(`${visit.name} heard as line ${wrong}: ${heard[wrong]}, not ${due[wrong]}`);
  if (visit.how === "" && heard.length < due.length)
    violated(`${visit.name} left in peace with ${heard.length} of ${due.length} lines`);
  if (visit.how === "" && visit.accepted < visit.said && visit.kills === 0)
    violated(`of ${visit.said} lines that ${visit.name} said, ${visit.accepted} were relayed`);
  count("deliveries", heard.length);
  visits.delete(visit.name);
  const oldest = Math.min(...[...visits.values()].map(({ from }) => (from < 0 ? Infinity : from)));
  if (Number.isFinite(oldest)) cut += record.splice(0, oldest - cut).length;
}

// --- A client's life -----------------------------------------------------------------------------

const ending = Promise.withResolvers<void>(); // the run's time is over
let over = false;
void ending.promise.then(() => (over = true));

/** What may happen to a client in the end, and what the witness must hear about it. */
const fates: Record<string, RegExp> = {
  FIN: /^$/,
  "/quit": /^$/,
  RST: /^$/,
  SIGSTOP: /^\(worker \d+ was \d+ bytes behind\)$/,
  stall: /^\(worker \d+ was \d+ bytes behind\)$/,
};

async function visit(n: number): Promise<void> {
  const random = randomFrom(seed + n);
  const chance = (probability: number) => random() < probability;
  const moment = (seconds: number) =>
    Promise.race([Bun.sleep(random() * seconds * 1000), ending.promise]);
  if (chance(0.1)) {
    using mute = await Client.connect(server); // and leaves without a name
    await moment(1);
    if (chance(0.5)) await mute.end();
    return;
  }
  const left = Promise.withResolvers<void>();
  const visit: Visit = {
    ...{ name: `c${n}`, said: 0, accepted: 0, from: -1, to: -1, how: "" },
    ...{ kills: 0, left },
  };
  visits.set(visit.name, visit);
  using client = await Client.connect(server, visit.name);

  let killed = -Infinity; // when, ms
  for (let turns = random() * 40; turns > 0 && !over; turns--) {
    await moment(2);
    const lines = chance(0.02) ? 1000 : Math.floor(random() * 20);
    for (let n = 0; n < lines; n++) client.send(`${spoken(visit.name, visit.said++)}\n`);
    if (chance(0.05)) client.send("/who\n");
    if (chance(0.05)) {
      client.pause();
      await moment(3);
      client.resume();
    }
    // Three in ten seconds would be the client's end.
    if (chance(0.1) && performance.now() - killed > 5500) {
      killed = performance.now();
      visit.kills++;
      const dead = await server.worker(visit.name);
      process.kill(dead, chance(0.5) ? "SIGKILL" : "SIGTERM");
      await server.log.line(new RegExp(`: worker ${dead} of ${visit.name} was killed`));
    }
    if (chance(0.02)) {
      const worker = await server.worker(visit.name);
      process.kill(worker, "SIGSTOP");
      await moment(1);
      process.kill(worker, "SIGCONT");
    }
  }

  const names = Object.keys(fates);
  const worker = await server.worker(visit.name);
  const fate = over ? "FIN" : names[Math.floor(random() * names.length)]!;
  if (fate === "RST") client.reset();
  if (fate === "/quit") client.send("/quit\n");
  if (fate.startsWith("SIG")) process.kill(worker, fate);
  if (fate === "stall") client.pause();
  if (fate === "stall" || fate === "SIGSTOP") await Promise.race([left.promise, ending.promise]);
  if (fate === "stall") client.resume();
  if (fate === "SIGSTOP" && !visit.how) process.kill(worker, "SIGCONT");
  const inPeace = visit.how === "" && /FIN|stall|SIGSTOP/.test(fate); // the run ended before the stall
  if (inPeace) await client.end();
  await within(left.promise, `the witness to hear that ${visit.name} left (${fate})`);
  await client.ended();
  if (!inPeace && !fates[fate]!.test(visit.how))
    violated(`${visit.name} left ${visit.how}: ${fate}`);
  if (fate === "RST") visit.how = "reset";
  settle(visit, client);
  count("visits");
  count(inPeace ? "FIN" : fate);
}

/** One place of the room: who leaves it is followed by the next. */
async function place(first: number): Promise<void> {
  for (let n = first; !over; n += clients)
    await visit(n).catch((error) => violated(`c${n}: ${error.message}`));
}

// --- The run -------------------------------------------------------------------------------------

const server = await watchServer(
  Bun.spawn([process.execPath, "server.ts", "--port=0", "--rate=1000"], {
    cwd: root,
    stdio: ["pipe", "pipe", "pipe"],
    detached: true, // a Ctrl-C is for the run, which ends the server
  }),
);
const witness = await Client.connect(server, "witness");
// The witness's worker, and a spare; what is dead is reaped.
const alone = () => server.workers().length === 2 && server.workers().every(isAlive);
await until(alone, "the spare");
const before = descriptors(server.pid);
const started = performance.now();
const watched = { server: server.pid, worker: await server.worker("witness") };
const megabytes: Record<keyof typeof watched, number>[] = []; // their memory, every second

function report(end: string): void {
  const seconds = Math.round((performance.now() - started) / 1000);
  const figures = Object.entries(tally).map(([what, n]) => `${n.toLocaleString("en")} ${what}`);
  const now = `${seconds} s, seed ${seed}: ${visits.size} here, ${megabytes.at(-1)?.server} MB`;
  process.stderr.write(`\r${now}; ${figures.join(", ")}; ${violations.length} violations${end}`);
}

const clock = setInterval(observe, 20);
const progress = setInterval(() => {
  const inMegabytes = (pid: number) => Math.round(memory(pid) / 2 ** 20);
  megabytes.push({ server: inMegabytes(watched.server), worker: inMegabytes(watched.worker) });
  if (process.stderr.isTTY) report("\x1b[K");
  else if (megabytes.length % 30 === 0) report("\n");
}, 1000);
setTimeout(ending.resolve, minutes * 60_000);
process.on("SIGINT", () => {
  if (over) process.exit(130);
  ending.resolve();
});
void server.process.exited.then((code) => {
  if (!over) violated(`the server ended with code ${code}: ${server.errors.all.join(" ")}`);
  ending.resolve();
});

await Promise.all(Array.from({ length: clients }, (_, n) => place(n)));
clearInterval(progress);
await until(alone, "the end of all workers", () => server.workers()).catch((e) =>
  violated(e.message),
);
const growth = descriptors(server.pid) - before;
if (growth > 0) violated(`${growth} descriptors more than before`);
clearInterval(clock);

report("\n");
for (const who of ["server", "worker"] as const) {
  const samples = megabytes.map((sample) => sample[who]);
  const usual = (from: number, to: number): number =>
    samples.slice(samples.length * from, samples.length * to).sort((a, b) => a - b)[
      Math.floor((samples.length * (to - from)) / 2)
    ] ?? 0;
  const [early, late] = [usual(0.25, 0.5), usual(0.75, 1)];
  console.log(`${who}: ${early} MB, later ${late} MB, ${Math.max(...samples)} MB at most`);
  if (late > early + 32) violated(`the ${who}'s memory has grown from ${early} to ${late} MB`);
}
console.log(`descriptors: ${before} before, ${before + growth} after`);
const code = await server.stop();
if (code !== 0 || server.errors.all.length > 0)
  violated(`the server ended with code ${code}: ${server.errors.all.join(" ")}`);
process.exit(violations.length > 0 ? 1 : 0);
