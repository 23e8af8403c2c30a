import { expect, test } from "bun:test";
import { type Link, type Member, Room } from "../parts/server/room.ts";
import { describeRoom } from "../parts/server/who.ts";

/** A member that keeps what it is told. */
class Person implements Member {
  readonly address = "::1";
  readonly relayed = { up: 1234, down: 5 };
  readonly descriptor = -1;
  readonly heard: string[] = [];
  name = "";
  isOpen = true;
  isBehind = false;

  constructor(public pid = 0) {}

  push(line: Uint8Array): void {
    this.heard.push(`${Buffer.from(line)}`.trimEnd());
  }

  tell(text: string): void {
    this.heard.push(`* ${text}`);
  }

  setName(name: string): void {
    this.name = name;
  }
}

/** A room with ann, bob and eve in it, who have heard nothing yet; and a link on which nobody else is. */
async function roomOfThree(changes: Partial<Link> = {}) {
  const names = new Set<string>();
  const link: Link = {
    id: "host/1/a",
    label: "here",
    adopt: async (name) => names.add(name).size,
    start() {},
    append() {},
    isBehind: false,
    claim: async (name) => (names.has(name) ? 0 : names.add(name).size),
    owns: (name) => names.has(name),
    setPid() {},
    release: (name) => void names.delete(name),
    others: async () => [],
    async close() {},
    ...changes,
  };
  const room = new Room<Person>(() => undefined, link);
  const [ann, bob, eve] = [new Person(process.pid), new Person(4_000_002), new Person(4_000_003)];
  await room.name(ann, "ann");
  await room.name(bob, "bob");
  await room.name(eve, "eve");
  for (const { heard } of [ann, bob, eve]) heard.length = 0;
  return { room, ann, bob, eve, link };
}

const alone = () => new Room<Person>(() => undefined);

test("a newcomer reads who is here, ten at most, and is announced; on other servers, too", async () => {
  const room = alone();
  const people = Array.from({ length: 13 }, () => new Person());
  for (const one of people) await room.name(one, "x");
  const ten = "x, x2, x3, x4, x5, x6, x7, x8, x9, x10";
  const welcomeOf = (person: Person) => person.heard.find((line) => line.startsWith("* welcome"));
  expect(welcomeOf(people[10]!)).toInclude(` (11 online: ${ten}), /help`);
  expect(welcomeOf(people[12]!)).toInclude(` (13 online: ${ten}, and 2 more), /help`);
  expect(people[0]!.heard.slice(-2)).toEqual([
    "* x12 joined (12 online)",
    "* x13 joined (13 online)",
  ]);
  const linked = await roomOfThree({ claim: async () => 9 });
  const [zoe, al] = [new Person(), new Person()];
  await linked.room.name(zoe, "zoe");
  expect(welcomeOf(zoe)).toInclude(" (9 online: ann, bob, eve, and 5 more), /help");
  await new Room<Person>(() => undefined, linked.link).name(al, "al");
  expect(welcomeOf(al)).toInclude(" (9 online), /help");
});

test("a name that is taken, in any case or width, gets the first number that is free", async () => {
  const { room, ann, bob, eve } = await roomOfThree();
  await room.name(bob, "ＡＮＮ");
  await room.name(eve, "ann");
  await room.name(eve, "ann"); // in vain, of which she alone is told
  const told = "* ann is taken, you are ann3";
  expect(eve.heard.slice(-3)).toEqual([told, "* eve is now ann3", told]);
  expect(ann.heard.at(-1)).toBe("* eve is now ann3");
  room.leave(bob);
  await room.name(eve, "ann");
  await room.name(ann, "Ann");
  expect([ann, bob, eve].map(({ name }) => name)).toEqual(["Ann", "", "ann2"]);
});

test("a long name that is taken keeps its length, in whole characters", async () => {
  const room = alone();
  const people = Array.from({ length: 10 }, () => new Person());
  for (const one of people) await room.name(one, "😀".repeat(32));
  expect(people[1]!.name).toBe(`${"😀".repeat(31)}2`);
  expect(people[9]!.name).toBe(`${"😀".repeat(30)}10`);
});

test("who has gone before its name was granted was never there, and leaves that name free", async () => {
  const { room, ann, bob, eve } = await roomOfThree();
  const gone = new Person();
  const joined = room.name(gone, "zoe");
  gone.isOpen = false;
  await joined;
  expect([gone.name, gone.heard, ann.heard]).toEqual(["", [], []]);
  bob.isOpen = false;
  await room.name(bob, "bob"); // which it keeps until it leaves
  await room.name(ann, "zoe");
  await room.name(eve, "bob");
  expect([ann, bob, eve].map((member) => member.name)).toEqual(["zoe", "bob", "bob2"]);
});

test("/who lists everyone with their processes, on other servers too", async () => {
  const remote = (name: string, server: string) => ({ name, server, pid: 7 });
  const others = async () => [remote("zoe", "there"), remote("zac", "there"), remote("al", "far")];
  const { room, ann } = await roomOfThree({ others });
  const list = (await describeRoom(room, ann)).split("\n* ");
  const figures = "(\\d+(\\.\\d)? (k|M)?B, \\d+\\.\\d\\d s CPU, )?1\\.2 kB up, 5 B down"; // with /proc
  expect(list).toEqual([
    "6 online:",
    "here, this one:",
    expect.stringMatching(new RegExp(`^ann \\(worker ${process.pid}: ${figures}\\), you$`)),
    "bob (worker 4000002: 1.2 kB up, 5 B down)",
    "eve (worker 4000003: 1.2 kB up, 5 B down)",
    ...["there:", "zoe (worker 7)", "zac (worker 7)", "far:", "al (worker 7)"],
    `try: kill -9 ${process.pid}`,
  ]);
});

test("a flood waits until nobody is behind, neither a member nor the link, but not for ever", async () => {
  let asked = 0;
  const isBehindTwice = { get: () => ++asked < 3 };
  const { room, bob, link } = await roomOfThree();
  Object.defineProperty(bob, "isBehind", isBehindTwice);
  await room.catchUp();
  expect(asked).toBe(3);
  asked = 0;
  Object.defineProperty(bob, "isBehind", { value: false });
  Object.defineProperty(link, "isBehind", isBehindTwice);
  await room.catchUp();
  expect(asked).toBe(3);
  Object.defineProperty(bob, "isBehind", { value: true });
  await room.catchUp();
});
