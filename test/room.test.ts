import { expect, test } from "bun:test";
import type { Request } from "../parts/control.ts";
import type { Link, LinkedRoom } from "../parts/link.ts";
import { noLink, Room } from "../parts/room.ts";

/** A member that keeps what it hears. */
function person(pid = 1) {
  const heard: string[] = [];
  const asked: Request[] = [];
  return {
    pid,
    isOpen: true,
    isBehind: false,
    heard,
    asked,
    deliver: (block: Uint8Array) =>
      void heard.push(
        ...Buffer.from(block)
          .toString()
          .split(/(?<=\n)/),
      ),
    ask: (request: Request) => void asked.push(request),
  };
}

/** A room with ann, bob and eve in it, who have not heard anything yet; and what was appended to its link. */
async function roomOfThree(link: Partial<Link> = {}) {
  const appended: string[] = [];
  let linked: LinkedRoom | undefined;
  const room = new Room({
    ...noLink(),
    start: (started) => void (linked = started),
    append: (block) => void appended.push(Buffer.from(block).toString()),
    ...link,
  });
  const [ann, bob, eve] = [person(1), person(2), person(3)];
  await room.name(ann, "ann");
  await room.name(bob, "bob");
  await room.name(eve, "eve");
  for (const list of [ann.heard, bob.heard, eve.heard, appended]) list.length = 0;
  return { room, ann, bob, eve, appended, linked: linked! };
}

/** A block that only somebody in a hurry sends. */
const flood = Buffer.from(`ann: ${"x".repeat(20_000)}\n`);

test("who joins is welcomed, and the others are told", async () => {
  const [room, ann, bob] = [new Room(noLink()), person(), person()];
  expect(room.nameOf(ann)).toBe("");
  await room.name(ann, "ann");
  await room.name(bob, "bob");
  expect(room.nameOf(ann)).toBe("ann");
  expect(ann.heard).toEqual([
    "* welcome ann (1 online), /help lists the commands\n",
    "* bob joined (2 online)\n",
  ]);
  expect(bob.heard).toEqual(["* welcome bob (2 online), /help lists the commands\n"]);
});

test("what is said goes to everyone but its speaker, and to the link once", async () => {
  const { room, ann, bob, eve, appended } = await roomOfThree();
  await room.say(ann, Buffer.from("ann: one\nann: two\n"));
  expect(ann.heard).toEqual([]);
  for (const { heard } of [bob, eve]) expect(heard).toEqual(["ann: one\n", "ann: two\n"]);
  expect(appended).toEqual(["ann: one\nann: two\n"]);
});

test("what other servers say goes to everyone, and not back to the link", async () => {
  const { ann, bob, eve, appended, linked } = await roomOfThree();
  await linked.deliver(Buffer.from("zoe: hi\n"));
  linked.inform("link is back");
  for (const { heard } of [ann, bob, eve]) expect(heard).toEqual(["zoe: hi\n", "* link is back\n"]);
  expect(appended).toEqual([]);
});

test("what one member is told is for nobody else", async () => {
  const { room, ann, bob, appended } = await roomOfThree();
  room.tell(ann, "usage: /nick NAME");
  expect([ann.heard, bob.heard, appended]).toEqual([["* usage: /nick NAME\n"], [], []]);
});

test("a name that is taken gets a number, the first that is free", async () => {
  const { room } = await roomOfThree();
  const [second, third, fourth] = [person(), person(), person()];
  await room.name(second, "ann");
  await room.name(third, "ann");
  expect(second.heard[0]).toBe("* ann is taken, you are ann2\n");
  expect(third.heard[0]).toBe("* ann is taken, you are ann3\n");
  room.leave(second);
  await room.name(fourth, "ann");
  expect(room.nameOf(fourth)).toBe("ann2");
});

test("a long name that is taken keeps its length, in whole characters", async () => {
  const room = new Room(noLink());
  const people = Array.from({ length: 10 }, () => person());
  for (const one of people) await room.name(one, "😀".repeat(32));
  expect(room.nameOf(people[1]!)).toBe(`${"😀".repeat(31)}2`);
  expect(room.nameOf(people[9]!)).toBe(`${"😀".repeat(30)}10`);
});

test("another name is told to everyone, on other servers too, and the old one is free", async () => {
  const { room, ann, bob, eve, appended } = await roomOfThree();
  await room.name(ann, "zoe");
  for (const { heard } of [ann, bob, eve]) expect(heard).toEqual(["* ann is now zoe\n"]);
  expect(appended).toEqual(["* ann is now zoe\n"]);
  await room.name(bob, "ann");
  expect([room.nameOf(ann), room.nameOf(bob)]).toEqual(["zoe", "ann"]);
});

test("who wants the name that it has is told so, and nobody else is", async () => {
  const { room, ann, bob } = await roomOfThree();
  const second = person();
  await room.name(second, "ann");
  for (const list of [ann.heard, bob.heard, second.heard]) list.length = 0;
  await room.name(ann, "ann");
  await room.name(second, "ann");
  expect(ann.heard).toEqual(["* you are ann already\n"]);
  expect(second.heard).toEqual(["* ann is taken, you are ann2\n", "* you are ann2 already\n"]);
  expect(bob.heard).toEqual([]);
});

test("who has gone before its name was granted was never there, and leaves the name free", async () => {
  const { room, ann, appended } = await roomOfThree();
  const [gone, next] = [person(), person()];
  const joined = room.name(gone, "zoe");
  gone.isOpen = false;
  await joined;
  expect([room.nameOf(gone), gone.heard, ann.heard, appended]).toEqual(["", [], [], []]);
  await room.name(next, "zoe");
  expect(room.nameOf(next)).toBe("zoe");
});

test("who has gone while it was asking for its own name keeps it until it leaves", async () => {
  const { room, ann } = await roomOfThree();
  ann.isOpen = false;
  await room.name(ann, "ann");
  const second = person();
  await room.name(second, "ann");
  expect(room.nameOf(second)).toBe("ann2");
});

test("who leaves is missed by the others, once, and its name is free", async () => {
  const { room, ann, bob, eve, appended } = await roomOfThree();
  room.leave(ann, " (worker 1 killed by SIGKILL)");
  room.leave(ann);
  room.leave(person());
  await room.say(bob, Buffer.from("bob: hi\n"));
  expect(ann.heard).toEqual([]);
  expect(eve.heard).toEqual(["* ann left (worker 1 killed by SIGKILL)\n", "bob: hi\n"]);
  expect(appended).toEqual(eve.heard);
  await room.name(ann, "ann");
  expect(room.nameOf(ann)).toBe("ann");
});

test("/who lists everyone with their processes, for members only", async () => {
  const { room, ann, bob } = await roomOfThree();
  const stranger = person();
  await room.name(bob, "zoe");
  ann.heard.length = 0;
  await room.who(ann);
  await room.who(stranger);
  const list = ["* 3 online:", "* ann (worker 1)", "* zoe (worker 2)", "* eve (worker 3)", ""];
  expect(ann.heard.join("").split("\n")).toEqual(list);
  expect(stranger.heard).toEqual([]);
});

test("a name that another server has won is asked for again, and its member gets the next", async () => {
  const lost = new Set<string>();
  const { claim, owns } = noLink();
  const { room, ann, bob, eve, linked } = await roomOfThree({
    claim: async (name, pid) => (lost.has(name) ? 0 : claim(name, pid)),
    owns: (name) => !lost.has(name) && owns(name),
  });
  lost.add("bob");
  linked.rename("bob");
  linked.rename("nobody");
  expect([ann.asked, bob.asked, eve.asked]).toEqual([
    [],
    [{ type: "name", name: "bob", at: 0 }],
    [],
  ]);
  await room.name(bob, "bob");
  expect(bob.heard).toEqual(["* bob is taken, you are bob2\n", "* bob is now bob2\n"]);
  expect(ann.heard).toEqual(["* bob is now bob2\n"]);
});

test("a flood waits until nobody is behind, neither a member nor the link", async () => {
  let asked = 0;
  const isBehindTwice = { get: () => ++asked < 3 };
  const { room, ann, bob } = await roomOfThree();
  Object.defineProperty(bob, "isBehind", isBehindTwice);
  await room.say(ann, flood);
  expect(asked).toBe(3);

  asked = 0;
  const link = Object.defineProperty(noLink(), "isBehind", isBehindTwice);
  await new Room(link).say(ann, flood);
  expect(asked).toBe(3);
});

test("a flood does not wait for ever, and who is behind gets it at once", async () => {
  const { room, ann, bob } = await roomOfThree();
  bob.isBehind = true;
  const said = room.say(ann, flood);
  expect(bob.heard.join("")).toBe(flood.toString());
  await said;
});

test("a single line waits for nobody", async () => {
  const { room, ann, bob } = await roomOfThree();
  bob.isBehind = true;
  const said = room.say(ann, Buffer.from("ann: hi\n")).then(() => "said");
  const aMoment = new Promise((resolve) => void setImmediate(resolve));
  expect(await Promise.race([said, aMoment])).toBe("said");
});

test("the link is closed with the room", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { room } = await roomOfThree({ close: async () => resolve() });
  await room.close();
  await promise;
});
