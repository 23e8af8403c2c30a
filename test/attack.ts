#!/usr/bin/env bun
/**
 * Random attacks, for minutes or a night: honest people come, chat and leave, others send whatever may
 * hurt, and processes are killed and stopped. A ledger (ledger.ts) checks that nobody honest has lost anything.
 *
 *     bun test/attack.ts [--minutes 5] [--seed N] [--redis] [--calm]
 *
 * The server is killed or replaced, too: nobody is disconnected, and lines are missing only if somebody was
 * told so. `--redis`: instead, two servers share a room, with a witness on each, and their Redis fails.
 * `--calm`: nobody attacks, 50 people come and go, and the memory of server and worker must not grow.
 *
 * The seed decides the server's options and what is tried, not what meets when. The first violation ends
 * the run with exit code 1, and is a line on stderr. Ctrl-C ends the run early, with all its checks.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Client, descriptors, isAlive, memory, randomFrom, spoken } from "./helpers.ts";
import { startServer, state, until } from "./helpers.ts";
import { count, House, houses, isBack, killed, mayMiss, observe } from "./ledger.ts";
import { Person, reconcile, run, violated } from "./ledger.ts";
import { Redis } from "./redis-server.ts";
import { isPlain } from "./scenes.ts";

const [text, flag] = [{ type: "string" }, { type: "boolean", default: false }] as const;
const { values } = parseArgs({ options: { minutes: text, seed: text, redis: flag, calm: flag } });
const { minutes = "5", seed = `${Math.floor(Math.random() * 2 ** 31)}`, calm: isCalm } = values;
Object.assign(run, { seed, isLinked: values.redis });
const { random, chance, upTo, pick } = randomFrom(Number(seed));
let time = new AbortController(); // of the attackers
const isOver = () => time.signal.aborted;
/** Waits for a random time of at most `seconds`, or until the attack is over. */
const moment = (seconds: number) =>
  sleep(random() * seconds * 1000, undefined, time).catch(() => {});

for (const event of ["uncaughtException", "unhandledRejection"])
  process.on(event, (error: Error) => violated(error.message));

// --- The servers, with the seed's options --------------------------------------------------------

const isUnderNohup = chance(0.5); // it ignores SIGHUP then
const password = chance(0.2) ? "open sesame" : "";
const folder = mkdtempSync(join(tmpdir(), "pipechat-attack-")); // also where a server finds its last one's clients
const passwordFile = join(folder, "password");
const redis = values.redis ? await Redis.start() : undefined;
const options = {
  rate: pick([50, 100, 1000, 0]),
  "max-line": pick([3000, 4096, 20_000, 65_536]), // longer than any honest line
  "max-clients": pick([24, 40, 60]),
  "max-lag": pick([2_000_000, 4_194_304]),
  spares: upTo(3),
  "join-timeout": 10 + upTo(10), // behind a password, on a machine that is attacked, a name takes seconds
  ...(isCalm && { rate: 1000, "max-clients": 80 }),
  ...(redis && { redis: redis.url, "max-lag": 4_194_304 }), // other servers' floods are not slowed
  ...(password && { "password-file": passwordFile }),
};
const args = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
const quick = { algorithm: "argon2id", memoryCost: 8, timeCost: 1 } as const;
if (password) await Bun.write(passwordFile, await Bun.password.hash(password, quick));
const { "max-line": maxLine, "max-clients": maxClients } = options;
const grace = 10_000; // that somebody who leaves has for what waits, ms
const maxMemory = 384 * 2 ** 20; // of a server, bytes
const maxGrowth = 32 * 2 ** 20; // of a process in the second half of a calm run, bytes

async function start(house: House): Promise<void> {
  const before = isUnderNohup ? ["nohup"] : [];
  const env = { PIPECHAT_HASTE: "", XDG_RUNTIME_DIR: folder };
  const all = ["--port", `${house.port}`, ...args];
  house.server = await startServer(all, { before, env, detached: true });
}

/** Connects, to the next server if this one is gone. */
async function connect(house: House): Promise<Client> {
  await house.isUp;
  const { isUp } = house;
  return Client.connect(house).catch((error) => {
    if (isUp === house.isUp) throw error;
    return connect(house);
  });
}

// --- Honest people -------------------------------------------------------------------------------

/** Connects, and joins. Returns undefined if the server is full. */
async function enter(house: House, name: string): Promise<Person | undefined> {
  const start = performance.now();
  const person = new Person(name, house, await connect(house));
  person.client.send(password ? `${name}\n${password}\n` : `${name}\n`);
  // Plain streams may lose the welcome with the process that had read it.
  const answers = /^\* (welcome|lines of others may be missing|server is full)/;
  const answer = await person.client.line(answers).catch(String);
  if (/^\* (welcome|lines)/.test(answer)) return person;
  person.forget();
  if (answer !== "* server is full" && house.lastUnknown < start - 5000)
    violated(`${name} was not served: ${answer}`);
  return undefined;
}

function say(person: Person, lines: number): void {
  for (; lines > 0; lines--) person.client.send(`${spoken(person.name, person.said++)}\n`);
}

/** Says numbered lines and asks who is here, as long as the attack lasts. */
async function chat(person: Person, turns = Infinity): Promise<void> {
  for (; turns > 0 && !isOver() && person.state === "here"; turns--) {
    await moment(isCalm ? 2 : 0.5);
    say(person, chance(0.01) ? options.rate || 1000 : upTo(chance(0.1) ? 20 : 2));
    if (chance(0.03)) person.client.send("/who\n");
  }
}

/** How somebody leaves: how the witness may be told, and what they do. */
const fates: Record<string, [RegExp, (person: Person) => unknown]> = {
  FIN: [/^$/, ({ client }) => client.end()],
  "/quit": [/^$/, ({ client }) => client.send("/quit\n")],
  RST: [/^$|killed by/, ({ client }) => client.reset()], // a process may just have been killed
  "reads nothing": [/^$|behind$/, (person) => lag(person)],
  "worker is stopped": [/^$|behind$/, (person) => lag(person, person.worker)],
};

/** Falls behind, or leaves before that. */
async function lag(person: Person, stopped = 0): Promise<void> {
  if (stopped) signal(stopped, "SIGSTOP");
  else person.client.pause();
  for (let n = upTo(60); n > 0 && !isOver() && person.state === "here"; n--) await moment(1);
  if (stopped) signal(stopped, "SIGCONT");
  else person.client.resume();
  if (person.state === "here") await person.client.end();
}

/** Somebody comes, chats and leaves, and must have heard all that was said meanwhile. */
async function visit(house: House): Promise<void> {
  await moment(1);
  const name = `v${house.n}-${count("visitors")}`;
  const person = await enter(house, name);
  if (!person) return;
  using client = person.client;
  await until(() => person.state !== "joining", `the witness to hear that ${name} joined`);
  await chat(person, upTo(30));
  const fate = pick(Object.keys(fates));
  count(fate);
  const [how, leave] = fates[fate]!;
  await house.isUp;
  person.isLeaving = true;
  person.mayLeave ??= how;
  if (person.state === "here") await leave(person);
  const hasLeft = () => /left|cut off/.test(person.state);
  await until(hasLeft, `the witness to hear that ${name} left (${fate})`);
  const start = performance.now();
  await client.ended();
  const took = performance.now() - start;
  observe(house);
  house.people.delete(person);
  const { heard, due, said, kills, state } = person;
  if (heard.length > 0) violated(`only ${name} heard: ${heard[0]}`);
  if (state === "cut off" || fate === "RST") return;
  const isSlow = took > 0.9 * grace; // on a busy machine, we are
  if (due.length > 0 && !mayMiss(person) && !isSlow)
    violated(`${name} left (${fate}) in ${took} ms without ${due[0]}`);
  const lines = house.accepted.get(person) ?? 0;
  if (lines < said && kills.length === 0)
    violated(`of ${said} lines of ${name} (${fate}), ${lines} were relayed`);
}

// --- Attackers -----------------------------------------------------------------------------------

/** What terminals and parsers fear, as a name or a line. */
const words = [
  "| |*|**ann|* ann|:|::|a:b|ann|ann:| ann|ann |witness|ANN|ann2|ａｎｎ|ﬀ|a\u0301\u0300\u0302|\u0301ann",
  "ann\u200b|\u202eann|\u2066x|\u2800|\u3000|\ufeffann|a\0b|\x1b[31mred|\x07|\x7f|a\tb|joined|worker",
  "server|5|welcome|try|(|x(1|you|is|now|left|__proto__|constructor|/nick|//x|/help|-rf|guest|guest2",
  "* ann left|ann: 7 forged|\r* server is shutting down|x\rann: 8 forged|x\u2028* forged|// * x",
  "\x1b[2J\x1b[H* forged|\x1b]0;title\x07|\u202etxet\u2066|\0\0\0|a\u0085b\u009b31m|/|//|/nope|/who x",
  `%s%n|$(reboot)|'; --|\\n|\ud800|${"😀".repeat(40)}|${"é".repeat(33)}|${"x".repeat(4096)}`,
  "x".repeat(100_000),
].flatMap((some) => some.split("|"));
const word = () => pick(words);
const bytes = (length: number) =>
  Uint8Array.from({ length }, () => (chance(0.05) ? 10 : upTo(255)));
const writes: (() => string | Uint8Array)[] = [
  () => bytes(upTo(5000)),
  () => "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
  () => Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...bytes(200)), // a TLS hello
  () => Uint8Array.of(0xff, 0xfd, 1, 0xff, 0xfb, 3, 0xff, 0xfa, 31, 0, 80, 0xff, 0xf0, 10), // telnet
  () => Uint8Array.of(0xe2, 0x82, 10, 0xf0, 0x9f, 0x98, 10, 0xed, 0xa0, 0x80, 10, 0xc0, 0xaf, 10),
  () => "x".repeat(chance(0.5) ? 1_000_000 : upTo(2 * maxLine)), // no end
  () => `${"x".repeat(maxLine - 1 + upTo(2))}\n`,
  () => `${"é".repeat(maxLine / 2 - 1 + upTo(2))}\r\n`,
  () => Buffer.concat([Buffer.alloc(maxLine / 3 - 2 + upTo(4), 0xfe), Buffer.from("\n")]), // thrice as long
  () => `${"y".repeat(maxLine)}\n`.repeat(Math.ceil(500_000 / maxLine)),
  () => pick(["\n", "\r\n\r\r\n", "\0"]).repeat(upTo(30_000)),
  () => pick(["/who\n", "/help\n"]).repeat(upTo(300)),
  () => `${word()}\n`.repeat(chance(0.5) ? 1 : upTo(50)),
  () => Array.from({ length: chance(0.5) ? 1 : upTo(60) }, () => `/nick ${word()}\n`).join(""),
  () => `/${"9j/4AAQ".repeat(upTo(300))}\n`,
];
const ends: ((client: Client) => unknown)[] = [
  (client) => client.reset(),
  (client) => client.send("\n/quit\n".repeat(chance(0.5) ? 1 : 500)),
  async (client) => {
    if (chance(0.5)) client.pause();
    await Promise.race([client.end().catch(() => {}), moment(2)]);
    client.resume();
  },
  () => moment(6),
];

/** Sends; while the link is lost, two servers may give away the same name: so each house has its own. */
function send(client: Client, what: string | Uint8Array, { n, witness }: House): void {
  if (typeof what !== "string") return client.send(what);
  client.send(what.replaceAll("ann", residents[3 * n]!).replaceAll("witness", witness.name));
}

/** Somebody hostile, from connecting to the end: says a name, or none, then anything, then ends somehow. */
async function attack(house: House): Promise<void> {
  await moment(0.3);
  using client = await connect(house);
  const isIn = chance(0.8);
  if (isIn) send(client, chance(0.8) ? `${word()}\n` : bytes(upTo(60)), house);
  if (isIn && chance(0.5)) client.send("\n");
  if (isIn && password && chance(0.7)) client.send(`${password}\n`);
  if (chance(0.2)) client.pause();
  for (let turns = upTo(isIn ? 12 : 2); turns > 0 && !isOver(); turns--) {
    if (chance(0.5)) await moment(0.5);
    if (chance(0.9)) send(client, pick(writes)(), house);
    else
      for (const byte of Buffer.from(`${word().slice(0, 99)} é😀 drip\n`))
        client.send(Uint8Array.of(byte));
  }
  await pick(ends)(client);
}

async function flood(house: House): Promise<void> {
  await moment(10);
  using client = await connect(house);
  client.send(`flood\n${password}\n${`${"f".repeat(1000)}\n`.repeat(10_000)}`);
  await moment(10);
}

/** As many connections as there are places, and more. */
async function storm(house: House): Promise<void> {
  await moment(10);
  const length = upTo(maxClients + 10);
  const clients = await Promise.all(Array.from({ length }, () => connect(house)));
  for (const client of clients) if (chance(0.5)) send(client, `${word()}\nhello\n`, house);
  await moment(2);
  for (const client of clients) ends[upTo(1)]!(client);
}

// --- Faults of processes -------------------------------------------------------------------------

function signal(pid: number, name: NodeJS.Signals): void {
  if (!pid || !isAlive(pid)) return; // 0 would be our own group
  process.kill(pid, name);
  count(name);
}

/** Kills one or several workers at once, and waits until others serve the honest. */
async function kill(house: House, honest: Person[], strangers: number[]): Promise<void> {
  const how = pick(["SIGKILL", "SIGTERM", "SIGKILL", "SIGALRM"] as const);
  const share = chance(0.2) ? 0.5 : isCalm ? 0.05 : 0.2;
  const start = performance.now() - 11_000; // three deaths in ten seconds would be the person's end
  const people = honest.filter(({ kills }) => !(kills.at(-2)! > start) && chance(share));
  const pids = [...people.map(({ worker }) => worker), ...strangers.filter(() => chance(share))];
  for (const pid of pids) {
    killed.add(pid);
    signal(pid, how);
    if (!house.served.has(pid)) house.lastUnknown = performance.now();
  }
  for (const person of people) person.worker = 0; // until we know it
  for (const { kills } of people) kills.push(performance.now());
  const areServed = () => {
    observe(house);
    return people.every(({ worker, state }) => worker || state !== "here");
  };
  await until(areServed, "other workers", () => people.map(({ name, worker }) => [name, worker]));
}

/** Stops a worker for a while: an honest person's only so long that they do not fall behind. */
async function stop(house: House, honest: Person[], strangers: number[]): Promise<void> {
  const isHonest = chance(0.3);
  const pid = pick(isHonest ? honest.map(({ worker }) => worker) : strangers) ?? 0;
  if (!house.served.has(pid)) house.lastUnknown = performance.now();
  await pause(pid, isHonest ? 0.4 : 3);
}

async function pause(pid: number, seconds: number): Promise<void> {
  signal(pid, "SIGSTOP");
  await moment(seconds);
  signal(pid, "SIGCONT");
}

/** Kills the server, or asks it to go, and starts another one, while nobody honest comes or goes. */
async function restart(house: House): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  house.isUp = promise;
  const isStill = () => [...house.people].every((one) => one.state === "here" && !one.isLeaving);
  for (let tries = 20; !isStill() && tries > 0; tries--) await Bun.sleep(100);
  if (!isStill()) return resolve();
  const isKill = chance(0.5);
  const all = [house.witness, ...house.people];
  const { process } = house.server;
  house.isFrozen = true;
  process.kill(isKill ? "SIGKILL" : "SIGUSR2");
  await process.exited;
  count(isKill ? "servers killed" : "servers replaced");
  await moment(4);
  await start(house);
  for (const { name, client } of all)
    await client.lines.until(() => client.lines.all.some(isBack), `${name} to be back`);
  house.lastUnknown = performance.now(); // whoever had no name yet was disconnected
  house.isFrozen = false;
  if (isKill) reconcile(house);
  resolve();
}

/** One fault at a time: so that what each may do is known. */
async function fault(house: House): Promise<void> {
  await moment(isCalm ? 0.5 : 1.5);
  observe(house);
  const { people, witness, server } = house;
  const served = [...people, witness].map(({ worker }) => worker);
  const isTarget = ({ state, worker, mayLeave }: Person) => state === "here" && worker && !mayLeave;
  const stopServer = () => pause(server.pid, 2);
  const hangUp = () => isUnderNohup && signal(server.pid, "SIGHUP");
  if (!redis && !isPlain && !isCalm && chance(0.15)) return restart(house);
  const act = pick([kill, kill, kill, stop, stopServer, hangUp]);
  // Of those that start or wait, one in a while: after three failures the server refuses somebody.
  let unknown = performance.now() - house.lastUnknown > 5000 ? 1 : 0;
  const mayHurt = (pid: number) => house.served.has(pid) || unknown-- > 0;
  const strangers = server.workers().filter((pid) => !served.includes(pid) && mayHurt(pid));
  await act(house, [...people].filter(isTarget), strangers);
}

async function redisFault({ n }: House): Promise<void> {
  await moment(8);
  if (!redis || n > 0) return; // one fault at a time
  const isKill = chance(0.5);
  await (isKill ? redis.kill() : redis.signal("SIGSTOP"));
  await moment(4);
  await (isKill ? redis.start() : redis.signal("SIGCONT"));
}

// --- The run -------------------------------------------------------------------------------------

/** Kills all that we have started, whatever happens, also a worker that is stopped. */
process.on("exit", () => {
  for (const { server } of houses)
    for (const pid of [server.pid, ...server.workers()]) signal(pid, "SIGKILL");
  redis?.signal("SIGKILL");
  if (redis) rmSync(redis.folder, { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
});
process.on("SIGINT", () => (isOver() ? process.exit(130) : time.abort()));
process.on("SIGTERM", () => process.exit(143));
setTimeout(() => violated("the run does not end"), Number(minutes) * 60_000 + 120_000).unref();

const residents = ["ann", "bob", "carl", "dora", "emil", "fay"]; // three in each house
for (let n = 0; n < (redis ? 2 : 1); n++) {
  const house = new House();
  houses.push(house);
  await start(house);
  house.witness = (await enter(house, `witness${n}`))!;
  house.witness.client.lines.all.length = 0;
  house.witness.state = "here";
  house.people.delete(house.witness);
  for (const name of residents.slice(3 * n, 3 * n + 3)) await enter(house, name);
}
/** Whether all residents have joined, and nothing is left of others. */
const isQuiet = (house: House) => {
  observe(house);
  const workers = house.server.workers();
  const areHere = [...house.people].every(({ state }) => state === "here");
  const areAlone = workers.length === 4 + options.spares && workers.every(isAlive);
  return areHere && areAlone && descriptors(house.server.pid) <= house.descriptors;
};
for (const house of houses) {
  await until(() => isQuiet(house), "the residents and the spares");
  house.descriptors = descriptors(house.server.pid);
}

console.log(`seed ${seed}: ${JSON.stringify({ ...options, password, isUnderNohup, isPlain })}`);
setInterval(() => houses.forEach(observe), 20);
const memories = { server: [] as number[], worker: [] as number[] }; // every second, bytes
const watch = setInterval(() => {
  for (const { server, witness, isFrozen } of houses) {
    memories.server.push(memory(server.pid));
    memories.worker.push(memory(witness.worker));
    if (memory(server.pid) > maxMemory) violated(`a server holds ${memory(server.pid)} bytes`);
    if (witness.client.lines.ended) violated(`${witness.name} was disconnected`);
    const { exitCode } = server.process;
    if (exitCode !== null && !isFrozen) violated(`server ended: ${exitCode}`);
  }
}, 1000);

type Act = (house: House) => Promise<void>;
const attackers: Act[] = [...Array<Act>(8).fill(attack), storm, flood];
const others: Act[] = [...Array<Act>(isCalm ? 47 : 4).fill(visit), fault, redisFault];

/** Attacks until `ms` have passed, each act again and again. */
async function attackFor(ms: number, acts: Act[]): Promise<void> {
  time = new AbortController();
  const timer = setTimeout(() => time.abort(), ms);
  const repeat = async (house: House, act: Act): Promise<void> => {
    for (; !isOver(); count(act.name))
      await act(house).catch((error: Error) => run.isEnding || violated(error.message));
  };
  const loops = houses.flatMap((house) => acts.map((act) => repeat(house, act)));
  const people = houses.flatMap((house) => [...house.people]);
  await Promise.all([...loops, ...people.map((person) => chat(person))]);
  clearTimeout(timer);
}

await attackFor(Number(minutes) * 60_000, isCalm ? others : [...others, ...attackers]);
clearInterval(watch);

// All hear all, and nothing is left of the others.
const all = houses.flatMap(({ people }) => [...people]);
for (const person of all) say(person, 1);
for (const house of houses) {
  const { server, accepted, people, descriptors: before } = house;
  const areTold = () => {
    observe(house);
    const hasAll = [...people].every(({ heard, due }) => heard.length + due.length === 0);
    return hasAll && all.every((person) => accepted.get(person) === person.said);
  };
  await until(areTold, "all to hear all", () => [all.map(({ due }) => due), accepted.values()]);
  const left = () => [server.workers().map(state), descriptors(server.pid), before];
  await until(() => isQuiet(house), "the end of the others' processes", left);
}
for (const [what, all] of Object.entries(memories)) {
  const [early, late] = [all.slice(0, all.length / 2), all.slice(all.length * 0.8)];
  const growth = Math.min(...late) - Math.max(...early);
  if (isCalm && growth > maxGrowth) violated(`the ${what}'s memory has grown by ${growth} bytes`);
}

// The servers end in order, in the middle of another attack.
void attackFor(3000, isCalm ? [] : attackers);
await Bun.sleep(1000);
run.isEnding = true;
for (const { server } of houses) {
  await server[Symbol.asyncDispose](); // which stops it, and looks for workers and errors
  time.abort();
  if (server.process.exitCode !== 0) violated(`server ended: ${server.process.exitCode}`);
}
const most = Math.round(Math.max(...memories.server) / 2 ** 20);
console.log(`${Math.round(performance.now() / 1000)} s, ${most} MB: ${JSON.stringify(run.tally)}`);
process.exit();
