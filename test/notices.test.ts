import { expect, test } from "bun:test";
import { asksPassword, isChat, People, welcomedName } from "../parts/notices.ts";

test.each([
  ["* welcome ann (1 online), /help lists the commands", "ann"],
  ["* welcome (a) (1 online)", "(a)"],
  ["* welcome back", undefined],
  ["bob: * welcome ann (1 online)", undefined],
  ["* bob joined (2 online)", undefined],
])("the line %j welcomes %j", (line, name) => {
  expect(welcomedName(line)).toBe(name);
});

test.each([
  ["* password:", true],
  ["* wrong password, try again:", true],
  ["* wrong password, goodbye", false],
  ["bob: * password:", false],
  ["* password: hunter2", false],
  ["password:", false],
])("whether the line %j asks for a password: %j", (line, asks) => {
  expect(asksPassword(line)).toBe(asks);
});

test.each([
  ["* welcome ann (1 online)", true],
  ["* password:", true],
  ["ann: hello", true],
  ["", false],
  ["HTTP/1.1 400 Bad Request", false],
  ["SSH-2.0-OpenSSH_9.6", false],
  ["220 mail.example.org ESMTP: ready", false],
  ["* (", false],
  ["ann:hello", false],
  [" * ann", false],
])("whether a chat server can begin with %j: %j", (line, can) => {
  expect(isChat(line)).toBe(can);
});

/** Who is known after some lines, to a client that is called ann. */
function afterLines(...lines: string[]) {
  const people = new People("ann");
  for (const line of lines) people.learn(line);
  return { own: people.own, names: people.completions(false).map((name) => name.trimEnd()) };
}

test.each([
  ["bob: hello", ["bob"]],
  ["bo*b: hello", ["bo*b"]],
  ["* bob joined (2 online)", ["bob"]],
  ["* bob joined (their server is back)", ["bob"]],
  ["* bob (worker 4711)", ["bob"]],
  ["* eve is now bob", ["bob"]],
  ["bob: eve: hello", ["bob"]],
  ["bob: * eve joined (3 online)", ["bob"]],
  ["* bob is taken, you are bob2", []],
  ["* 2 online:", []],
  ["* server 4711 on myhost, this one:", []],
  ["* //text says /text", []],
  ["* wrong password, try again:", []],
])("after the line %j, Tab completes %j", (line, names) => {
  expect(afterLines(line)).toEqual({ own: "ann", names });
});

test.each([
  ["* bob left", ["bobby"]],
  ["* bob left (worker 4711 killed by SIGKILL)", ["bobby"]],
  ["* bob is now eve", ["bobby", "eve"]],
  ["bobby: * bob left", ["bob", "bobby"]],
  ["* bob leftover", ["bob", "bobby"]],
  ["* bob is now here to stay", ["bob", "bobby"]],
])("of bob and bobby, after the line %j, Tab completes %j", (line, names) => {
  expect(afterLines("bob: hi", "bobby: hi", line).names).toEqual(names);
});

test.each([
  [["* welcome ann2 (2 online)"], "ann2"],
  [["* ann is now eve"], "eve"],
  [["* ann is now eve", "* eve is now zoe", "* ann is now bob"], "zoe"],
  [["* bob is now eve", "* ann left", "bob: * ann is now eve"], "ann"],
])("after the lines %j, we are called %j", (lines, own) => {
  expect(afterLines(...lines).own).toBe(own);
});

test("Tab at the beginning of a line offers commands, and addresses people", () => {
  const people = new People("ann");
  people.learn("bob: hi");
  expect(people.completions(true)).toEqual(["/nick ", "/who", "/help", "/quit", "bob: "]);
  expect(people.completions(false)).toEqual(["bob "]);
});
