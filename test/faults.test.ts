/** Faults, one after the other, and that nobody but the one concerned notices. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { allHave, Client, commandLine, disconnect, ended, isAlive } from "./helpers.ts";
import { long, memory, numbered, patience, type Server, sharedServer } from "./helpers.ts";
import { startServer, state, until } from "./helpers.ts";
import { after, flood, isPlain, openRoom } from "./scenes.ts";

setDefaultTimeout(2 * patience);

const server = await sharedServer("--rate", "0");
const patient = await sharedServer("--rate", "0", "--max-lag", "100000000");

/** A test of what plain streams cannot do: they have read, and hold, what would have to wait in the kernel. */
const testNatively = isPlain ? Object.assign(() => {}, { each: () => () => {} }) : test;

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

/** Kills the worker that serves somebody, and waits until all know. */
async function kill(server: Server, name: string, signal = "SIGKILL" as NodeJS.Signals) {
  const pid = await server.worker(name);
  process.kill(pid, signal);
  await server.log.line(
    new RegExp(`worker ${pid} of ${name} was killed by ${signal}, .* took over$`),
  );
  return pid;
}

for (const signal of ["SIGKILL", "SIGTERM"] as const) {
  test(`${signal} to an idle worker: another takes over, and not even its client notices`, async () => {
    using room = await openRoom(server);
    using eve = await Client.connect(server, "eve");
    await room.talk(100);
    await allHave([eve], "ann", 100, long);
    const pid = await kill(server, "eve", signal);
    const notice = new RegExp(`^\\* worker ${pid} of eve .* by ${signal}, (\\d+) took over$`);
    const [, heir] = notice.exec(await room.bob.line(notice))!;
    await eve.line(notice);
    eve.send("/who\n");
    await eve.line(new RegExp(`^\\* eve \\(worker ${heir}: `));
    await room.talk(after);
    await allHave([eve], "ann", 100 + after, long);
    eve.send("still here\n");
    await room.bob.line("eve: still here");
    expect(room.bob.heard.filter((line) => /left|joined \((?!3)/.test(line))).toEqual([]);
    await eve.end();
    await eve.ended();
    await room.settled();
    expect(isAlive(pid)).toBe(false);
  });

  test(`${signal} to a worker in a flood, from and to it: at most one read of its client is lost`, async () => {
    using room = await openRoom(server);
    using eve = await Client.connect(server, "eve");
    eve.send(numbered(10_000));
    const talk = room.talk(flood);
    await room.bob.line(/^eve: 500 /);
    await kill(server, "eve", signal);
    await talk;
    await room.talk(after);
    if (!isPlain) await allHave([eve], "ann", flood + after, long);
    // A stream may have read all that came before; and its heir may take what comes next for the end of a line.
    eve.send(isPlain ? "\nthe end\n" : "the end\n");
    await room.bob.line("eve: the end");
    const heard = room.bob.lines.all.filter((line) => /^eve: \d/.test(line));
    const said = numbered(10_000).split("\n");
    const numbers = heard.map((line) => Number(line.split(" ")[1]));
    expect(heard).toEqual(numbers.map((n) => `eve: ${said[n]}`)); // whole
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b)); // in order, none twice
    const lost = 10_000 - numbers.length;
    if (!isPlain) expect(lost).toBeLessThanOrEqual(65_536 / 200 + 1); // a stream reads ahead
  });
}

test("SIGKILL to a worker with writes pending to it loses none of them", async () => {
  using room = await openRoom(patient);
  using eve = await Client.connect(patient, "eve");
  eve.pause();
  await room.talk(flood);
  await kill(patient, "eve");
  await room.talk(after);
  eve.resume();
  if (!isPlain) await allHave([eve], "ann", flood + after, long);
  else await eve.line(new RegExp(`^ann: ${flood + after - 1} `));
});

test("half a line that outlived its worker does not hold up the lines behind it", async () => {
  using room = await openRoom(server);
  room.ann.send("x".repeat(300));
  await Bun.sleep(100); // nothing shows that the worker has seen it
  await kill(server, "ann");
  room.ann.send("y\n");
  if (!isPlain) await room.bob.line(/^ann: x{300}y$/);
  for (const line of ["hi", "ho"]) {
    room.ann.send(`${line}\n`);
    await room.bob.line(`ann: ${line}`);
  }
  room.ann.send("/quit\n");
  await room.ann.ended();
});

test("the end of a line whose beginning has died is no line, however many workers die", async () => {
  using room = await openRoom(server);
  room.ann.send("secret ".repeat(2000));
  await room.ann.line(/^\* not sent: /); // its worker has taken it
  for (let deaths = 1; deaths <= 2; deaths++) await kill(server, "ann");
  room.ann.send("and its tail\nand another\n");
  await room.bob.line("ann: and another");
  expect(room.bob.messages).toEqual(["ann: and another"]);
  if (!isPlain) await room.ann.lines.count("* a line of yours may be lost", 2);
});

testNatively("a throttled worker holds no lines: killed, it takes none along", async () => {
  await using slow = await startServer(["--rate", "20"]);
  using room = await openRoom(slow);
  room.ann.send(numbered(60));
  await room.bob.line(/^ann: /);
  await kill(slow, "ann");
  await allHave([room.bob], "ann", 60);
});

test("whoever has left gets the rest of the talk, though their worker is killed", async () => {
  using room = await openRoom(patient);
  using eve = await Client.connect(patient, "eve");
  eve.pause();
  await room.talk(flood);
  const pid = await patient.worker("eve");
  await eve.end();
  await room.bob.line("* eve left");
  process.kill(pid, "SIGKILL");
  await ended([pid]);
  eve.resume();
  if (isPlain)
    await eve.ended(); // what was in flight is lost there
  else await allHave([eve], "ann", flood, long);
});

test("a client whose workers die again and again at once is told, and leaves", async () => {
  using room = await openRoom(server);
  using eve = await Client.connect(server, "eve");
  await disconnect(server, "eve");
  await room.bob.line(/^\* eve left \(worker \d+ killed by SIGKILL\)$/);
  await eve.line("* your process died too often, goodbye");
  await eve.ended();
  using again = await Client.connect(server, "eve"); // nobody has her name
  expect(again.lines.all[0]).toStartWith("* welcome eve (3 online: ");
  await again.end();
  await room.talk(after);
  await room.settled();
});

test("all workers killed at once, and their heirs: everyone chats on", async () => {
  using room = await openRoom(server);
  using eve = await Client.connect(server, "eve");
  for (let round = 1; round <= 2; round++) {
    const pids = server.workers();
    process.kill(server.pid, "SIGSTOP"); // or a spare takes over from the first, and is killed, too
    for (const pid of pids) process.kill(pid, "SIGKILL");
    process.kill(server.pid, "SIGCONT");
    for (const client of [room.ann, room.bob, eve])
      await client.lines.count(/ was killed by SIGKILL, \d+ took over$/, 3 * round);
    await room.talk(after);
    if (!isPlain) await allHave([eve], "ann", round * after, long);
  }
});

test("a spare that is killed is replaced, and the next client is served", async () => {
  using room = await openRoom(server);
  const [spare] = await sparesOf(server);
  process.kill(spare!, "SIGKILL");
  await ended([spare!]);
  const [next] = await sparesOf(server);
  using _eve = await Client.connect(server, "eve");
  expect(await server.worker("eve")).toBe(next!);
  await room.talk(after);
});

test("a spare that dies as a client comes does not take that client's place", async () => {
  await using small = await startServer(["--max-clients", "1"]);
  for (let round = 0; round < 3; round++) {
    const [spare] = await sparesOf(small);
    process.kill(spare!, "SIGSTOP"); // so that it dies before it has taken its client
    using client = await Client.connect(small);
    client.send("ann\n");
    await small.hasWorkers(2); // it was taken, and the next one starts
    process.kill(spare!, "SIGKILL");
    await client.line(/^\* welcome ann /); // by another process
    client[Symbol.dispose]();
    await small.log.count(/: ann left/, round + 1); // its place is free
  }
});

test("a worker killed before its client has joined takes only that along, and it is told", async () => {
  using room = await openRoom(server);
  const [spare] = await sparesOf(server);
  using mute = await Client.connect(server);
  await mute.line("* your name?");
  process.kill(spare!, "SIGKILL");
  await mute.line("* your process died, connect again");
  await mute.ended();
  await server.log.line(/was refused: your process died/);
  await room.talk(after);
  await room.settled();
  expect(room.bob.heard.filter((line) => line.startsWith("* "))).toEqual([]);
});

test("a spare that is stopped does not keep a client waiting: another takes over", async () => {
  using room = await openRoom(server);
  const [spare] = await sparesOf(server);
  process.kill(spare!, "SIGSTOP");
  using eve = await Client.connect(server, "eve");
  expect(await server.worker("eve")).not.toBe(spare!);
  await eve.end();
  await eve.ended();
  await room.settled();
});

test("nor does one that is stopped while it starts", async () => {
  using _room = await openRoom(server);
  const before = server.workers();
  process.kill((await sparesOf(server))[0]!, "SIGKILL");
  const next = () => server.workers().find((pid) => !before.includes(pid));
  // As soon as it runs worker.ts: the server waits for it until then.
  await until(() => next() !== undefined && commandLine(next()!).includes("worker.ts"), "another");
  process.kill(next()!, "SIGSTOP");
  using _eve = await Client.connect(server, "eve");
});

test("--max-lag bounds a client that has no process", async () => {
  await using strict = await startServer(["--rate=0", "--max-lag", "200000", "--spares", "4"]);
  using room = await openRoom(strict, 4);
  for (const pid of await sparesOf(strict, 4)) process.kill(pid, "SIGSTOP");
  const pid = await strict.worker("bob");
  process.kill(pid, "SIGKILL");
  await until(() => !strict.workers().includes(pid), "the server to reap it");
  room.ann.send(numbered(200, 0, long));
  await room.ann.line(/^\* bob left \(worker \d+ was \d+ bytes behind\)$/);
  await room.bob.ended();
});

test("SIGTERM while a client waits for a stopped worker: it is told, and nothing is left", async () => {
  await using brief = await startServer();
  using room = await openRoom(brief);
  const [spare] = await sparesOf(brief);
  process.kill(spare!, "SIGSTOP");
  const pid = await brief.worker("bob");
  process.kill(pid, "SIGKILL");
  await until(() => !brief.workers().includes(pid), "the server to reap it");
  expect(await brief.stop()).toBe(0);
  await room.bob.line("* server is shutting down");
  await ended([spare!]);
});

test("whoever lost their process does not wait behind newcomers for another", async () => {
  await using bare = await startServer(["--spares", "0"]);
  using ann = await Client.connect(bare, "ann");
  await bare.hasWorkers(1);
  process.kill(bare.pid, "SIGSTOP");
  await until(() => state(bare.pid) === "T", "its stop");
  const storm = await Promise.all(Array.from({ length: 20 }, () => Client.connect(bare)));
  for (const client of storm) client.send("eve\n");
  process.kill(await bare.worker("ann"), "SIGKILL");
  process.kill(bare.pid, "SIGCONT");
  await ann.line(/ of ann was killed by SIGKILL, \d+ took over$/);
  const joined = bare.log.all.filter((line) => /: eve\d* joined/.test(line)).length;
  expect(joined).toBeLessThan(15);
  for (const client of storm) client[Symbol.dispose]();
});

test("who falls behind is disconnected, nobody waits for them, and it costs bounded memory", async () => {
  await using strict = await startServer(["--rate", "0", "--max-lag", "1000000"]);
  using room = await openRoom(strict);
  using eve = await Client.connect(strict, "eve"); // who reads nothing
  using dan = await Client.connect(strict, "dan"); // whose worker is stopped
  eve.pause();
  process.kill(await strict.worker("dan"), "SIGSTOP");
  const before = memory(strict.pid);
  for (let n = 0; n < 2; n++) await room.talk(flood); // 12 MB
  for (const name of ["eve", "dan"])
    await room.bob.line(new RegExp(`^\\* ${name} left \\(worker \\d+ was \\d+ bytes behind\\)$`));
  await dan.ended();
  // Without a bound it would be all that was said, held several times over.
  expect(memory(strict.pid) - before).toBeLessThan(32_000_000);
  await room.talk(after);
  await room.settled();
});

test("a flood waits for who got no processor for a while", async () => {
  using room = await openRoom(server);
  const { ann, bob } = room;
  using eve = await Client.connect(server, "eve");
  const starved = await server.worker("bob");
  process.kill(starved, "SIGSTOP");
  ann.send(numbered(4000, 0, long)); // 8 MB, twice as much as bob may be behind
  await eve.lines.until(() => eve.received > 2_500_000, "more than half of that");
  await Bun.sleep(500); // so long it gets no processor; unpaced, the flood would be through
  process.kill(starved, "SIGCONT");
  await allHave([bob, eve], "ann", 4000, long);
});

test("--rate slows a flood down, drops nothing of it, and others talk meanwhile", async () => {
  await using slow = await startServer(["--rate", "400"]);
  using room = await openRoom(slow);
  using eve = await Client.connect(slow, "eve");
  eve.send(numbered(1200)); // 800 at once, 400 in a second
  await room.bob.line(/^eve: 799 /);
  room.ann.send("in between\n");
  await room.bob.line("ann: in between");
  expect(room.bob.lines.all.some((line) => line.startsWith("eve: 1199 "))).toBe(false);
  await allHave([room.ann, room.bob], "eve", 1200);
});

test("a client that resets has left, also while it is handed over, and nothing else has happened", async () => {
  using room = await openRoom(server);
  const eve = createConnection(server.port, "127.0.0.1");
  eve.on("error", () => {});
  eve.write("eve\n");
  await room.bob.line("* eve joined (3 online)");
  eve.resetAndDestroy();
  await room.bob.line("* eve left");
  for (let n = 0; n < 8; n++) {
    const mute = createConnection(server.port, "127.0.0.1", () => mute.resetAndDestroy());
    mute.on("error", () => {});
    if (n % 2) await once(mute, "close");
  }
  await room.talk(after);
  await room.settled();
  expect(server.log.all.filter((line) => /could not start/.test(line))).toEqual([]);
});

test("a client that leaves with lines on their way may reset, or read them slowly", async () => {
  await using brief = await startServer(["--join-timeout", "1", "--rate=0", "--max-lag=100000000"]);
  using room = await openRoom(brief);
  using eve = await Client.connect(brief, "eve");
  using dan = await Client.connect(brief, "dan");
  for (const client of [eve, dan]) client.pause();
  await room.talk(flood);
  for (const client of [eve, dan]) await client.end();
  for (const name of ["eve", "dan"]) await room.bob.line(`* ${name} left`);
  dan.reset();
  await ended([await brief.worker("dan")]); // before eve has had her ten seconds
  await Bun.sleep(1500); // the join timeout, and a second more
  eve.resume();
  await allHave([eve], "ann", flood, long);
  await room.settled();
});

test.skipIf(!existsSync("/proc/net/tcp"))(
  "a client that vanished is looked for: keep-alive is on",
  async () => {
    using _ann = await Client.connect(server, "ann");
    const port = server.port.toString(16).toUpperCase().padStart(4, "0");
    const ours = () => {
      const lines = readFileSync("/proc/net/tcp", "utf8").split("\n");
      return lines.filter((line) => new RegExp(`: \\w+:${port} [\\w:]+ 01 `).test(line));
    };
    expect(ours().length).toBe(1);
    // Once nothing is in flight, the timer that runs (2) is the keep-alive's.
    await until(() => / 01 \w+:\w+ 02:/.test(ours()[0]!), "keep-alive", ours);
  },
);

test("workers do not get the server's environment", async () => {
  using _ann = await Client.connect(server, "ann");
  expect(commandLine(server.pid)).toContain("PATH=");
  const seen = commandLine(await server.worker("ann"));
  expect(seen).toContain("worker.ts");
  expect(seen).not.toContain("PATH=");
});

test("a server that was started with SIGCHLD ignored outlives its workers", async () => {
  const before = ["sh", "-c", 'trap "" CHLD; exec "$@"', "sh"];
  await using deaf = await startServer([], { before });
  using room = await openRoom(deaf);
  process.kill(await deaf.worker("bob"), "SIGKILL");
  await room.ann.line(/^\* worker \d+ of bob .*, \d+ took over$/);
  room.bob.send("here\n");
  await room.ann.line("bob: here");
});

testNatively.each(["goes on", "dies"])(
  "what had arrived before a reset is said, though the worker was stopped and then %s",
  async (fate) => {
    using room = await openRoom(server);
    const { ann, bob } = room;
    const eve = await Client.connect(server, "eve");
    const pid = await server.worker("eve");
    process.kill(pid, "SIGSTOP");
    eve.send(`${numbered(400)}half a line`); // all of it is in the kernel of the server then
    await eve.flushed();
    eve.reset();
    ann.send("the server has had time to see it\n");
    await bob.line(/^ann: /);
    process.kill(pid, fate === "dies" ? "SIGKILL" : "SIGCONT");
    await bob.line("* eve left");
    await allHave([bob], "eve", 400);
    await room.settled();
  },
);

testNatively("who resets before there is a process for them has said what they said", async () => {
  await using alone = await startServer(["--spares", "0"]);
  using bob = await Client.connect(alone, "bob");
  const eve = await Client.connect(alone);
  eve.send("eve\nhello\n");
  await eve.flushed();
  eve.reset();
  await bob.line("* eve left");
  expect(bob.messages).toEqual(["eve: hello"]);
});
