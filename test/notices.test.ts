import { expect, test } from "bun:test";
import { lineThat, People } from "../parts/client/notices.ts";

test.each([
  ["welcomes", "* welcome ann (1 online), /help lists the commands", true],
  ["welcomes", "* welcome back", false],
  ["welcomes", "bob: * welcome ann (1 online)", false],
  ["asksForPassword", "* password:", true],
  ["asksForPassword", "* wrong password, try again:", true],
  ["asksForPassword", "* wrong password, goodbye", false],
  ["asksForPassword", "* password: hunter2", false],
  ["asksForPassword", "bob: * password:", false],
  ["isChat", "* password:", true],
  ["isChat", "ann: hello", true],
  ["isChat", "", false],
  ["isChat", "HTTP/1.1 400 Bad Request", false],
  ["isChat", "220 mail.example.org ESMTP: ready", false],
  ["isChat", "* (", false],
  ["isChat", "ann:hello", false],
  ["isChat", " * ann", false],
] as const)("%s: the line %j: %j", (meaning, line, has) => {
  expect(lineThat[meaning].test(line)).toBe(has);
});

const two = "bob: hi\nbobby: hi\n";

test.each<[string, string, string?]>([
  ["bo*b: hello", "bo*b "],
  ["* bob joined (2 online)", "bob "],
  ["* bob (worker 4711)", "bob "],
  ["* eve is now bob", "bob "],
  ["bob: * eve joined (3 online)", "bob "],
  ["* welcome ann (1 online), /help lists the commands", ""],
  ["* welcome ann (3 online: bob, c),d), /help lists the commands", "bob c),d "],
  ["* welcome ann (14 online: b, c,, and 12 more), /help lists the commands", "b c, "],
  ["* server 4711 on myhost, this one:", ""],
  [`${two}* bob left`, "bobby "],
  [`${two}* bob left (worker 4711 killed by SIGKILL)`, "bobby "],
  [`${two}* bob is now eve\n* ann left`, "bobby eve "],
  [`${two}bobby: * bob left\n* bob leftover\n* bob is now here to stay`, "bob bobby "],
  ["bob: * ann is now eve", "bob "],
  ["* welcome ann2 (2 online)", "", "ann2"],
  ["* bob is taken, you are bob2", "", "bob2"],
  ["* ann is now eve\n* eve is now zoe\n* ann is now bob", "zoe bob ", "zoe"],
])("after %j, Tab completes %j", (text, names, own = "ann") => {
  const people = new People("ann");
  for (const line of text.split("\n")) people.learn(line);
  expect([people.completions(false).join(""), people.own]).toEqual([names, own]);
});

test.each([
  ["* bob is taken, you are bob2", "* ann is now bob2", false],
  ["* a b: no spaces in a name, you are ab", "* ann is now ab", false],
  ["* ann is now bob2", "* ann is now bob2", false],
  ["bob: * x is taken, you are eve", "* ann is now eve", true],
])("after the line %j, it is news that %j: %j", (first, second, isNews) => {
  const people = new People("ann");
  expect([people.learn(first), people.learn(second)]).toEqual([true, isNews]);
});

test("how long a line may be is known when the server has said so", () => {
  const people = new People("ann");
  people.learn("* not sent: longer than 5 bytes");
  people.learn("bob: * not sent: longer than 9 bytes");
  expect(people.longest).toBe(5);
});

test("however many people a server claims, the client knows the last thousand", () => {
  const people = new People("ann");
  for (let n = 0; n < 1500; n++) people.learn(`* bob${n} joined (${n} online)`);
  people.learn("bob499: hi");
  people.learn("bob500: hi");
  const names = people.completions(false);
  expect(names.length).toBe(1000);
  expect([names[0], ...names.slice(-2)]).toEqual(["bob502 ", "bob499 ", "bob500 "]);
});

test.each([
  ["ann", "ann, Ann: is Anna here? @ANN! ann", 4],
  ["a.n", "a.n axn a.n2 (a.n)", 2],
  ["Łu", "łu łukasz", 1],
])("of %j, %j has %d mentions", (own, text, count) => {
  expect(text.match(new People(own).mention)?.length).toBe(count);
});
