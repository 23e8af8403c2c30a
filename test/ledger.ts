/**
 * The ledger of an attack: what honest people say and hear, and that none of them has lost anything.
 *
 * All see the same order, and the witness, who says nothing, hears everything. What the witness hears
 * between a person's join and leave is what that person must hear, but for their own lines. A person's
 * lines are numbered: the witness misses none, but for one read of each worker of theirs that was killed.
 *
 * @module
 */
import { type Client, freePort, missingBefore, type Server, unsafe } from "./helpers.ts";
import { isPlain } from "./scenes.ts";

const oneRead = 65_536; // bytes that a worker may hold when it dies

/** What is to be known of the whole run. */
export const run = {
  seed: "",
  isLinked: false, // two servers share the room
  isEnding: false, // the servers end
  tally: {} as Record<string, number>,
};

export function count(what: string, by = 1): number {
  return (run.tally[what] = (run.tally[what] ?? 0) + by);
}

/** Ends the run. */
export function violated(what: string): never {
  const errors = houses.flatMap(({ server }) => server?.errors.all ?? []);
  const found = `${what.slice(0, 2000)} ${errors.join(" ")}`;
  process.stderr.write(`VIOLATION (seed ${run.seed}): ${found}\n`);
  process.exit(1);
}

/** Somebody honest, who has connected. */
export class Person {
  state: "joining" | "here" | "left" | "cut off" = "joining"; // as the witness was told
  said = 0; // lines
  heard: string[] = []; // what the witness has not heard yet
  due: string[] = []; // what the witness has heard, and they have not
  kills: number[] = []; // when workers of theirs were killed, ms
  worker = 0; // the process that serves them; 0 if that is not known
  isLeaving = false;
  mayLack = false; // lines of theirs may have died with the server
  mayLeave: RegExp | undefined; // how, as the witness may be told

  constructor(
    readonly name: string,
    readonly house: House,
    readonly client: Client,
  ) {
    known.set(name, this);
    house.people.add(this);
    // A killed worker may cut a line in a character. Nobody kills that of the witness, who comes first.
    if (isPlain && house.witness) client.lines.decoder = new TextDecoder();
  }

  /** They were not served. */
  forget(): void {
    known.delete(this.name);
    this.house.people.delete(this);
    this.client[Symbol.dispose]();
  }
}

/** A server, and the honest people there. */
export class House {
  readonly n = houses.length;
  readonly port = freePort();
  server!: Server;
  isUp = Promise.resolve(); // pending while the server is away, and nobody honest may come or go
  isFrozen = false; // nothing is compared until everybody is back
  witness!: Person;
  people = new Set<Person>(); // without the witness
  accepted = new Map<Person, number>(); // of all people: how many lines the witness has heard
  isGap = false; // the witness was told that lines of other servers are missing
  served = new Set<number>(); // processes that have served somebody, by the server's log
  lastUnknown = 0; // when we have hurt a process of which we do not know whom it serves, ms
  descriptors = Infinity; // before the attack
}

/** Servers that share a room, or the only one. */
export const houses: House[] = [];
export const killed = new Set<number>(); // workers that we have killed
export const known = new Map<string, Person>(); // everybody honest, by name

const name = String.raw`[^\s:*][^\s:]*`;
const death = String.raw`killed by SIG[A-Z]+|was \d+ bytes behind`;
/** What a server that was started again says first to whom it has taken over. */
export const isBack = (line: string) => line.startsWith("* the server is back ");
const oneOf = (...notices: string[]) => new RegExp(`^\\* (?:${notices.join("|")})$`);
/** What everybody may hear from the server. */
const publicNotice = oneOf(
  `(?<who>${name}) joined \\((?:\\d+ online|their server is back)\\)`,
  `(?<who>${name}) is now (?<renamed>${name})`,
  `(?<who>${name}) left(?: \\((?<how>worker (?<pid>\\d+) (?:${death})|their server .*)\\))?`,
  `worker (?<pid>\\d+) of ${name} was killed by SIG[A-Z]+, \\d+ took over`,
  "server is shutting down|link to other servers (?:lost|is slow: .*)|link is (?:back|quick again)",
  "(?<gap>too much waits for the link: .*|(?:some|\\d+) lines from .* missing here)",
  "(?<gap>other servers have missed \\d+ lines)",
);
/** What only those hear whose worker or server has died: the witness, who asks nothing, hears no more. */
const privateNotice = /^\* (?:(?:lines|a line) of (?:yours|others) may be |the server is )/;
const isPublic = (line: string) => !line.startsWith("* ") || publicNotice.test(line);

/** Reads all that has come since the last time. */
export function observe(house: House): void {
  for (const line of house.server.log.all.splice(0)) readLog(house, line);
  if (house.isFrozen) return;
  witness(house, house.witness.client.lines.all.splice(0));
  for (const person of house.people) compare(person);
}

/** Judges what the witness has heard; everybody else must hear it, too. */
function witness(house: House, lines: string[]): void {
  for (const line of lines.filter((line) => !privateNotice.test(line))) {
    const isHere = ({ state, name }: Person) => state === "here" && !line.startsWith(`${name}: `);
    const hearers = [...house.people].filter(isHere);
    judge(house, line);
    for (const person of hearers) if (person.state === "here") person.due.push(line);
  }
}

/** Compares what a person has heard with what the witness has. */
function compare(person: Person): void {
  const { client, heard, due, name } = person;
  const isLossy = mayMiss(person);
  const lines = client.lines.all.splice(0).filter(isPublic);
  heard.push(...lines.filter((line) => line || !isLossy));
  let [n, isDue] = [0, 0];
  for (; n < heard.length && isDue < due.length; isDue++) {
    const [line, whole] = [heard[n]!, due[isDue]!];
    // Where plain streams have lost the rest of a line with a worker, a new one begins.
    if (line === whole || (isLossy && whole.startsWith(line.replace(/\ufffd$/, "")))) n++;
    else if (!isLossy) return violated(`${name} heard ${line}, not ${whole}`);
  }
  heard.splice(0, n);
  due.splice(0, isDue);
  count("lines heard", n);
}

/** Whether lines may have died with a worker: on plain streams, more than one read. */
export const mayMiss = ({ kills }: Person) => isPlain && kills.length > 0;

function judge(house: House, line: string): void {
  if (unsafe.test(line)) violated(`not clean: ${JSON.stringify(line)}`);
  if (line.startsWith("* ")) return judgeNotice(house, line);
  const [, speaker = "", said = ""] = new RegExp(`^(${name}): (.*)$`).exec(line) ?? [];
  if (!speaker || [...speaker].length > 32) violated(`nobody can have said: ${line}`);
  const person = known.get(speaker);
  if (!person) return;
  const lines = house.accepted.get(person) ?? 0;
  const missing = missingBefore(speaker, lines, said);
  const isNamed = house.isGap && person.house !== house;
  const isKnown = isNamed || person.mayLack || mayMiss(person);
  const most = isKnown ? Infinity : person.kills.length * oneRead;
  if (!missing || missing.bytes > most)
    return violated(`${missing?.bytes} bytes are missing after ${lines} lines: ${line}`);
  count("honest lines");
  if (missing.lines > 0) count("honest lines lost by victims or named", missing.lines);
  house.accepted.set(person, lines + missing.lines + 1);
  person.mayLack = false;
}

function judgeNotice(house: House, line: string): void {
  const notice = publicNotice.exec(line)?.groups;
  if (!notice) return violated(`the server has no such notice: ${line}`);
  const { who = "", renamed = "", how = "", pid, gap } = notice;
  if (gap) house.isGap = true;
  if (line.includes("killed by ") && !killed.has(Number(pid)))
    violated(`nobody has killed that worker: ${line}`);
  const person = known.get(who) ?? known.get(renamed);
  // A Redis that is away again and again can outlast a server's lease: then the others are told so.
  const isOfLink = run.isLinked && / \(their server (was lost|is back)\)$/.test(line);
  if (!person || run.isEnding || isOfLink) return;
  const isHere = house === person.house;
  if (line.startsWith(`* ${who} joined (`) && !(isHere && person.state === "here")) {
    if (isHere) person.state = "here";
  } else if (line.startsWith(`* ${who} left`) && person.mayLeave?.test(how)) {
    if (isHere) person.state = how ? "cut off" : "left";
  } else violated(`nothing of that kind was done: ${line}`);
}

/** Reads in the server's log who is served by which process. */
function readLog({ served }: House, line: string): void {
  const log =
    /^worker (?<pid>\d+) \(\S+\): (?:(?<who>\S+) (?:joined \(|was adopted)|worker \d+ of (?<who>\S+) .*over$)/;
  const { pid, who = "" } = log.exec(line)?.groups ?? {};
  if (pid) served.add(Number(pid));
  const person = known.get(who);
  if (person) person.worker = Number(pid);
  if (!person || !killed.has(person.worker)) return;
  // We killed it before we knew whom it serves, and so we may kill its successor.
  person.kills.push(performance.now());
  person.mayLeave = /^$|^worker/;
}

/** After the death of a server, somebody may lack what others have heard before it, if they were told. */
export function reconcile(house: House): void {
  const all = [house.witness, ...house.people];
  const takeOld = ({ client: { lines } }: Person) =>
    lines.all.splice(0, lines.all.findIndex(isBack) + 1);
  const isTold = (line: string) => /^\* (lines of others|a line of yours) may be /.test(line);
  const told = all.filter(({ client: { lines } }) =>
    lines.all.slice(0, lines.all.findIndex(isBack)).some(isTold),
  );
  if (told.length > 0) for (const person of all) person.mayLack = person.kills.push(0) > 0;
  const lines = takeOld(house.witness);
  const isEnd = (line: string) => isTold(line) || line.startsWith("* the server is gone");
  // The server may have died in the middle of the line before that.
  if (told[0] === house.witness) lines.splice(lines.findIndex(isEnd) - 1, 1);
  witness(house, lines);
  for (const person of told[0] === house.witness ? all : told) {
    takeOld(person);
    person.heard.length = person.due.length = 0;
  }
}
