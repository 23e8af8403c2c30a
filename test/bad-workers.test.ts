/** Workers that are broken, hostile or late: nobody but their own client notices. */
import { afterEach, expect, test } from "bun:test";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { allHave, Client, numbered, root, startServer, temporaryFolder } from "./helpers.ts";
import { sharedRoom, testNatively } from "./scenes.ts";

// A copy of the server, whose worker.ts a test can replace while it runs.
const folder = temporaryFolder();
for (const file of ["server.ts", "package.json", "parts"])
  cpSync(join(root, file), join(folder, file), { recursive: true });
const goodWorker = readFileSync(join(root, "worker.ts"), "utf8");
const setWorker = (source = goodWorker) => writeFileSync(join(folder, "worker.ts"), source);
setWorker();
afterEach(() => setWorker());
const script = join(folder, "server.ts");
const server = await startServer(["--spares", "0", "--rate", "20"], { script });
const { ann, bob } = await sharedRoom(server, 0);

/** Connects eve, whose worker does what is asked of it until she has joined, and then `deed`. */
function connectEve(deed: string): Promise<Client> {
  setWorker(`
    process.on("message", (order, socket) => {
      if (order.type === "serve") process.send({ type: "serving" });
      if (order.type === "serve") process.send({ type: "name", name: "eve", at: 0 });
      if (order.type === "done") { ${deed} }
    });
    process.send({ type: "ready", at: 0 });`);
  return Client.connect(server);
}

/** What the log has of its workers' stderr; and the log no longer has it, because it was foreseen. */
function takeStderr(): string[] {
  const isStderr = (line: string) => line.startsWith("worker stderr: ");
  const lines = server.log.all.filter(isStderr).map((line) => line.slice("worker stderr: ".length));
  server.log.all.splice(0, Infinity, ...server.log.all.filter((line) => !isStderr(line)));
  return lines;
}

test("new code without a restart: a typo in worker.ts is logged, and disconnects nobody if mended in time", async () => {
  setWorker("const relay = ;");
  for (const name of ["ann", "bob"]) process.kill(await server.worker(name), "SIGTERM");
  await server.log.line(/^a worker could not start: exited with code 1, trying again$/);
  await server.log.line(/^worker stderr: +at \S+worker\.ts:1:15$/);
  await server.log.line("worker stderr: error: Unexpected ;");
  setWorker(goodWorker.replace("* //text says /text", "* //text says /text, as before"));
  await ann.lines.count(/ took over$/, 2);
  await server.log.line("workers start again");
  ann.send("/help\nhello\n");
  await ann.line("* //text says /text, as before");
  await bob.line("ann: hello");
  expect(server.log.all.filter((line) => /could not start/.test(line)).length).toBe(1);
});

testNatively(
  "a worker that dies between taking lines and saying them: its client is told",
  async () => {
    const native = join(folder, "parts/shared/native.c");
    const good = readFileSync(native, "utf8");
    const dies = "*(volatile char *)(up[0] == '!' ? 0 : up) = up[0]; int whole =";
    const alsoDies =
      'if (lines.includes("é")) process.kill(process.pid, "SIGKILL");\n  let block = ';
    setWorker(goodWorker.replace("let block = ", alsoDies));
    writeFileSync(native, good.replace("int whole =", dies));
    for (const deadly of ["!\nand others\n", "others and\né\n"]) {
      using eve = await Client.connect(server, "eve");
      eve.send("hello\n");
      await bob.line("eve: hello");
      eve.send(deadly);
      await eve.line("* lines of yours may be lost");
      eve.send("again\n");
      await bob.line("eve: again");
      await eve.end();
    }
    writeFileSync(native, good);
    expect(takeStderr().join()).toMatch(/segmentation fault/i);
  },
);

const misdeeds = {
  "sent a line without end": `process.stdout.write("eve: " + "x".repeat(10_000))`,
  "sent an unknown control message": `process.send({ type: "name", name: "* bob left", at: 0 })`,
  "asked for too much at once": `for (let n = 0; n < 9; n++) process.send({ type: "who", at: 1e9 })`,
  "sent a descriptor": `
    const peer = require("node:net").connect(PORT, "127.0.0.1");
    peer.once("connect", () => process.send({ type: "holds", lines: false, torn: false }, peer));`,
};

test("a worker that breaks a rule ends alone", async () => {
  using peer = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  for (const [reason, deed] of Object.entries(misdeeds)) {
    using eve = await connectEve(deed.replace("PORT", `${peer.port}`));
    await bob.line(new RegExp(`^\\* eve left \\(worker \\d+ ${reason}\\)$`));
    await eve.ended();
  }
  expect(bob.messages).toEqual([]);
});

test("what was said before a request is heard before its answer; after it left, a worker says nothing", async () => {
  using eve = await connectEve(`
    process.send({ type: "leave", at: 10 }, () => {
      process.stdout.write("eve: last\\n");
      process.send({ type: "name", name: "ghost", at: 10 });
      process.stdin.on("end", () => setInterval(() => process.stdout.write("ghost: boo\\n"), 1));
      process.stdin.resume();
    })`);
  await bob.line("* eve left");
  await eve.ended();
  await server.hasWorkers(2);
  ann.send("hello\n/who\n");
  await ann.line("* 2 online:");
  await bob.line("ann: hello");
  expect(bob.heard).toEqual(["* eve joined (3 online)", "eve: last", "* eve left", "ann: hello"]);
});

test("half a line waits for its other half, and ends with its worker", async () => {
  using _eve = await connectEve(`
    const say = (text) => require("fs").writeSync(1, text);
    say("eve: ha");
    process.stdin.on("data", (heard) => {
      if (heard.includes("first")) say("lf\\neve: lost");
      if (heard.includes("second")) process.exit(7);
    })`);
  await bob.line("* eve joined (3 online)");
  ann.send("first\n");
  await bob.line("eve: half");
  setWorker();
  ann.send("second\n");
  await bob.line(/^\* worker \d+ of eve exited with code 7, \d+ took over$/);
  expect(bob.messages).toEqual(["ann: first", "eve: half", "ann: second"]);
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
    setWorker(goodWorker.replace(serving, stopping));
    using eve = await Client.connect(server);
    await eve.line("* your name?");
    eve.send("eve\n");
    await eve.line(/^\* welcome eve/);
  });
}

test("the join timeout does not begin before there is a process that hears the name", async () => {
  setWorker(goodWorker.replace("const relay = ", "await Bun.sleep(650);\nconst relay = "));
  await using impatient = await startServer(["--spares=0", "--join-timeout=2"], { script });
  using eve = await Client.connect(impatient);
  await eve.line("* your name?");
  await Bun.sleep(250); // she thinks about it
  eve.send("eve\n");
  await eve.line(/^\* welcome eve/);
});

test("a client that is slowed down is heard, though others speak and rename themselves all the time", async () => {
  using _eve = await connectEve(`
    process.send({ type: "name", name: (globalThis.isEva ^= 1) ? "eva" : "eve", at: 0 });
    globalThis.talk ??= setInterval(() => process.stdout.write("eve: boo\\n"), 20)`);
  await bob.line("eve: boo");
  ann.send(numbered(60)); // of which some wait
  await allHave([bob], "ann", 60);
  expect(server.log.all.filter((line) => line.includes(" is now ")).length).toBeLessThan(1000);
  setWorker();
  process.kill(await server.worker("eve"), "SIGKILL"); // it would not notice that she leaves
  await bob.line(/ took over$/);
});

// This one ends the server.
test("SIGTERM: what a worker still has to say is heard, and its stderr is clean lines of the log, no flood", async () => {
  takeStderr(); // the typo
  using _eve = await connectEve(`
    process.on("message", () => setTimeout(() => {
      process.stdout.write("eve: last\\n");
      process.send({ type: "leave", at: 10 });
    }, 50))`);
  await bob.line("* eve joined (3 online)");
  const text =
    "\\x1b[2J\\x1b]52;c;ZXZpbA==\\x07red\\r2026-01-01 00:00:00 worker 1 (::1): bob left\\n";
  using _flooder = await connectEve(`
    const { writeSync } = require("fs");
    writeSync(2, "${text}" + "x".repeat(1001) + "\\nlast\\n");
    for (let n = 0; ; n++) writeSync(2, n + "\\n".repeat(1000));`);
  await server.log.line("worker stderr: last");
  ann.send(numbered(10)); // which the flood does not delay
  await allHave([bob], "ann", 10);
  expect(await server.stop()).toBe(0);
  for (const client of [ann, bob]) {
    await client.ended();
    expect(client.heard.slice(-2)).toEqual(["eve: last", "* server is shutting down"]);
  }
  const forged = "red2026-01-01 00:00:00 worker 1 (::1): bob left";
  const lines = takeStderr();
  expect(lines.slice(0, 3)).toEqual([forged, "(more than 1000 bytes)", "last"]);
  expect(lines.length).toBeLessThan(1000);
});
