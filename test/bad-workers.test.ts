/** Workers that are broken, hostile or late: nobody but their own client notices. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { allHave, Client, descriptors, numbered, patience } from "./helpers.ts";
import { type Server, share, until } from "./helpers.ts";
import { after, goodWorker, openRoom, startWithWorker } from "./scenes.ts";

setDefaultTimeout(2 * patience);

const server = await startWithWorker(goodWorker);
share(server, 0);
afterEach(() => server.setWorker(goodWorker));

/** A worker that joins as any other does, and then does something else. */
const badWorker = (deed: string): string => `
  {
    process.on("message", (order, socket) => {
      if (order.type === "serve") process.send({ type: "serving" });
      if (order.type === "serve") process.send({ type: "name", name: "eve", at: 0 });
      if (order.type === "done") { ${deed} }
    });
    process.send({ type: "ready", at: 0 });
  }`;

/** Clients ann and bob, who have good workers, and eve, who has one that does `deed` once joined. */
async function openWithEve(deed: string, on = server) {
  const { ann, bob, settled, ...rest } = await openRoom(on, 0);
  on.setWorker(badWorker(deed));
  const eve = await Client.connect(on);
  await bob.line("* eve joined (3 online)");
  const dispose = () => [ann, bob, eve].forEach((client) => client[Symbol.dispose]());
  return { ...rest, ann, bob, eve, settled, [Symbol.dispose]: dispose };
}

test("new code without a restart: a mistake in worker.ts that is mended in time disconnects nobody", async () => {
  using room = await openRoom(server, 0);
  server.setWorker("process.exit(7)");
  for (const name of ["ann", "bob"]) process.kill(await server.worker(name), "SIGTERM");
  await server.log.line(/^a worker could not start: exited with code 7, trying again$/);
  server.setWorker(goodWorker.replace("* //text says /text", "* //text says /text, as before"));
  await room.ann.lines.count(/ took over$/, 2);
  await server.log.line("workers start again");
  room.ann.send("/help\nhello\n");
  await room.ann.line("* //text says /text, as before");
  await room.bob.line("ann: hello");
  expect(server.log.all.filter((line) => /could not start/.test(line)).length).toBe(1);
});

test("a worker.ts that is broken for long: clients are told, and when it works again, it serves", async () => {
  using room = await openRoom(server, 0);
  server.setWorker("process.exit(3)");
  process.kill(await server.worker("bob"), "SIGKILL");
  using eve = await Client.connect(server);
  for (const client of [room.bob, eve]) {
    await client.line("* your process could not start, try again later");
    await client.ended();
  }
  await room.ann.line(/^\* bob left \(worker \d+ killed by SIGKILL\)$/);
  server.setWorker(goodWorker);
  using bob = await Client.connect(server, "bob");
  room.ann.send("back\n");
  await bob.line("ann: back");
});

const misdeeds = {
  "sent a line without end": `process.stdout.write("eve: " + "x".repeat(10_000))`,
  "sent an unknown control message": `process.send({ type: "name", name: "* bob left", at: 0 })`,
  "asked for too much at once": `for (let n = 0; n < 9; n++) process.send({ type: "who", at: 1e9 })`,
  "exited with code 7": `process.exit(7)`,
  "sent a descriptor": `
    const peer = require("node:net").connect(PORT, "127.0.0.1");
    peer.once("connect", () => process.send({ type: "holds", lines: false, torn: false }, peer));`,
};

test("a worker that breaks a rule ends alone", async () => {
  using room = await openRoom(server, 0);
  using peer = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const before = descriptors(server.pid);
  for (const [reason, deed] of Object.entries(misdeeds)) {
    server.setWorker(badWorker(deed.replace("PORT", `${peer.port}`)));
    using eve = await Client.connect(server);
    await room.bob.line(new RegExp(`^\\* eve left \\(worker \\d+ ${reason}\\)$`));
    await eve.ended();
  }
  await room.talk(after);
  expect(room.bob.messages.filter((line) => line.startsWith("eve: "))).toEqual([]);
  const now = () => descriptors(server.pid);
  await until(() => now() <= before, "as few descriptors", now); // nothing of it is kept
});

test("a worker that writes on after its client left ends, nobody hears it, and it cannot join again", async () => {
  using room = await openWithEve(`process.send({ type: "leave", at: 0 });
    process.send({ type: "name", name: "ghost", at: 0 });
    setInterval(() => process.stdout.write("ghost: boo\\n"), 1)`);
  await room.bob.line("* eve left");
  await room.eve.ended();
  await server.hasWorkers(2);
  room.ann.send(numbered(10) + "/who\n");
  await allHave([room.bob], "ann", 10);
  await room.ann.line("* 2 online:");
  expect(room.bob.lines.all.filter((line) => line.includes("ghost"))).toEqual([]);
});

test("half a line waits for its other half, and ends with its worker", async () => {
  using room = await openWithEve(`
    const say = (text) => require("fs").writeSync(1, text);
    say("eve: ha");
    process.stdin.on("data", (heard) => {
      if (heard.includes("first")) say("lf\\neve: lost");
      if (heard.includes("second")) process.exit();
    })`);
  const { ann, bob } = room;
  ann.send("first\n");
  await bob.line("eve: half");
  server.setWorker(goodWorker);
  ann.send("second\n");
  await bob.line(/^\* worker \d+ of eve exited with code 0, \d+ took over$/);
  expect(bob.messages).toEqual(["ann: first", "eve: half", "ann: second"]);
});

test("what was said before a request is heard before its answer", async () => {
  using room = await openWithEve(`
    process.stdin.on("end", process.exit).resume();
    process.send({ type: "leave", at: 10 }, () => process.stdout.write("eve: last\\n"))`);
  await room.bob.line("* eve left");
  expect(room.bob.messages).toEqual(["eve: last"]);
});

for (const late of [100, 1000]) {
  test(`a worker that took its client while the server was stopped keeps it, ${late} ms later`, async () => {
    const serving = `server.report({ type: "serving" });`;
    expect(goodWorker).toContain(serving);
    const stopping = `process.kill(process.ppid, "SIGSTOP");
      await Bun.sleep(100);
      ${serving}
      await Bun.sleep(900 + ${late}); // longer than it may take
      process.kill(process.ppid, "SIGCONT");`;
    server.setWorker(goodWorker.replace(serving, stopping));
    using eve = await Client.connect(server);
    await eve.line("* your name?");
    eve.send("eve\n");
    await eve.line(/^\* welcome eve/);
  });
}

test("the join timeout does not begin before there is a process that hears the name", async () => {
  const slow = goodWorker.replace("const relay = ", "await Bun.sleep(650);\nconst relay = ");
  await using server = await startWithWorker(slow, "--join-timeout", "2");
  using ann = await Client.connect(server);
  await ann.line("* your name?");
  await Bun.sleep(250); // she thinks about it
  ann.send("ann\n");
  await ann.line(/^\* welcome ann/);
});

test("SIGTERM: what a worker still has to say is heard", async () => {
  await using server = await startWithWorker(goodWorker);
  const deed = `
    process.on("message", () => setTimeout(() => {
      process.stdout.write("eve: last\\n");
      process.send({ type: "leave", at: 10 });
    }, 50))`;
  using room = await openWithEve(deed, server);
  expect(await server.stop()).toBe(0);
  for (const client of [room.ann, room.bob]) {
    await client.ended();
    expect(client.heard.slice(-2)).toEqual(["eve: last", "* server is shutting down"]);
  }
});

test("a client that is slowed down is heard, although others speak all the time", async () => {
  await using slowed = await startWithWorker(goodWorker, "--rate", "20");
  using room = await openWithEve(
    `setInterval(() => process.stdout.write("eve: boo\\n"), 20)`,
    slowed,
  );
  room.ann.send(numbered(100));
  await allHave([room.bob], "ann", 100);
});

test("a worker that renames its client again and again waits for its turn", async () => {
  await using slowed = await startWithWorker(goodWorker, "--rate", "20");
  const rename = `process.send({ type: "name", name: (globalThis.isEva ^= 1) ? "eva" : "eve", at: 0 })`;
  using room = await openWithEve(rename, slowed);
  room.ann.send(numbered(100)); // of which some wait, too
  await allHave([room.bob], "ann", 100);
  const renames = slowed.log.all.filter((line) => line.includes(" is now "));
  expect(renames.length).toBeLessThan(1000);
});

/** What the log has of its workers' stderr; and the log no longer has it, because it was foreseen. */
function takeStderr({ log }: Server): string[] {
  const isStderr = (line: string) => line.startsWith("worker stderr: ");
  const lines = log.all.filter(isStderr).map((line) => line.slice("worker stderr: ".length));
  log.all.splice(0, Infinity, ...log.all.filter((line) => !isStderr(line)));
  return lines;
}

test("a typo in worker.ts: the log says what it is and where", async () => {
  server.setWorker("const relay = ;");
  using ann = await Client.connect(server);
  await server.log.line(/^worker stderr: +at \S+worker\.ts:1:15$/);
  await server.log.line("worker stderr: error: Unexpected ;");
  server.setWorker(goodWorker);
  await ann.line("* your name?");
  takeStderr(server);
});

test("a worker's stderr is lines of the log, without control characters, and no flood", async () => {
  const text =
    "\\x1b[2J\\x1b]52;c;ZXZpbA==\\x07red\\r2026-01-01 00:00:00 worker 1 (::1): bob left\\n";
  const writing = await startWithWorker(goodWorker);
  const room = await openWithEve(
    `
    const { writeSync } = require("fs");
    writeSync(2, "${text}" + "x".repeat(1001) + "\\nlast\\n");
    for (let n = 0; ; n++) writeSync(2, n + "\\n".repeat(1000));`,
    writing,
  );
  await writing.log.line("worker stderr: last");
  room.ann.send(numbered(after)); // which the flood does not delay
  await allHave([room.bob], "ann", after);
  expect(await writing.stop()).toBe(0);
  const lines = takeStderr(writing);
  await writing[Symbol.asyncDispose]();
  const forged = "red2026-01-01 00:00:00 worker 1 (::1): bob left";
  expect(lines.slice(0, 3)).toEqual([forged, "(more than 1000 bytes)", "last"]);
  expect(lines.length).toBeLessThan(1000);
});
