/** Workers that are broken, hostile or late: nobody but their own client notices. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { allHave, Client, numbered, patience, type Server, until } from "./helpers.ts";
import { after, startWithWorker, goodWorker } from "./scenes.ts";

setDefaultTimeout(2 * patience);

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
async function startWithEve(deed: string, ...args: string[]) {
  const { server, setWorker } = await startWithWorker(goodWorker, ...args);
  const ann = await Client.connect(server, "ann");
  const bob = await Client.connect(server, "bob");
  setWorker(badWorker(deed));
  const eve = await Client.connect(server);
  await bob.line("* eve joined (3 online)");
  return { server, ann, bob, eve, setWorker };
}

test("new code without a restart: edit worker.ts, kill the workers, and everyone chats on", async () => {
  const { server, setWorker } = await startWithWorker(goodWorker);
  await using _server = server;
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  setWorker(goodWorker.replace("* //text says /text", "* //text says /text, as before"));
  for (const name of ["ann", "bob"]) process.kill(await server.worker(name), "SIGTERM");
  await ann.lines.count(/ took over$/, 2);
  ann.send("/help\nhello\n");
  await ann.line("* //text says /text, as before");
  await bob.line("ann: hello");
});

test("a worker.ts that is broken does not loop: its client is told, and leaves", async () => {
  const { server, setWorker } = await startWithWorker(goodWorker);
  await using _server = server;
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  setWorker("process.exit(3)");
  process.kill(await server.worker("bob"), "SIGKILL");
  await bob.line("* your process could not start, try again later");
  await bob.ended();
  await ann.line(/^\* bob left \(worker \d+ killed by SIGKILL\)$/);
});

test("a worker that cannot start: the client is told, and when it can again, it does", async () => {
  const { server, setWorker } = await startWithWorker(goodWorker);
  await using _server = server;
  using ann = await Client.connect(server, "ann");
  setWorker("process.exit(3)");
  using eve = await Client.connect(server);
  await eve.line("* your process could not start, try again later");
  await eve.ended();
  setWorker(goodWorker);
  using bob = await Client.connect(server, "bob");
  ann.send("back\n");
  await bob.line("ann: back");
});

const misdeeds = {
  "sent a line without end": `process.stdout.write("eve: " + "x".repeat(10_000))`,
  "sent an unknown control message": `process.send({ type: "shutdown" })`,
  "asked for too much at once": `for (let n = 0; n < 9; n++) process.send({ type: "who", at: 1e9 })`,
  "exited with code 7": `process.exit(7)`,
};

for (const [reason, deed] of Object.entries(misdeeds)) {
  test(`a worker that ${reason} ends alone`, async () => {
    const { server, setWorker } = await startWithWorker(goodWorker);
    await using _server = server;
    using ann = await Client.connect(server, "ann");
    using bob = await Client.connect(server, "bob");
    setWorker(badWorker(deed));
    using eve = await Client.connect(server);
    await bob.line(new RegExp(`^\\* eve left \\(worker \\d+ ${reason}\\)$`));
    await eve.ended();
    ann.send(numbered(after));
    await allHave([bob], "ann", after);
    expect(bob.messages.filter((line) => line.startsWith("eve: "))).toEqual([]);
  });
}

test("a worker that writes on after its client left ends, and nobody hears it", async () => {
  const { server, setWorker } = await startWithWorker(goodWorker);
  await using _server = server;
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  setWorker(
    badWorker(`process.send({ type: "leave", at: 0 });
    setInterval(() => process.stdout.write("ghost: boo\\n"), 1)`),
  );
  using eve = await Client.connect(server);
  await bob.line("* eve left");
  await eve.ended();
  await until(() => server.workers().length === 2, "its end");
  ann.send(numbered(after));
  await allHave([bob], "ann", after);
  expect(bob.messages.filter((line) => line.startsWith("ghost: "))).toEqual([]);
});

test("a worker that was let go cannot join again", async () => {
  const { server, bob, eve } = await startWithEve(`
    process.send({ type: "leave", at: 0 });
    process.send({ type: "name", name: "ghost", at: 0 }, process.exit)`);
  await using _server = server;
  await eve.ended();
  await until(() => server.workers().length === 2, "its end");
  bob.send("/who\n");
  await bob.line("* 2 online:");
});

test("a worker that asks for a name which forges a notice ends alone", async () => {
  const { server, bob } = await startWithEve(
    `process.send({ type: "name", name: "* bob left", at: 0 })`,
  );
  await using _server = server;
  await bob.line(/^\* eve left \(worker \d+ sent an unknown control message\)$/);
});

test("a client that is slowed down is heard, although others speak all the time", async () => {
  const deed = `setInterval(() => process.stdout.write("eve: boo\\n"), 20)`;
  const { server, ann, bob } = await startWithEve(deed, "--rate", "20");
  await using _server = server;
  ann.send(numbered(100));
  await allHave([bob], "ann", 100);
});

test("a worker that renames its client again and again waits for its turn", async () => {
  const rename = `process.send({ type: "name", name: (globalThis.isEva ^= 1) ? "eva" : "eve", at: 0 })`;
  const { server, ann, bob } = await startWithEve(rename, "--rate", "20");
  await using _server = server;
  ann.send(numbered(100)); // of which some wait, too
  await allHave([bob], "ann", 100);
  const renames = server.log.all.filter((line) => line.includes(" is now "));
  expect(renames.length).toBeLessThan(1000);
});

test("half a line waits for its other half, and ends with its worker", async () => {
  const { server, ann, bob, setWorker } = await startWithEve(`
    const say = (text) => require("fs").writeSync(1, text);
    say("eve: ha");
    process.stdin.on("data", (heard) => {
      if (heard.includes("first")) say("lf\\neve: lost");
      if (heard.includes("second")) process.exit();
    })`);
  await using _server = server;
  ann.send("first\n");
  await bob.line("eve: half");
  setWorker(goodWorker);
  ann.send("second\n");
  await bob.line(/^\* worker \d+ of eve exited with code 0, \d+ took over$/);
  expect(bob.messages).toEqual(["ann: first", "eve: half", "ann: second"]);
});

test("what was said before a request is heard before its answer", async () => {
  const { server, bob } = await startWithEve(`
    process.send({ type: "leave", at: 10 }, () => process.stdout.write("eve: last\\n"))`);
  await using _server = server;
  await bob.line("* eve left");
  expect(bob.messages).toEqual(["eve: last"]);
});

test("SIGTERM: what a worker still has to say is heard", async () => {
  const { server, ann, bob } = await startWithEve(`
    process.on("message", () => setTimeout(() => {
      process.stdout.write("eve: last\\n");
      process.send({ type: "leave", at: 10 });
    }, 50))`);
  await using _server = server;
  expect(await server.stop()).toBe(0);
  for (const client of [ann, bob]) {
    await client.ended();
    expect(client.heard.slice(-2)).toEqual(["eve: last", "* server is shutting down"]);
  }
});

/** What the log has of its workers' stderr; and the log no longer has it, because it was foreseen. */
function takeStderr({ log }: Server): string[] {
  const isStderr = (line: string) => line.startsWith("worker stderr: ");
  const lines = log.all.filter(isStderr).map((line) => line.slice("worker stderr: ".length));
  log.all.splice(0, Infinity, ...log.all.filter((line) => !isStderr(line)));
  return lines;
}

test("a typo in worker.ts: the log says what it is and where", async () => {
  const { server, setWorker } = await startWithWorker("const relay = ;");
  await using _server = server;
  using ann = await Client.connect(server);
  await server.log.line(/^worker stderr: +at \S+worker\.ts:1:15$/);
  await server.log.line("worker stderr: error: Unexpected ;");
  setWorker(goodWorker);
  await ann.line("* your name?");
  takeStderr(server);
});

test("a worker's stderr is lines of the log, without control characters, and no flood", async () => {
  const text =
    "\\x1b[2J\\x1b]52;c;ZXZpbA==\\x07red\\r2026-01-01 00:00:00 worker 1 (::1): bob left\\n";
  const { server, ann, bob } = await startWithEve(`
    const { writeSync } = require("fs");
    writeSync(2, "${text}" + "x".repeat(1001) + "\\nlast\\n");
    for (let n = 0; ; n++) writeSync(2, n + "\\n".repeat(1000));`);
  await using _server = server;
  await server.log.line("worker stderr: last");
  ann.send(numbered(after)); // which the flood does not delay
  await allHave([bob], "ann", after);
  expect(await server.stop()).toBe(0);
  const lines = takeStderr(server);
  const forged = "red2026-01-01 00:00:00 worker 1 (::1): bob left";
  expect(lines.slice(0, 3)).toEqual([forged, "(more than 1000 bytes)", "last"]);
  expect(lines.length).toBeLessThan(1000);
});

test("the join timeout does not begin before there is a process that hears the name", async () => {
  const slow = goodWorker.replace("const relay = ", "await Bun.sleep(3000);\nconst relay = ");
  const { server } = await startWithWorker(slow, "--join-timeout", "3");
  await using _server = server;
  using ann = await Client.connect(server);
  await ann.line("* your name?");
  await Bun.sleep(1000); // she thinks about it
  ann.send("ann\n");
  await ann.line(/^\* welcome ann/);
});

for (const late of [100, 1000]) {
  test(`a worker that took its client while the server was stopped keeps it, ${late} ms later`, async () => {
    const serving = `process.send!({ type: "serving" });`;
    const { server } = await startWithWorker(
      goodWorker.replace(
        serving,
        `process.kill(process.ppid, "SIGSTOP");
         await Bun.sleep(100);
         ${serving}
         await Bun.sleep(900 + ${late}); // longer than it may take
         process.kill(process.ppid, "SIGCONT");`,
      ),
    );
    await using _server = server;
    using eve = await Client.connect(server);
    await eve.line("* your name?");
    eve.send("eve\n");
    await eve.line(/^\* welcome eve/);
  });
}
