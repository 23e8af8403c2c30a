#!/usr/bin/env bun
/**
 * Random attacks: honest people chat, while others send whatever may hurt, and processes are killed and
 * stopped. A ledger checks that nobody honest has noticed.
 *
 *     bun test/attack.ts [--minutes 5] [--seed N] [--redis]
 *
 * The witness of a server, who says nothing, hears everything. So what each honest person there has heard
 * must be what the witness has, but for their own lines; and the lines of the honest are numbered, so that
 * the witness misses none, but for one read of each of their workers that was killed. With `--redis` there
 * are two servers that share a room, a witness on each, and a Redis that is stopped and killed, too.
 *
 * The seed decides the server's options and what is tried, not what meets when. A violation is a line on
 * stderr; the exit code is 1 if there was one.
 *
 * @module
 */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { flag, readCommandLine, whole } from "../parts/shared/command-line.ts";
import { cleanName } from "../parts/shared/text.ts";
import { Client, descriptors, isAlive, memory, missingBefore, randomFrom } from "./helpers.ts";
import { root, run, type Server, spoken, state, unsafe, until, watchServer } from "./helpers.ts";
import { Redis } from "./redis-server.ts";

const values = readCommandLine(
  {
    head: "usage: bun test/attack.ts [options]\n",
    options: {
      minutes: whole(1, 10_000, "how long it runs", 5),
      seed: whole(0, 2 ** 31, "repeats what an earlier run tried (none)"),
      redis: flag("two servers that share a room, and a Redis that fails, too"),
    },
  },
  Bun.argv.slice(2),
  (given) => given,
);
const { minutes, seed = Math.floor(Math.random() * 2 ** 31) } = values;
const random = randomFrom(seed);
const chance = (probability: number) => random() < probability;
const upTo = (n: number) => Math.floor(random() * (n + 1));
const pick = <T>(from: readonly T[]): T => from[upTo(from.length - 1)]!;
/** Waits for a random time of `seconds` at most; shorter if the attack is over. */
const moment = (seconds: number) =>
  Promise.race([Bun.sleep(random() * seconds * 1000), ending.promise]);

const tally: Record<string, number> = {};
const count = (what: string, by = 1) => (tally[what] = (tally[what] ?? 0) + by);
let violations = 0;
let ending = Promise.withResolvers<void>(); // the time of the attackers is over
let over = false;
let isEnding = false; // the servers end

function violated(what: string): void {
  violations++;
  process.stderr.write(`VIOLATION (seed ${seed}): ${what.slice(0, 1000)}\n`);
}

// --- The servers, as the seed wants them ---------------------------------------------------------

const isPlain = process.env["PIPECHAT_PLAIN"] !== undefined; // then a killed worker may take more along
const isUnderNohup = chance(0.5); // SIGHUP is ignored then
const password = chance(0.2) ? "open sesame" : "";
const options = {
  rate: pick([50, 100, 1000, 0]),
  "max-line": pick([2048, 4096, 20_000, 65_536]),
  "max-clients": pick([24, 40, 60]),
  "max-lag": pick([1_000_000, 4_194_304]),
  "max-per-address": 0,
  spares: upTo(3),
  "join-timeout": password ? 5 : 1 + upTo(4),
};
const maxLine = options["max-line"];
const oneRead = 65_536; // bytes that a worker may hold when it dies
const maxSilence = 20_000; // that somebody who speaks all the time may not be heard, ms
const maxMemory = 384 * 2 ** 20; // of a server, bytes

const passwordFile = join(tmpdir(), `pipechat-attack-${process.pid}`);
const redis = values.redis ? await Redis.start() : undefined;

async function startServer(): Promise<Server> {
  const args = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  if (redis) args.push(`--redis=${redis.url}`);
  if (password) args.push(`--password-file=${passwordFile}`);
  const server = [process.execPath, "server.ts", "--port=0", ...args];
  return watchServer(
    Bun.spawn(isUnderNohup ? ["nohup", ...server] : server, {
      cwd: root,
      stdio: ["pipe", "pipe", "pipe"],
    }),
  );
}

// --- The ledger ----------------------------------------------------------------------------------

/** Somebody honest. */
interface Person {
  name: string;
  client: Client;
  said: number; // lines
  kills: number[]; // when their workers were killed, ms
  heard: string[]; // what all hear, and the witness has not heard yet
  position: number; // in the record: how far they have heard it
}

/** A server, and the honest people there. */
interface House {
  server: Server;
  witness: Person;
  people: Person[]; // who speak
  record: string[]; // what the witness has heard
  accepted: Map<Person, { lines: number; at: number }>; // heard by the witness, and when the last was
  isGap: boolean; // the witness was told that lines of other servers are missing
  workers: Map<number, string>; // whom the server's processes serve, as its log tells
  visitors: Map<string, number>; // how many lines of theirs the witness has heard
}

const houses: House[] = [];
const killed = new Set<number>(); // workers that we have killed
const everyone = () => houses.flatMap(({ people }) => people);

const name = String.raw`([^\s:*][^\s:]*)`;
const end = "killed by SIG[A-Z]+(?:, the third in 10 s)?|was \\d+ bytes behind";
/** What all may hear of the server; and what one may hear who has asked, or whose worker was killed. */
const publicNotice = new RegExp(
  `^\\* (?:${name} (?:joined \\((?:\\d+ online|their server is back)\\)|is now ${name}` +
    `|left(?: \\((?:worker (\\d+) (?:${end})|their server .*)\\))?)` +
    `|worker (\\d+) of ${name} was killed by SIG[A-Z]+, \\d+ took over|server is shutting down` +
    "|link to other servers lost|link is back|link is quick again" +
    "|link to other servers is slow: lines come about \\d+ s late|some lines from other servers may be missing here" +
    "|too much waits for the link: other servers miss what is said from now" +
    "|other servers have missed \\d+ lines|\\d+ lines from server \\d+ on \\S+ are missing here)$",
);
const privateNotice = new RegExp(
  "^\\* (?:\\d+ online:|server \\d+ on \\S+:|server \\d+ on \\S+, this one:|\\S+ \\(worker \\d+[:)].*" +
    "|the link is lost: who is .*|try: kill -9 \\d+|a line of yours may be lost" +
    "|your process died too often, goodbye)$",
);
/** What Bun prints when a worker gets a SIGSEGV. */
const crashReport = new RegExp(
  '^(?:=*|Bun v.*|Linux Kernel .*|CPU: .*|Args: .*worker\\.ts"|(?:Features|Builtins|Elapsed|RSS): .*' +
    "|panic\\(.* Segmentation fault .*|oh no: Bun has crashed.*|To send a redacted .*" +
    "|please file a GitHub .*| *https://bun\\.report/.*)\\s*$",
);

/** Enters what has newly happened in a house. */
function observe(house: House): void {
  for (const line of house.server.log.all.splice(0)) readLog(house, line);
  for (const line of house.witness.client.lines.all.splice(0)) {
    judge(house, line);
    house.record.push(line);
  }
  for (const person of house.people) {
    const heard = person.client.lines.all.splice(0).filter((line) => !privateNotice.test(line));
    person.heard.push(...heard);
    compare(house, person);
  }
  const done = Math.min(...house.people.map(({ position }) => position));
  house.record.splice(0, done);
  for (const person of house.people) person.position -= done;
}

/** Compares what a person has heard with what the witness has. */
function compare({ record }: House, person: Person): void {
  let n = 0;
  for (; person.position < record.length; person.position++) {
    const line = record[person.position]!;
    if (line.startsWith(`${person.name}: `)) continue;
    if (n === person.heard.length) break;
    if (person.heard[n] !== line) {
      violated(`${person.name} heard ${person.heard[n]}, and the witness ${line}`);
      return void (person.position = Infinity);
    }
    n++;
  }
  count("lines heard", n);
  person.heard.splice(0, n);
}

/** Judges a line that the witness has heard. */
function judge(house: House, line: string): void {
  if (unsafe.test(line)) violated(`not clean: ${JSON.stringify(line)}`);
  if (line.startsWith("* ")) return judgeNotice(house, line);
  const [, speaker = "", said = ""] = new RegExp(`^${name}: (.*)$`).exec(line) ?? [];
  if (cleanName(speaker) !== speaker) violated(`nobody can have said: ${JSON.stringify(line)}`);
  const visited = house.visitors.get(speaker);
  if (visited !== undefined) {
    house.visitors.set(speaker, visited + 1);
    if (said !== spoken(speaker, visited) && !wasKilled(house, speaker))
      violated(`after ${visited} lines: ${line}`);
  }
  const person = everyone().find((person) => person.name === speaker);
  if (!person) return;
  const accepted = house.accepted.get(person)!;
  const missing = missingBefore(speaker, accepted.lines, said);
  if (!missing) return violated(`after ${accepted.lines} lines: ${line}`);
  const isNamed = house.isGap && !house.people.includes(person);
  if (missing.bytes > person.kills.length * oneRead && !isNamed)
    violated(`${missing.bytes} bytes of ${speaker} are lost before: ${line}`);
  count("honest lines");
  if (missing.lines > 0) count("honest lines lost by victims or named", missing.lines);
  const lines = accepted.lines + missing.lines + 1;
  house.accepted.set(person, { lines, at: performance.now() });
}

/** Whether a process that served a visitor was killed: it may have taken lines along. */
function wasKilled({ workers }: House, name: string): boolean {
  return workers.entries().some(([pid, served]) => served === name && killed.has(pid));
}

function judgeNotice(house: House, line: string): void {
  const [match, who, renamed, left, dead] = publicNotice.exec(line) ?? [];
  if (match === undefined) return violated(`the server has no such notice: ${line}`);
  if (/missing here|missed|too much waits/.test(line)) house.isGap = true;
  const pid = Number(left ?? dead);
  if (line.includes("killed by ") && !killed.has(pid))
    violated(`nobody has killed that worker: ${line}`);
  const isHonest = (name?: string) => everyone().some((person) => person.name === name);
  // A Redis that is away again and again can outlast a server's lease: then the others are told so.
  const isOfLink = redis && / \(their server (was lost|is back)\)$/.test(line);
  if ((isHonest(who) || isHonest(renamed)) && !isEnding && !isOfLink)
    violated(`nothing of that kind was done: ${line}`);
  count("notices");
  if (line.includes("bytes behind")) count("fell behind");
}

/** Learns from the server's log who is served by which process. */
function readLog({ workers }: House, line: string): void {
  const [, pid, who, heir] =
    /^worker (\d+) \(\S+\): (?:(\S+) joined \(|worker \d+ of (\S+) .* took over$)/.exec(line) ?? [];
  if (pid) workers.set(Number(pid), (who ?? heir)!);
}

/** Connects, and joins; gives undefined if the server is full. */
async function enter(server: Server, name: string): Promise<Client | undefined> {
  const client = await Client.connect(server);
  client.send(password ? `${name}\n${password}\n` : `${name}\n`);
  const answer = await client.line(/^\* (welcome |server is full)/);
  if (!answer.includes("is full")) return client;
  client[Symbol.dispose]();
  return undefined;
}

async function openHouse(first: number): Promise<House> {
  const server = await startServer();
  const person = async (name: string): Promise<Person> => {
    const client = (await enter(server, name))!;
    return { name, client, said: 0, kills: [], heard: [], position: 0 };
  };
  const names = ["ann", "bob", "carl", "dora", "emil", "fay"].slice(first, first + 3);
  const people = [];
  for (const name of names) people.push(await person(name));
  const witness = await person(`witness${first}`);
  const maps = { accepted: new Map(), workers: new Map(), visitors: new Map() };
  return { server, witness, people, record: [], isGap: false, ...maps };
}

/** Says numbered lines as long as the attack lasts, and asks who is here. */
async function chat(person: Person): Promise<void> {
  while (!over) {
    await moment(0.5);
    for (let n = chance(0.05) ? 20 : 1; n > 0; n--) say(person);
    if (chance(0.03)) person.client.send("/who\n");
  }
}

function say(person: Person): void {
  person.client.send(`${spoken(person.name, person.said++)}\n`);
}

/** Somebody comes, says three lines and leaves: the server must serve them, too. */
async function visit(house: House): Promise<void> {
  const name = `v${house.witness.name.at(-1)}-${house.visitors.size}`;
  house.visitors.set(name, 0);
  const unknown = tally["unknown workers"]; // of those that we kill, one may be about to serve the visitor
  const client = await enter(house.server, name).catch((error: Error) => {
    if (unknown === tally["unknown workers"]) violated(`${name} was not served: ${error.message}`);
  });
  count(client ? "visits" : "visits to a full server");
  if (!client) return;
  using _client = client;
  client.send([0, 1, 2].map((n) => `${spoken(name, n)}\n`).join("") + "/quit\n");
  await client.ended();
  const isHeard = () => house.visitors.get(name) === 3 || wasKilled(house, name);
  await until(isHeard, `all that ${name} said`);
}

// --- Attackers -----------------------------------------------------------------------------------

const rubbish = (length: number) =>
  Uint8Array.from({ length }, () => (chance(0.05) ? 10 : upTo(255)));
const forgeries = [
  "* ann left",
  "ann: 7 forged",
  "\r* server is shutting down",
  "x\rann: 8 forged",
  "x\u2028* forged",
  "\x1b[2J\x1b[H* forged",
  "\x1b]0;title\x07",
  "\u202etxet\u2066",
  "\0\0\0",
  "a\u0085b\u009b31m",
];
const names = [
  "| |*|**ann|* ann|:|::|a:b|ann|ann:| ann|ann |witness|ANN|ann2|ａｎｎ|ﬀ|a\u0301\u0300\u0302|\u0301ann",
  "ann\u200b|\u202eann|\u2066x|\u2800|\u3000|\ufeffann|a\0b|\x1b[31mred|\x07|\x7f|a\tb|joined|worker",
  "server|5|welcome|try|(|x(1|you|is|now|left|__proto__|constructor|/nick|//x|/help|-rf|guest|guest2",
  `%s%n|$(reboot)|'; --|\\n|\ud800|${"😀".repeat(40)}|${"é".repeat(33)}|${"x".repeat(4096)}`,
  "x".repeat(100_000),
].flatMap((some) => some.split("|"));
const lines: (() => string | Uint8Array)[] = [
  () => rubbish(upTo(5000)),
  () => "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
  () => Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...rubbish(200)), // a TLS hello
  () => Uint8Array.of(0xff, 0xfd, 1, 0xff, 0xfb, 3, 0xff, 0xfa, 31, 0, 80, 0xff, 0xf0, 10), // telnet
  () => "x".repeat(upTo(2 * maxLine)), // no end
  () => `${"x".repeat(maxLine - 1 + upTo(2))}\n`,
  () => `${"é".repeat(maxLine / 2 - 1 + upTo(2))}\r\n`,
  () => `/${"9j/4AAQ".repeat(upTo(300))}\n`,
  () => Buffer.concat([Buffer.alloc(maxLine / 3 - 2 + upTo(4), 0xff), Buffer.from("\n")]), // thrice as long
  () => "x".repeat(1_000_000),
  () => `${"y".repeat(maxLine)}\n`.repeat(Math.ceil(500_000 / maxLine)),
  () => "\n".repeat(upTo(50_000)),
  () => "\r\n\r\r\n".repeat(upTo(1000)),
  () => "\0".repeat(upTo(100_000)),
  () => `${pick(forgeries)}\n`,
  () => `${pick(forgeries)}\n`.repeat(upTo(200)),
  () => "/who\n".repeat(upTo(100)),
  () => `/nick ${pick(names)}\n`,
  () => Array.from({ length: upTo(60) }, () => `/nick ${pick(names)}\n`).join(""),
  () =>
    pick(["/help\n", "/nick\n", "/\n", "//\n", "// * x\n", "/nope\n", "/who x\n", "/quit now\n"]),
  () => "/help\n".repeat(upTo(300)),
  () => Uint8Array.of(0xe2, 0x82, 10, 0xf0, 0x9f, 0x98, 10, 0xed, 0xa0, 0x80, 10, 0xc0, 0xaf, 10),
];

/** While the link is lost, two servers may give away the same name: so nobody wants one of the other's. */
function localized(text: string, { people, witness }: House): string {
  return text.replaceAll("ann", people[0]!.name).replaceAll("witness", witness.name);
}

/** Somebody hostile, from connecting to the end: says a name, or none, then anything, then ends somehow. */
async function attack(house: House): Promise<void> {
  using client = await Client.connect(house.server);
  const isIn = chance(0.8);
  const send = (what: string, bytes: string | Uint8Array) => {
    count(what);
    client.send(typeof bytes === "string" ? localized(bytes, house) : bytes);
  };
  if (isIn) {
    send("hostile names", chance(0.8) ? `${pick(names)}\n` : rubbish(upTo(60)));
    if (chance(0.5)) client.send("\n");
    if (password && chance(0.7)) client.send(`${password}\n`);
  } else count("nameless");
  if (chance(0.2)) {
    client.pause();
    count("do not read");
  }
  for (let turns = upTo(isIn ? 12 : 2); turns > 0 && !over; turns--) {
    if (chance(0.5)) await moment(0.5);
    if (chance(0.1)) await drip(client);
    else send("hostile writes", pick(lines)());
  }
  const fates: Record<string, () => unknown> = {
    reset: () => client.reset(),
    quit: () => client.send("\n/quit\n"),
    "/quit flood": () => client.send("\n/quit\n".repeat(500)),
    "half-close": () => Promise.race([client.end().catch(() => {}), moment(2)]),
    "half-close, slow": async () => {
      client.pause();
      await Promise.race([client.end().catch(() => {}), moment(2)]);
      for (let n = 0; n < 5; n++) {
        client.resume();
        await moment(0.2);
        client.pause();
        await moment(0.5);
      }
    },
    silence: () => moment(6),
  };
  const fate = pick(Object.keys(fates));
  count(fate);
  await fates[fate]!();
  if (chance(0.5)) await moment(1);
}

/** One byte a write. */
async function drip(client: Client): Promise<void> {
  count("drips");
  for (const byte of Buffer.from(`${pick(forgeries)} é😀 drip\n`)) {
    client.send(Uint8Array.of(byte));
    await Bun.sleep(chance(0.1) ? 10 : 0);
  }
}

/** Somebody who reads nothing for a while: with a flood, too much waits for them. */
async function stall({ server }: House): Promise<void> {
  count("stalls");
  using client = await Client.connect(server);
  client.send(`mute\n${password}\n`);
  await moment(1);
  client.pause();
  await moment(30);
}

async function flood({ server }: House): Promise<void> {
  count("floods");
  using client = await Client.connect(server);
  client.send(`flood\n${password}\n${`${"f".repeat(1000)}\n`.repeat(10_000)}`);
  await moment(10);
}

/** As many connections as there are places, and more. */
async function storm(house: House): Promise<void> {
  count("storms");
  const size = upTo(options["max-clients"] + 10);
  const clients = await Promise.all(
    Array.from({ length: size }, () => Client.connect(house.server)),
  );
  count("connections in storms", size);
  for (const client of clients)
    if (chance(0.5)) client.send(localized(`${pick(names)}\nhello\n`, house));
  await moment(2);
  for (const client of clients) {
    if (chance(0.3)) client.reset();
    else client[Symbol.dispose]();
  }
}

/** One comes after the other, until the attack is over. */
async function attackers(house: House, what: (house: House) => Promise<void>, pause: number) {
  while (!over) {
    await what(house).catch((error: Error) => {
      if (!isEnding) violated(error.message);
    });
    await moment(pause);
  }
}

// --- Faults of processes -------------------------------------------------------------------------

const signal = (pid: number, name: NodeJS.Signals) => {
  try {
    process.kill(pid, name);
    count(name);
  } catch {} // it has gone
};

/** The workers of those who are honest, and all others: attackers', spares, and those that start. */
function sortWorkers(house: House): { honest: [number, Person][]; others: number[] } {
  observe(house);
  const honest = [...house.people, house.witness].map((person): [number, Person] => {
    const [pid] = [...house.workers].findLast(([, name]) => name === person.name)!;
    return [pid, person];
  });
  const pids = honest.map(([pid]) => pid);
  return { honest, others: house.server.workers().filter((pid) => !pids.includes(pid)) };
}

/** Kills one or several workers at once, and waits until others serve the honest. */
async function kill(house: House): Promise<void> {
  const { honest, others } = sortWorkers(house);
  const how = pick(["SIGKILL", "SIGTERM", "SIGKILL", "SIGSEGV"] as const);
  const isMany = chance(0.2);
  const isFit = ({ kills: [...kills] }: Person) =>
    kills.filter((time) => time > performance.now() - 11_000).length < 2; // the third is the end
  const victims = honest.filter(
    ([, person]) => !isPlain && isFit(person) && chance(isMany ? 0.5 : 0.2),
  );
  const strangers = others.filter(() => chance(isMany ? 0.5 : 1 / others.length));
  if (how === "SIGSEGV") (strangers.splice(1), victims.splice(1 - strangers.length)); // two reports would mix
  for (const pid of strangers) {
    killed.add(pid);
    signal(pid, how);
    if (!house.workers.has(pid)) count("unknown workers");
  }
  for (const [pid, person] of victims) {
    killed.add(pid);
    person.kills.push(performance.now());
    signal(pid, how);
    count("workers of the honest killed");
  }
  const areServed = () => {
    const now = sortWorkers(house).honest.map(([pid]) => pid);
    return victims.every(([pid]) => !now.includes(pid));
  };
  const names = victims.map(([, { name }]) => name).join(" ");
  await until(areServed, `another worker for ${names}`, () => house.record.slice(-5));
}

/** Stops a worker for a while: not an honest one's for long, who must not fall behind. */
async function stop(house: House): Promise<void> {
  const { honest, others } = sortWorkers(house);
  const isHonest = chance(0.3);
  const pid = isHonest ? pick(honest)[0] : pick(others);
  if (pid === undefined) return;
  if (!house.workers.has(pid)) count("unknown workers"); // who does not start in time is killed
  signal(pid, "SIGSTOP");
  await moment(isHonest ? 0.4 : 3);
  signal(pid, "SIGCONT");
}

async function stopServer({ server }: House): Promise<void> {
  count("stops of a server");
  signal(server.pid, "SIGSTOP");
  await moment(2);
  signal(server.pid, "SIGCONT");
}

async function hangUp({ server }: House): Promise<void> {
  if (isUnderNohup) signal(server.pid, "SIGHUP");
}

async function stopRedis(): Promise<void> {
  count("stops of Redis");
  redis!.signal("SIGSTOP");
  await moment(4);
  redis!.signal("SIGCONT");
}

async function killRedis(): Promise<void> {
  count("kills of Redis");
  await redis!.kill();
  await moment(3);
  await redis!.start();
}

/** One fault after the other: so that what each may do is known. */
async function faults(house: House): Promise<void> {
  const all = [kill, kill, kill, stop, stopServer, hangUp];
  while (!over) {
    await moment(1.5);
    await pick(all)(house).catch((error: Error) => violated(error.message));
  }
}

async function redisFaults(): Promise<void> {
  while (!over) {
    await moment(8);
    await pick([stopRedis, killRedis])();
  }
}

// --- The run -------------------------------------------------------------------------------------

if (password) {
  const hash = ["server.ts", "--hash-password"];
  await Bun.write(
    passwordFile,
    (await run([process.execPath, ...hash], { stdin: password })).stdout,
  );
}
for (let n = 0; n < (redis ? 2 : 1); n++) houses.push(await openHouse(3 * n));

/** Kills all that we have started: whatever happens, nothing is left. */
process.on("exit", () => {
  for (const { server } of houses)
    for (const pid of [...server.workers(), server.pid]) signal(pid, "SIGKILL");
  redis?.signal("SIGKILL");
  if (redis) rmSync(redis.folder, { recursive: true, force: true });
  rmSync(passwordFile, { force: true });
});
for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => process.exit(130));
setTimeout(
  () => {
    violated("the run does not end");
    process.exit(1);
  },
  minutes * 60_000 + 120_000,
).unref();

// The ledger begins when everyone has heard both witnesses.
for (const { witness } of houses) {
  witness.client.send("begin\n");
  const others = houses.flatMap((house) => [house.witness, ...house.people]);
  for (const { client, name } of others)
    if (name !== witness.name) await client.line(`${witness.name}: begin`);
}
for (const house of houses) {
  for (const { client } of [house.witness, ...house.people]) client.lines.all.length = 0;
  for (const person of everyone()) house.accepted.set(person, { lines: 0, at: performance.now() });
}
const calmWorkers = 4 + options.spares;
const isCalm = ({ server }: House) =>
  server.workers().length === calmWorkers && server.workers().every(isAlive);
for (const house of houses) await until(() => isCalm(house), "the spares");
const before = houses.map(({ server }) => descriptors(server.pid));

const seconds = () => Math.round(performance.now() / 1000);
console.log(`seed ${seed}: ${JSON.stringify({ ...options, password, isUnderNohup, isPlain })}`);
let most = 0; // memory of a server, bytes
const clock = setInterval(() => houses.forEach(observe), 20);
const watch = setInterval(() => {
  for (const { server, accepted } of houses) {
    const bytes = memory(server.pid);
    if (bytes > maxMemory) violated(`a server holds ${bytes} bytes`);
    most = Math.max(most, bytes);
    for (const [{ name }, { at }] of accepted)
      if (!redis && performance.now() - at > maxSilence)
        violated(`${name} was not heard for ${Math.round(performance.now() - at)} ms`);
  }
  const gone = houses.flatMap(({ people, witness }) =>
    [...people, witness].filter(({ client }) => client.lines.ended),
  );
  for (const { name } of gone) violated(`${name} was disconnected`);
  const dead = houses.filter(({ server }) => server.process.exitCode !== null);
  for (const { server } of dead) violated(`a server ended with code ${server.process.exitCode}`);
  if (violations > 0) ending.resolve();
}, 1000);

/** Attacks until `ms` have passed, or something is wrong. */
async function attackFor(ms: number, alsoFaults: boolean): Promise<void> {
  over = false;
  ending = Promise.withResolvers();
  const timer = setTimeout(() => ending.resolve(), ms);
  void ending.promise.then(() => (over = true));
  await Promise.all(
    houses.flatMap((house, n) => [
      ...house.people.map(chat),
      ...Array.from({ length: 8 }, () => attackers(house, attack, 0.3)),
      attackers(house, storm, 10),
      attackers(house, stall, 3),
      attackers(house, flood, 10),
      ...(alsoFaults ? [faults(house)] : []),
      ...(alsoFaults ? [attackers(house, visit, 1)] : []),
      ...(alsoFaults && redis && n === 0 ? [redisFaults()] : []),
    ]),
  );
  clearTimeout(timer);
}

await attackFor(minutes * 60_000, true);

// All have heard all, nothing is left of the attackers.
for (const person of everyone()) say(person);
const missing = () =>
  houses.flatMap(({ accepted, people, record }) => [
    ...[...accepted].map(([{ name, said }, { lines }]) => `${name} ${lines} of ${said}`),
    ...people.map(({ name, position }) => `${name} heard ${position} of ${record.length}`),
  ]);
const areTold = () =>
  houses.every(
    (house) =>
      (observe(house), [...house.accepted].every(([{ said }, { lines }]) => lines === said)) &&
      house.people.every(({ position }) => position >= house.record.length),
  );
await until(areTold, "all to hear all", missing).catch((error) => violated(error.message));
for (const [n, house] of houses.entries()) {
  const { server } = house;
  const seen = () => [
    server.workers().map((pid) => [pid, state(pid)]),
    descriptors(server.pid),
    before,
  ];
  await until(
    () => isCalm(house) && descriptors(server.pid) <= before[n]!,
    "the end of the attackers' processes",
    seen,
  ).catch((error) => violated(error.message));
}

// The servers end in order, in the middle of another attack.
const last = attackFor(3000, false);
await Bun.sleep(1000);
clearInterval(watch);
isEnding = true;
for (const { server } of houses) {
  const workers = server.workers();
  const code = await server.stop();
  ending.resolve();
  if (code !== 0) violated(`a server ended with code ${code}`);
  await until(() => !workers.some(isAlive), "the workers' end").catch((e) => violated(e.message));
  const errors = server.errors.all.filter((line) => !crashReport.test(line));
  if (errors.length > 0) violated(`on stderr: ${errors.join(" ")}`);
}
clearInterval(clock);
houses.forEach(observe);
void last;
console.log(`${seconds()} s, ${Math.round(most / 2 ** 20)} MB at most: ${JSON.stringify(tally)}`);
process.exit(violations > 0 ? 1 : 0);
