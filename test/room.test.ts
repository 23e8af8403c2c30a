import { expect, test } from "bun:test";
import type { Request } from "../parts/shared/control.ts";
import { type Link, type LinkedRoom, noLink, Room } from "../parts/server/room.ts";

const linesOf = (block: Uint8Array) => Buffer.from(block).toString().trimEnd().split("\n");

/** A member that keeps what it hears. */
function person(pid = 0) {
  const heard: string[] = [];
  const asked: Request[] = [];
  const deliver = (block: Uint8Array) => void heard.push(...linesOf(block));
  const ask = (request: Request) => void asked.push(request);
  const relayed = { up: 1234, down: 5 };
  return {
    address: "::1",
    pid,
    relayed,
    isOpen: true,
    isBehind: false,
    heard,
    asked,
    deliver,
    ask,
  };
}

/** A room with ann, bob and eve in it, who have heard nothing yet; and what its link has got. */
async function roomOfThree(link: Partial<Link> = {}) {
  const appended: string[] = [];
  const linked = Promise.withResolvers<LinkedRoom>();
  const append = (block: Uint8Array) => void appended.push(...linesOf(block));
  const room = new Room({ ...noLink(), start: linked.resolve, append, ...link });
  const [ann, bob, eve] = [person(1), person(4_000_002), person(4_000_003)];
  await room.name(ann, "ann");
  await room.name(bob, "bob");
  await room.name(eve, "eve");
  for (const list of [ann.heard, bob.heard, eve.heard, appended]) list.length = 0;
  const say = (text: string) => room.say(ann, Buffer.from(`ann: ${text}\n`));
  return { room, ann, bob, eve, say, appended, linked: await linked.promise };
}

test("who joins is welcomed, and the others are told", async () => {
  const [room, ann, bob] = [new Room(noLink()), person(), person()];
  await room.name(ann, "ann");
  await room.name(bob, "bob");
  const welcome = "* welcome ann (1 online), /help lists the commands";
  expect(ann.heard).toEqual([welcome, "* bob joined (2 online)"]);
  expect(bob.heard).toEqual(["* welcome bob (2 online), /help lists the commands"]);
});

test("what is said goes to everyone but its speaker, and to the other servers", async () => {
  const { ann, bob, eve, say, appended } = await roomOfThree();
  await say("one\nann: two");
  expect(ann.heard).toEqual([]);
  for (const got of [bob.heard, eve.heard, appended]) expect(got).toEqual(["ann: one", "ann: two"]);
});

test("what other servers say goes to everyone, and not back to them", async () => {
  const { ann, bob, eve, appended, linked } = await roomOfThree();
  await linked.deliver(Buffer.from("zoe: hi\n"));
  linked.inform("link is back");
  for (const { heard } of [ann, bob, eve]) expect(heard).toEqual(["zoe: hi", "* link is back"]);
  expect(appended).toEqual([]);
});

test("a name that is taken gets the first number that is free", async () => {
  const { room, bob, eve } = await roomOfThree();
  await room.name(bob, "ann");
  await room.name(eve, "ann");
  expect(eve.heard.slice(-2)).toEqual(["* ann is taken, you are ann3", "* eve is now ann3"]);
  room.leave(bob);
  await room.name(eve, "ann");
  expect(room.nameOf(eve)).toBe("ann2");
});

test("a long name that is taken keeps its length, in whole characters", async () => {
  const room = new Room(noLink());
  const long = "😀".repeat(31);
  const people = Array.from({ length: 10 }, () => person());
  for (const one of people) await room.name(one, `${long}😀`);
  expect(people[1]!.heard[0]).toBe(`* ${long}😀 is taken, you are ${long}2`);
  expect(room.nameOf(people[9]!)).toBe(`${"😀".repeat(30)}10`);
});

test("another name is told to everyone, on other servers too, and the old one is free", async () => {
  const { room, ann, bob, eve, appended } = await roomOfThree();
  await room.name(ann, "zoe");
  for (const got of [ann.heard, bob.heard, eve.heard, appended])
    expect(got).toEqual(["* ann is now zoe"]);
  await room.name(bob, "ann");
  expect([room.nameOf(ann), room.nameOf(bob)]).toEqual(["zoe", "ann"]);
});

test("who gets the name that it has is told so, and nobody else is", async () => {
  const { room, ann, bob, eve } = await roomOfThree();
  await room.name(eve, "ann2");
  for (const { heard } of [ann, bob, eve]) heard.length = 0;
  await room.name(ann, "ann");
  await room.name(eve, "ann");
  expect(ann.heard).toEqual(["* you are ann already"]);
  expect(eve.heard).toEqual(["* ann is taken, you are ann2", "* you are ann2 already"]);
  expect(bob.heard).toEqual([]);
});

test("who has gone before its name was granted was never there, and leaves that name free", async () => {
  const { room, ann, bob, eve, appended } = await roomOfThree();
  const gone = person();
  const joined = room.name(gone, "zoe");
  gone.isOpen = false;
  await joined;
  expect([room.nameOf(gone), gone.heard, ann.heard, appended]).toEqual(["", [], [], []]);
  bob.isOpen = false;
  await room.name(bob, "bob"); // which it keeps until it leaves
  await room.name(ann, "zoe");
  await room.name(eve, "bob");
  expect([ann, bob, eve].map((member) => room.nameOf(member))).toEqual(["zoe", "bob", "bob2"]);
});

test("who leaves is missed by the others, once, and its name is free", async () => {
  const { room, ann, bob, eve, appended } = await roomOfThree();
  room.leave(ann, " (worker 1 killed by SIGKILL)");
  room.leave(ann);
  room.leave(person());
  expect(ann.heard).toEqual([]);
  for (const got of [bob.heard, eve.heard, appended])
    expect(got).toEqual(["* ann left (worker 1 killed by SIGKILL)"]);
  await room.name(bob, "ann");
  expect(room.nameOf(bob)).toBe("ann");
});

test("everyone is told which process took over from one that died", async () => {
  const served: unknown[] = [];
  const setPid = (...args: unknown[]) => void served.push(args);
  const { room, ann, bob, eve, appended } = await roomOfThree({ setPid });
  ann.pid = 4;
  room.takeOver(ann, 1, "killed by SIGKILL");
  const notice = "* worker 1 of ann was killed by SIGKILL, 4 took over";
  for (const got of [ann.heard, bob.heard, eve.heard, appended]) expect(got).toEqual([notice]);
  expect(served).toEqual([["ann", 4]]);
});

test("/who lists everyone with their processes, and who has not joined gets no list", async () => {
  const { room, ann, bob } = await roomOfThree();
  const stranger = person();
  await room.who(ann);
  await room.who(stranger);
  // Process 1 runs everywhere; what it uses is told. The others do not.
  expect(ann.heard).toEqual([
    "* 3 online:",
    expect.stringMatching(
      /^\* ann \(worker 1: \d+(\.\d)? (k|M)?B, \d+\.\d\d s CPU, 1\.2 kB up, 5 B down\), you$/,
    ),
    "* bob (worker 4000002: 1.2 kB up, 5 B down)",
    "* eve (worker 4000003: 1.2 kB up, 5 B down)",
    "* try: kill -9 1",
  ]);
  expect([bob.heard, stranger.heard]).toEqual([[], []]);
});

test("whose name belongs to another server asks for it again, and gets the next", async () => {
  const lost = new Set<string>();
  const { claim, owns } = noLink();
  const { room, ann, bob, linked } = await roomOfThree({
    claim: async (name, pid) => (lost.has(name) ? 0 : claim(name, pid)),
    owns: (name) => !lost.has(name) && owns(name),
  });
  lost.add("bob");
  linked.rename("bob");
  expect([ann.asked, bob.asked]).toEqual([[], [{ type: "name", name: "bob", at: 0 }]]);
  await room.name(bob, "bob");
  expect(bob.heard).toEqual(["* bob is taken, you are bob2", "* bob is now bob2"]);
});

const flood = "x".repeat(20_000);

test("a flood waits until nobody is behind, neither a member nor the link", async () => {
  let asked = 0;
  const isBehindTwice = { get: () => ++asked < 3 };
  const { bob, say } = await roomOfThree();
  Object.defineProperty(bob, "isBehind", isBehindTwice);
  await say(flood);
  expect(asked).toBe(3);
  asked = 0;
  const room = new Room(Object.defineProperty(noLink(), "isBehind", isBehindTwice));
  await room.say(person(), Buffer.from(flood));
  expect(asked).toBe(3);
});

test("a flood does not wait for ever, nor does who is behind wait for it; a line never waits", async () => {
  const { bob, say } = await roomOfThree();
  bob.isBehind = true;
  const said = say(flood);
  expect(bob.heard).toEqual([`ann: ${flood}`]);
  await said;
  const line = say("hi").then(() => "is said");
  const aMoment = new Promise((resolve) => void setImmediate(resolve));
  expect(await Promise.race([line, aMoment])).toBe("is said");
});
