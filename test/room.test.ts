import { expect, test } from "bun:test";
import { type Link, type LinkedRoom, type Member, Room } from "../parts/server/room.ts";
import { describeRoom } from "../parts/server/who.ts";

const linesOf = (block: Uint8Array) => Buffer.from(block).toString().trimEnd().split("\n");

/** A member that keeps what it hears. */
class Person implements Member {
  readonly address = "::1";
  readonly relayed = { up: 1234, down: 5 };
  readonly descriptor = -1;
  readonly heard: string[] = [];
  name = "";
  isOpen = true;
  isBehind = false;

  constructor(public pid = 0) {}

  push(block: Uint8Array): void {
    this.heard.push(...linesOf(block));
  }

  tell(text: string): void {
    this.push(Buffer.from(`* ${text}`));
  }

  setName(name: string): void {
    this.name = name;
  }
}

/** A link on which nobody else is, and that keeps what it gets. */
function linkTo(changes: Partial<Link> = {}) {
  const names = new Set<string>();
  const appended: string[] = [];
  const linked = Promise.withResolvers<LinkedRoom>();
  const link: Link = {
    id: "host/1/a",
    label: "here",
    adopt: async (name) => names.add(name).size,
    start: linked.resolve,
    append: (block) => void appended.push(...linesOf(block)),
    isBehind: false,
    claim: async (name) => (names.has(name) ? 0 : names.add(name).size),
    owns: (name) => names.has(name),
    setPid() {},
    release: (name) => void names.delete(name),
    others: async () => [],
    async close() {},
    ...changes,
  };
  return { link, appended, linked: linked.promise };
}

/** A room with ann, bob and eve in it, who have heard nothing yet; and what its link has got. */
async function roomOfThree(changes: Partial<Link> = {}) {
  const { link, appended, linked } = linkTo(changes);
  const relay = (block: Uint8Array) => {
    for (const member of room.members) member.push(block);
    return undefined;
  };
  const room = new Room<Person>(relay, link);
  const [ann, bob, eve] = [new Person(process.pid), new Person(4_000_002), new Person(4_000_003)];
  await room.name(ann, "ann");
  await room.name(bob, "bob");
  await room.name(eve, "eve");
  for (const list of [ann.heard, bob.heard, eve.heard, appended]) list.length = 0;
  return { room, ann, bob, eve, appended, linked: await linked };
}

const alone = () => new Room<Person>(() => undefined);

test("who joins is welcomed, and the others are told; two at once do not get the same name", async () => {
  const [room, ann, bob] = [alone(), new Person(), new Person()];
  await Promise.all([room.name(ann, "ann"), room.name(bob, "ann")]);
  const welcome = "* welcome ann (1 online), /help lists the commands";
  expect(ann.heard).toEqual([welcome, "* ann2 joined (2 online)"]);
  const another = "* welcome ann2 (2 online: ann), /help lists the commands";
  expect(bob.heard).toEqual(["* ann is taken, you are ann2", another]);
});

test("a newcomer reads who is here: ten at most, and how many more", async () => {
  const room = alone();
  const people = Array.from({ length: 13 }, () => new Person());
  for (const one of people) await room.name(one, "x");
  const ten = "x, x2, x3, x4, x5, x6, x7, x8, x9, x10";
  const welcomeOf = (person: Person) => person.heard.find((line) => line.startsWith("* welcome"));
  expect(welcomeOf(people[10]!)).toBe(
    `* welcome x11 (11 online: ${ten}), /help lists the commands`,
  );
  expect(welcomeOf(people[12]!)).toStartWith(
    `* welcome x13 (13 online: ${ten}, and 2 more), /help`,
  );
});

test("a newcomer reads how many are on other servers, and the names of those on its own", async () => {
  const { room } = await roomOfThree({ claim: async () => 9 });
  const zoe = new Person();
  await room.name(zoe, "zoe");
  expect(zoe.heard).toEqual([
    "* welcome zoe (9 online: ann, bob, eve, and 5 more), /help lists the commands",
  ]);
  const { link } = linkTo({ claim: async () => 9 });
  const first = new Person();
  await new Room<Person>(() => undefined, link).name(first, "al");
  expect(first.heard).toEqual(["* welcome al (9 online), /help lists the commands"]);
});

test("a name that is taken gets the first number that is free", async () => {
  const { room, bob, eve } = await roomOfThree();
  await room.name(bob, "ann");
  await room.name(eve, "ann");
  expect(eve.heard.slice(-2)).toEqual(["* ann is taken, you are ann3", "* eve is now ann3"]);
  room.leave(bob);
  await room.name(eve, "ann");
  expect(eve.name).toBe("ann2");
});

test("a long name that is taken keeps its length, in whole characters", async () => {
  const room = alone();
  const long = "😀".repeat(31);
  const people = Array.from({ length: 10 }, () => new Person());
  for (const one of people) await room.name(one, `${long}😀`);
  expect(people[1]!.heard[0]).toBe(`* ${long}😀 is taken, you are ${long}2`);
  expect(people[9]!.name).toBe(`${"😀".repeat(30)}10`);
});

test("who gets the name that it has is told so in one line, and nobody else is", async () => {
  const { room, ann, bob, eve } = await roomOfThree();
  await room.name(eve, "ann2");
  for (const { heard } of [ann, bob, eve]) heard.length = 0;
  await room.name(ann, "ann");
  await room.name(eve, "ann");
  expect(ann.heard).toEqual(["* you are ann already"]);
  expect(eve.heard).toEqual(["* ann is taken, you are ann2"]);
  expect(bob.heard).toEqual([]);
});

test("who has gone before its name was granted was never there, and leaves that name free", async () => {
  const { room, ann, bob, eve, appended } = await roomOfThree();
  const gone = new Person();
  const joined = room.name(gone, "zoe");
  gone.isOpen = false;
  await joined;
  expect([gone.name, gone.heard, ann.heard, appended]).toEqual(["", [], [], []]);
  bob.isOpen = false;
  await room.name(bob, "bob"); // which it keeps until it leaves
  await room.name(ann, "zoe");
  await room.name(eve, "bob");
  expect([ann, bob, eve].map((member) => member.name)).toEqual(["zoe", "bob", "bob2"]);
});

test("who leaves is missed by the others, once, and its name is free", async () => {
  const { room, ann, bob, eve, appended } = await roomOfThree();
  room.leave(ann, " (worker 1 killed by SIGKILL)");
  room.leave(ann);
  room.leave(new Person());
  expect(ann.heard).toEqual([]);
  for (const got of [bob.heard, eve.heard, appended])
    expect(got).toEqual(["* ann left (worker 1 killed by SIGKILL)"]);
  await room.name(bob, "ann");
  expect(bob.name).toBe("ann");
});

test("/who lists everyone with their processes, on other servers too", async () => {
  const remote = (name: string, server: string) => ({ name, server, pid: 7 });
  const others = async () => [remote("zoe", "there"), remote("zac", "there"), remote("al", "far")];
  const { room, ann } = await roomOfThree({ others });
  const list = (await describeRoom(room, ann)).split("\n");
  const figures = "(\\d+(\\.\\d)? (k|M)?B, \\d+\\.\\d\\d s CPU, )?1\\.2 kB up, 5 B down"; // with /proc
  expect(list).toEqual([
    "6 online:",
    "* here, this one:",
    expect.stringMatching(new RegExp(`^\\* ann \\(worker ${process.pid}: ${figures}\\), you$`)),
    "* bob (worker 4000002: 1.2 kB up, 5 B down)",
    "* eve (worker 4000003: 1.2 kB up, 5 B down)",
    "* there:",
    "* zoe (worker 7)",
    "* zac (worker 7)",
    "* far:",
    "* al (worker 7)",
    `* try: kill -9 ${process.pid}`,
  ]);
});

test("whose name belongs to another server now gets the next one, once", async () => {
  const { link } = linkTo();
  const lost = new Set<string>();
  const { room, ann, bob, linked } = await roomOfThree({
    claim: async (name, pid) => (lost.has(name) ? 0 : link.claim(name, pid)),
    owns: (name) => !lost.has(name) && link.owns(name),
  });
  lost.add("bob");
  linked.rename("bob");
  await room.name(ann, "zoe"); // which waits for nobody
  await room.name(bob, "eva"); // which waits for the other name
  expect(bob.heard).toEqual([
    "* ann is now zoe",
    "* bob is taken, you are bob2",
    "* bob is now bob2",
    "* bob2 is now eva",
  ]);
  linked.rename("bob");
  await room.name(bob, "eva");
  expect(bob.heard.slice(4)).toEqual(["* you are eva already"]);
});

test("a name that differs only in case or width is taken, but for whoever has it", async () => {
  const { room, ann, bob } = await roomOfThree();
  await room.name(bob, "ＡＮＮ");
  await room.name(ann, "Ann");
  expect([ann.name, bob.name]).toEqual(["Ann", "ＡＮＮ2"]);
});

test("a flood waits until nobody is behind, neither a member nor the link, but not for ever", async () => {
  let asked = 0;
  const isBehindTwice = { get: () => ++asked < 3 };
  const { room, bob } = await roomOfThree();
  Object.defineProperty(bob, "isBehind", isBehindTwice);
  await room.catchUp();
  expect(asked).toBe(3);
  asked = 0;
  const { link } = linkTo();
  await new Room(() => undefined, Object.defineProperty(link, "isBehind", isBehindTwice)).catchUp();
  expect(asked).toBe(3);
  Object.defineProperty(bob, "isBehind", { value: true });
  await room.catchUp();
});
