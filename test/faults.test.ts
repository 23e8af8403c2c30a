/** Faults, one after the other, and that nobody but the one concerned notices. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { allHave, Client, commandLine, disconnect, ended } from "./helpers.ts";
import { kill, long, memory, numbered, patience, type Server, startServer } from "./helpers.ts";
import { state, until } from "./helpers.ts";
import { after, flood, isPlain, openRoom, sharedRoom, testNatively } from "./scenes.ts";

setDefaultTimeout(2 * patience);

const server = await startServer(["--rate", "0", "--max-lag", "100000000"]);
const room = await sharedRoom(server);
const { ann, bob } = room;

const lost = "* lines of yours may be lost";

/** The workers that wait for clients: those that rest, and have served nobody. One that still starts does not rest. */
async function sparesOf(server: Server, count = 1): Promise<number[]> {
  const hasServed = (pid: number) => server.log.all.some((line) => line.includes(` ${pid} (`));
  const spares = () => server.workers().filter((pid) => !hasServed(pid));
  let rests = 0; // looks in a row, 5 ms from one to the next, that found them all at rest
  const areReady = () => {
    const resting = spares().filter((pid) => state(pid) === "S");
    rests = resting.length === count ? rests + 1 : 0;
    return rests > 20;
  };
  await until(areReady, "the spares", spares);
  return spares();
}

/** Kills the worker that serves somebody, and waits until the server has noticed that. */
async function bereave(on: Server, name: string): Promise<void> {
  const pid = await on.worker(name);
  process.kill(pid, "SIGKILL");
  await until(() => !on.workers().includes(pid), "the server to reap it");
}

test("SIGKILL and SIGTERM to an idle worker: another takes over, and not even its client notices", async () => {
  using eve = await Client.connect(server, "eve");
  await room.talk(100);
  await allHave([eve], "ann", 100, long);
  for (const signal of ["SIGKILL", "SIGTERM"] as const) {
    const [dead, heir] = await kill(server, "eve", signal);
    const notice = `* worker ${dead} of eve was killed by ${signal}, ${heir} took over`;
    for (const client of [eve, bob]) await client.line(notice);
    eve.send("/who\nstill here\n");
    await eve.line(new RegExp(`^\\* eve \\(worker ${heir}: `));
  }
  await room.talk(after);
  await allHave([eve], "ann", 100 + after, long);
  await bob.lines.count("eve: still here", 2);
  expect(bob.heard.filter((line) => /left|joined \((?!3)/.test(line))).toEqual([]);
});

test("a worker and its heir killed in a flood, from and to them: at most one read each is lost", async () => {
  using eve = await Client.connect(server, "eve");
  eve.send(numbered(10_000));
  const talk = room.talk(1000);
  await bob.line(/^eve: 500 /);
  for (const signal of ["SIGKILL", "SIGTERM"] as const) await kill(server, "eve", signal);
  await talk;
  await room.talk(after);
  if (!isPlain) await allHave([eve], "ann", 1000 + after, long);
  // A stream may have read all that came before; and its heir may take what comes next for the end of a line.
  eve.send(isPlain ? "\nthe end\n" : "the end\n");
  await bob.line("eve: the end");
  const heard = bob.messages.filter((line) => /^eve: \d/.test(line));
  const said = numbered(10_000).split("\n");
  const numbers = heard.map((line) => Number(line.split(" ")[1]));
  expect(heard).toEqual(numbers.map((n) => `eve: ${said[n]}`)); // whole
  expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b)); // in order, none twice
  const most = (2 * 65_536) / 200 + 2;
  if (!isPlain) expect(10_000 - numbers.length).toBeLessThanOrEqual(most); // a stream reads ahead
  if (!isPlain && numbers.length < 10_000) expect(eve.heard).toContain(lost);
});

test("what waits for a client outlives its worker, its leaving, and both, and is read as slowly as it likes", async () => {
  using eve = await Client.connect(server, "eve");
  using dan = await Client.connect(server, "dan");
  using fay = await Client.connect(server, "fay");
  using gus = await Client.connect(server, "gus");
  for (const client of [eve, dan, fay, gus]) client.pause();
  await room.talk(flood);
  await kill(server, "eve");
  await room.talk(after);
  for (const client of [dan, fay, gus]) await client.end();
  for (const name of ["dan", "fay", "gus"]) await bob.line(`* ${name} left`);
  const pids = [await server.worker("fay"), await server.worker("gus")];
  process.kill(pids[0]!, "SIGKILL");
  gus.reset();
  await ended(pids); // before the others have had their ten seconds
  await Bun.sleep(1200); // longer than a client has that is sent away
  for (const client of [eve, dan, fay]) client.resume();
  await allHave(isPlain ? [dan] : [eve, dan, fay], "ann", flood + after, long);
  if (isPlain) await eve.line(new RegExp(`^ann: ${flood + after - 1} `));
  await fay.ended();
});

test("half a line whose worker dies waits for its other half, or its end is no line", async () => {
  using eve = await Client.connect(server, "eve");
  eve.send("x".repeat(300));
  await Bun.sleep(100); // nothing shows that the worker has seen it
  await kill(server, "eve");
  eve.send("y\n");
  if (!isPlain) await bob.line(/^eve: x{300}y$/);
  eve.send("hi\n");
  await bob.line("eve: hi");
  eve.send("secret ".repeat(2000));
  await eve.line(/^\* not sent: /); // its worker has taken it
  for (let deaths = 1; deaths <= 2; deaths++) await kill(server, "eve");
  eve.send("and its tail\nand another\n");
  await bob.line("eve: and another");
  expect(bob.messages.slice(-2)).toEqual(["eve: hi", "eve: and another"]);
  if (!isPlain) await eve.lines.count("* a line of yours may be lost", 2);
});

test("--rate slows a flood down, drops nothing of it, though its worker is killed, and others talk meanwhile", async () => {
  // Where a supervisor has left SIGCHLD ignored (a dash would not), nobody tells the server how a worker has ended.
  const before = ["bash", "-c", 'trap "" CHLD; exec "$@"', "bash"];
  await using deaf = await startServer(["--rate", "400"], { before });
  using room = await openRoom(deaf);
  using eve = await Client.connect(deaf, "eve");
  eve.send(numbered(1200)); // 800 at once, 400 in a second
  await room.bob.line(/^eve: 799 /);
  room.ann.send("in between\n");
  await room.bob.line("ann: in between");
  expect(room.bob.lines.all.some((line) => line.startsWith("eve: 1199 "))).toBe(false);
  if (!isPlain) await kill(deaf, "eve"); // a stream holds lines
  await room.bob.line(/^eve: 1199 /);
  // Unless it was killed between taking a line and saying it.
  if (!eve.heard.includes(lost)) await allHave([room.ann, room.bob], "eve", 1200);
  await kill(deaf, "bob");
});

test("a client whose workers die again and again at once is told, and leaves", async () => {
  using eve = await Client.connect(server, "eve");
  await disconnect(server, "eve");
  await bob.line(/^\* eve left \(worker \d+ killed by SIGKILL\)$/);
  await eve.line("* your process died too often, goodbye");
  await eve.ended();
  using again = await Client.connect(server, "eve"); // nobody has her name
  expect(again.lines.all[0]).toStartWith("* welcome eve (3 online: ");
});

test("all workers killed at once: everyone chats on", async () => {
  process.kill(server.pid, "SIGSTOP"); // or a spare takes over from the first, and is killed, too
  for (const pid of server.workers()) process.kill(pid, "SIGKILL");
  process.kill(server.pid, "SIGCONT");
  for (const { lines } of [ann, bob])
    await lines.count(/ was killed by SIGKILL, \d+ took over$/, 2);
  await room.talk(after);
});

test("a spare that is killed while it waits, or as a client comes, is replaced, and the client served", async () => {
  const [first] = await sparesOf(server);
  process.kill(first!, "SIGKILL");
  await ended([first!]);
  const [second] = await sparesOf(server);
  process.kill(second!, "SIGSTOP"); // so that it dies before it has taken its client
  using eve = await Client.connect(server);
  eve.send("eve\n");
  await server.hasWorkers(4); // it was taken, and the next one starts
  process.kill(second!, "SIGKILL");
  await eve.line(/^\* welcome eve /);
});

test("a spare that is stopped while it waits, or while it starts, does not keep a client waiting", async () => {
  const [first] = await sparesOf(server);
  process.kill(first!, "SIGSTOP");
  using _eve = await Client.connect(server, "eve");
  expect(await server.worker("eve")).not.toBe(first!);
  const [second] = await sparesOf(server);
  const before = server.workers();
  process.kill(second!, "SIGKILL");
  const next = () => server.workers().find((pid) => !before.includes(pid));
  // As soon as it runs worker.ts: the server waits for it until then.
  await until(() => next() !== undefined && commandLine(next()!).includes("worker.ts"), "another");
  process.kill(next()!, "SIGSTOP");
  using _dan = await Client.connect(server, "dan");
});

test("a worker killed before its client has joined takes only that along, and it is told", async () => {
  const [spare] = await sparesOf(server);
  using mute = await Client.connect(server);
  await mute.line("* your name?");
  process.kill(spare!, "SIGKILL");
  await mute.line("* your process died, connect again");
  await mute.ended();
  await server.log.line(/was refused: your process died/);
  await room.talk(after);
  expect(bob.heard.filter((line) => line.startsWith("* "))).toEqual([]);
});

test("a flood waits for who gets no processor; who falls behind is disconnected, and memory is bounded", async () => {
  await using strict = await startServer(["--rate=0", "--max-lag", "1000000", "--spares", "4"]);
  using room = await openRoom(strict, 4);
  using dan = await Client.connect(strict, "dan");
  const starved = await strict.worker("bob");
  process.kill(starved, "SIGSTOP");
  const talk = room.talk(1000); // 2 MB, twice as much as bob may be behind
  await dan.lines.until(() => dan.received > 650_000, "more than half of that");
  await Bun.sleep(500); // so long it gets no processor; unpaced, the flood would be through
  process.kill(starved, "SIGCONT");
  await talk;
  await allHave([dan], "ann", 1000, long);

  process.kill(await strict.worker("dan"), "SIGSTOP");
  using eve = await Client.connect(strict, "eve"); // who has not read so much that the kernel keeps more
  eve.pause();
  const before = memory(strict.pid);
  for (let n = 0; n < 2; n++) await room.talk(flood); // 12 MB
  const wasBehind = (name: string) =>
    new RegExp(`^\\* ${name} left \\(worker \\d+ was \\d+ bytes behind\\)$`);
  for (const name of ["eve", "dan"]) await room.bob.line(wasBehind(name));
  await dan.ended();
  // Without a bound it would be all that was said, held several times over.
  expect(memory(strict.pid) - before).toBeLessThan(32_000_000);
  await room.settled();

  const spares = await sparesOf(strict, 4);
  for (const pid of spares) process.kill(pid, "SIGSTOP");
  await bereave(strict, "bob");
  room.ann.send(numbered(700, 0, long));
  await room.ann.line(wasBehind("bob"));
  await room.bob.ended();

  await bereave(strict, "ann");
  expect(await strict.stop()).toBe(0); // it does not wait for a stopped process either
  await room.ann.line("* server is shutting down");
  await ended(spares);
});

test("without spares: what a reset leaves is said, and who lost their process is served before newcomers", async () => {
  await using bare = await startServer(["--spares", "0"]);
  using ann = await Client.connect(bare, "ann");
  using dan = await Client.connect(bare);
  dan.send("dan\nhello\n");
  await dan.flushed();
  dan.reset(); // before there is a process for him
  if (!isPlain) await ann.line("* dan left"); // a stream may have nothing to say it with
  if (!isPlain) expect(ann.messages).toEqual(["dan: hello"]);
  await bare.hasWorkers(1);
  process.kill(bare.pid, "SIGSTOP");
  await until(() => state(bare.pid) === "T", "its stop");
  const storm = await Promise.all(Array.from({ length: 10 }, () => Client.connect(bare)));
  for (const client of storm) client.send("eve\n");
  process.kill(await bare.worker("ann"), "SIGKILL");
  process.kill(bare.pid, "SIGCONT");
  await ann.line(/ of ann was killed by SIGKILL, \d+ took over$/);
  const joined = bare.log.all.filter((line) => /: eve\d* joined/.test(line)).length;
  expect(joined).toBeLessThan(7);
  for (const client of storm) client[Symbol.dispose]();
});

test("a client that resets has left, also while it is handed over, and nothing else has happened", async () => {
  using eve = await Client.connect(server, "eve");
  eve.reset();
  await bob.line("* eve left");
  for (let n = 0; n < 4; n++) (await Client.connect(server)).reset();
  await room.talk(after);
  await server.log.line(/: eve left$/);
  expect(server.log.all.filter((line) => /could not start/.test(line))).toEqual([]);
});

testNatively("what arrived before a reset is said, though the worker was stopped", async () => {
  for (const signal of ["SIGCONT", "SIGKILL"] as const) {
    using eve = await Client.connect(server, "eve");
    const pid = await server.worker("eve");
    process.kill(pid, "SIGSTOP");
    eve.send(`${numbered(300)}half a line`); // less than the first window: it has all arrived
    await eve.flushed();
    eve.reset();
    ann.send("the server has had time to see it\n");
    await bob.line(/^ann: /);
    process.kill(pid, signal);
    await bob.line("* eve left");
    await allHave([bob], "eve", 300);
    await room.forget();
  }
});

test("the rest before an end in order is a line, before a reset not, though others speak to whom has gone", async () => {
  for (const [name, leave] of [
    ["eve", (client: Client) => client.reset()],
    ["fay", (client: Client) => client[Symbol.dispose]()], // its system resets what comes after its end
    ["gil", (client: Client) => client.reset()],
  ] as const) {
    using client = await Client.connect(server, name);
    const pid = await server.worker(name);
    client.send("whole\n");
    await bob.line(`${name}: whole`);
    process.kill(pid, "SIGSTOP");
    client.send("the rest");
    await client.flushed();
    leave(client);
    ann.send(`bye ${name}\n`); // the worker's write may get the error of the reset
    await bob.line(`ann: bye ${name}`);
    process.kill(pid, "SIGCONT");
    await bob.line(`* ${name} left`);
  }
  const rests = bob.messages.filter((line) => line.includes("rest"));
  if (!isPlain) expect(rests).toEqual(["fay: the rest"]); // a stream may take her end for a reset
  expect(rests.filter((line) => !line.startsWith("fay: "))).toEqual([]);
});

testNatively(
  "while the server is stopped, a worker takes no more than it can say, and obeys SIGTERM",
  async () => {
    using eve = await Client.connect(server, "eve");
    const pid = await server.worker("eve");
    const port = server.port.toString(16).toUpperCase().padStart(4, "0");
    const queues = new RegExp(`: \\w+:${port} [\\w:]+ 01 \\w+:(\\w+) `, "g"); // of bytes that nobody has read
    const unread = () =>
      [...readFileSync("/proc/net/tcp", "utf8").matchAll(queues)].reduce(
        (sum, [, queue]) => sum + parseInt(queue!, 16),
        0,
      );
    process.kill(server.pid, "SIGSTOP");
    eve.send(`${"a".repeat(1300)}\n`.repeat(30)); // less than a quarter of what the channel takes
    await eve.flushed();
    await until(() => unread() === 0, "the worker to say that", unread);
    const line = Buffer.alloc(1366, 0x80).fill("\n", 1365); // of no UTF-8, which becomes three times as long
    eve.send(Buffer.concat(Array<Buffer>(47).fill(line)));
    await eve.flushed();
    await until(() => unread() < 47 * 1366, "the worker to take some of it", unread);
    process.kill(pid, "SIGTERM");
    await until(
      () => state(pid) === "Z",
      "the worker to end",
      () => state(pid),
    );
    process.kill(server.pid, "SIGCONT");
    await eve.end();
    await bob.line("* eve left");
    await room.forget();
  },
);

const testOnLinux = test.skipIf(!existsSync("/proc/net/tcp"));
testOnLinux("a client that vanished is looked for: keep-alive is on", async () => {
  const port = server.port.toString(16).toUpperCase().padStart(4, "0");
  // Once nothing is in flight, the timer that runs (2) is the keep-alive's.
  const kept = new RegExp(`: \\w+:${port} [\\w:]+ 01 \\w+:\\w+ 02:`, "g");
  const ours = () => readFileSync("/proc/net/tcp", "utf8").match(kept);
  await until(() => ours()?.length === 2, "keep-alive of both", ours);
});

test("workers do not get the server's environment", async () => {
  expect(commandLine(server.pid)).toContain("PATH=");
  expect(commandLine(await server.worker("ann"))).not.toContain("PATH=");
});
