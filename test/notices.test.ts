import { expect, test } from "bun:test";
import { lineThat, People } from "../parts/client/notices.ts";

test.each([
  ["* welcome ann (1 online), /help lists the commands", "ann"],
  ["* welcome back", undefined],
  ["bob: * welcome ann (1 online)", undefined],
])("the line %j welcomes %j", (line, name) => {
  expect(lineThat.welcomes.exec(line)?.[1]).toBe(name);
});

test.each([
  ["* password:", true],
  ["* wrong password, try again:", true],
  ["* wrong password, goodbye", false],
  ["* password: hunter2", false],
  ["bob: * password:", false],
])("whether the line %j asks for a password: %j", (line, asks) => {
  expect(lineThat.asksForPassword.test(line)).toBe(asks);
});

test.each([
  ["* password:", true],
  ["ann: hello", true],
  ["", false],
  ["HTTP/1.1 400 Bad Request", false],
  ["220 mail.example.org ESMTP: ready", false],
  ["* (", false],
  ["ann:hello", false],
  [" * ann", false],
])("whether a chat server can begin with %j: %j", (line, can) => {
  expect(lineThat.isChat.test(line)).toBe(can);
});

/** A client that is called ann and has read some lines: whom it knows. */
function reader(...lines: string[]): { own: string; names: string } {
  const people = new People("ann");
  for (const line of lines) people.learn(line);
  return { own: people.own, names: people.completions(false).join("") };
}

test.each([
  ["bo*b: hello", "bo*b "],
  ["* bob joined (2 online)", "bob "],
  ["* bob (worker 4711)", "bob "],
  ["* eve is now bob", "bob "],
  ["bob: * eve joined (3 online)", "bob "],
  ["* welcome ann (1 online), /help lists the commands", ""],
  ["* welcome ann (3 online: bob, c),d), /help lists the commands", "bob c),d "],
  ["* welcome ann (14 online: b, c,, and 12 more), /help lists the commands", "b c, "],
  ["* server 4711 on myhost, this one:", ""],
])("after the line %j, Tab completes %j", (line, names) => {
  expect(reader(line)).toEqual({ own: "ann", names });
});

test.each([
  ["* bob left", "bobby "],
  ["* bob left (worker 4711 killed by SIGKILL)", "bobby "],
  ["* bob is now eve", "bobby eve "],
  ["bobby: * bob left", "bob bobby "],
  ["* bob leftover", "bob bobby "],
  ["* bob is now here to stay", "bob bobby "],
])("of bob and bobby, after the line %j, Tab completes %j", (line, names) => {
  expect(reader("bob: hi", "bobby: hi", line).names).toBe(names);
});

test.each([
  ["ann2", ["* welcome ann2 (2 online)"]],
  ["bob2", ["* bob is taken, you are bob2"]],
  ["zoe", ["* ann is now eve", "* eve is now zoe", "* ann is now bob"]],
  ["ann", ["* bob is now eve", "* ann left", "bob: * ann is now eve"]],
])("we are called %j after the lines %j", (own, lines) => {
  expect(reader(...lines).own).toBe(own);
});

test.each([
  [
    ["* bob is taken, you are bob2", "* ann is now bob2"],
    [true, false],
  ],
  [
    ["* a b: no spaces in a name, you are ab", "* ann is now ab"],
    [true, false],
  ],
  [
    ["* ann is now bob2", "* ann is now bob2"],
    [true, false],
  ],
  [
    ["bob: * x is taken, you are eve", "* ann is now eve"],
    [true, true],
  ],
])("of a rename in %j, one line is news", (lines, news) => {
  const people = new People("ann");
  expect(lines.map((line) => people.learn(line))).toEqual(news);
});

test("however many people a server claims, the client knows the last thousand", () => {
  const people = new People("ann");
  for (let n = 0; n < 1500; n++) people.learn(`* bob${n} joined (${n} online)`);
  people.learn("bob499: hi");
  people.learn("bob500: hi");
  const names = people.completions(false);
  expect([names.length, names[0], names.slice(-2)]).toEqual([
    1000,
    "bob502 ",
    ["bob499 ", "bob500 "],
  ]);
});

test.each([
  ["ann", "ann, Ann: is Anna here? @ANN! ann", 4],
  ["a.n", "a.n axn a.n2 (a.n)", 2],
  ["Łu", "łu łukasz", 1],
])("of %j, %j has %d mentions", (own, text, count) => {
  expect(text.match(new People(own).mention)?.length).toBe(count);
});
