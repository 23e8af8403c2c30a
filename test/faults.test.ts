/** Faults, one after the other, and that nobody but the one concerned notices. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { createConnection } from "node:net";
import {
  allHave,
  Client,
  commandLine,
  disconnect,
  isAlive,
  memory,
  numbered,
  patience,
  root,
  startServer,
  state,
  until,
  watchServer,
} from "./helpers.ts";
import { after, flood, openRoom, isPlain, type Room } from "./scenes.ts";

setDefaultTimeout(2 * patience);

/** The worker that waits for the next client of the room. */
async function spareOf({ server }: Room): Promise<number> {
  const served = [await server.worker("ann"), await server.worker("bob")];
  return server.workers().find((pid) => !served.includes(pid))!;
}

for (const signal of ["SIGKILL", "SIGTERM"] as const) {
  test(`${signal} to an idle worker: another takes over, and not even its client notices`, async () => {
    await using room = await openRoom();
    using eve = await Client.connect(room.server, "eve");
    await room.talk(100);
    await allHave([eve], "ann", 100);
    const pid = await room.server.worker("eve");
    process.kill(pid, signal);
    const notice = new RegExp(
      `^\\* worker ${pid} of eve was killed by ${signal}, (\\d+) took over$`,
    );
    const [, heir] = notice.exec(await room.bob.line(notice))!;
    await eve.line(notice);
    eve.send("/who\n");
    await eve.line(new RegExp(`^\\* eve \\(worker ${heir}: `));
    await room.talk(after);
    await allHave([eve], "ann", 100 + after);
    eve.send("still here\n");
    await room.bob.line("eve: still here");
    expect(room.bob.heard.filter((line) => /left|joined \((?!3)/.test(line))).toEqual([]);
    await eve.end();
    await eve.ended();
    await room.settled();
    expect(isAlive(pid)).toBe(false);
  });

  test(`${signal} to a worker in a flood, from and to it: at most one read of its client is lost`, async () => {
    await using room = await openRoom();
    using eve = await Client.connect(room.server, "eve");
    eve.send(numbered(10_000));
    const talk = room.talk(flood);
    await room.bob.line(/^eve: 500 /);
    process.kill(await room.server.worker("eve"), signal);
    await talk;
    await room.bob.line(/ of eve was killed by SIG.* took over$/);
    await room.talk(after);
    if (!isPlain) await allHave([eve], "ann", flood + after);
    eve.send("the end\n"); // a stream may have read all that came before
    await room.bob.line("eve: the end");
    const heard = room.bob.lines.all.filter((line) => /^eve: \d/.test(line));
    const said = numbered(10_000).split("\n");
    const numbers = heard.map((line) => Number(line.split(" ")[1]));
    expect(heard).toEqual(numbers.map((n) => `eve: ${said[n]}`)); // whole
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b)); // in order, none twice
    const lost = 10_000 - numbers.length;
    if (!isPlain) expect(lost).toBeLessThanOrEqual(65_536 / 200 + 1); // a stream reads ahead
    await eve.end();
    await eve.ended();
    await room.settled();
  });

  test(`${signal} to a worker with writes pending to it loses none of them`, async () => {
    await using room = await openRoom(["--max-lag", "100000000"]);
    using eve = await Client.connect(room.server, "eve");
    eve.pause();
    const pid = await room.server.worker("eve");
    await room.talk(40_000); // 8 MB: more than the sockets and pipes on the way to eve hold
    process.kill(pid, signal);
    await room.bob.line(/^\* worker \d+ of eve was killed by SIG\w+, \d+ took over$/);
    await room.talk(after);
    eve.resume();
    if (!isPlain) await allHave([eve], "ann", 40_000 + after);
    else await eve.line(new RegExp(`^ann: ${40_000 + after - 1} `));
    await eve.end();
    await eve.ended();
    await room.settled();
  });
}

test("a client whose workers die again and again at once is told, and leaves", async () => {
  await using room = await openRoom();
  using eve = await Client.connect(room.server, "eve");
  await disconnect(room.server, "eve");
  await room.bob.line(/^\* eve left \(worker \d+ killed by SIGKILL\)$/);
  await eve.line("* your process died too often, goodbye");
  await eve.ended();
  const again = await Client.connect(room.server, "eve"); // nobody has her name
  expect(again.lines.all[0]).toStartWith("* welcome eve (3 online: ");
  await again.end();
  await room.talk(after);
  await room.settled();
});

test("all workers killed at once, and their heirs: everyone chats on", async () => {
  await using room = await openRoom();
  using eve = await Client.connect(room.server, "eve");
  for (let round = 1; round <= 2; round++) {
    const pids = room.server.workers();
    process.kill(room.server.pid, "SIGSTOP"); // or a spare takes over from the first, and is killed, too
    for (const pid of pids) process.kill(pid, "SIGKILL");
    process.kill(room.server.pid, "SIGCONT");
    for (const client of [room.ann, room.bob, eve])
      await client.lines.count(/ was killed by SIGKILL, \d+ took over$/, 3 * round);
    await room.talk(after);
    if (!isPlain) await allHave([eve], "ann", round * after);
  }
  await eve.end();
  await eve.ended();
  await room.settled();
});

test("a stopped worker falls behind, is ended, and nobody else waits for it", async () => {
  await using room = await openRoom(["--max-lag", "1000000"]);
  using eve = await Client.connect(room.server, "eve");
  const pid = await room.server.worker("eve");
  process.kill(pid, "SIGSTOP");
  await room.talk(flood);
  await room.bob.line(/^\* eve left \(worker \d+ was \d+ bytes behind\)$/);
  await eve.ended();
  await room.talk(after);
  await room.settled();
});

test("a spare that is killed is replaced, and the next client is served", async () => {
  await using room = await openRoom();
  const spare = await spareOf(room);
  process.kill(spare, "SIGKILL");
  const now = () => room.server.workers();
  await until(() => now().length === 3 && !now().includes(spare), "another spare", now);
  const eve = await Client.connect(room.server, "eve");
  eve[Symbol.dispose]();
  await room.talk(after);
  await room.settled();
});

test("a spare that dies as a client comes does not take that client's place", async () => {
  await using server = await startServer(["--max-clients", "1"]);
  for (let round = 0; round < 10; round++) {
    // The last client's worker may take a moment to end, and is no spare; then the place is free.
    let workers: number[] = [];
    const isSpare = (pid: number) => !server.log.all.some((line) => line.includes(`${pid} (`));
    const isReady = () => (workers = server.workers()).length === 1 && workers.every(isSpare);
    await until(
      () => isReady() && state(server.pid) === "S",
      "a spare",
      () => workers,
    );
    const [spare] = workers;
    // The stopped server meets both at once: the client, and a dead process that it does not know of.
    process.kill(server.pid, "SIGSTOP");
    await until(() => state(server.pid) === "T", "its stop");
    process.kill(spare!, "SIGKILL");
    const client = await Client.connect(server);
    client.send("ann\n");
    process.kill(server.pid, "SIGCONT");
    await client.line(/^\* welcome ann /); // by another process
    client[Symbol.dispose]();
    await server.log.count(/: ann left/, round + 1); // its place is free, and its worker is known
  }
});

test("a worker killed between getting its socket and the join takes only its client along", async () => {
  await using room = await openRoom();
  const spare = await spareOf(room);
  using mute = await Client.connect(room.server);
  await until(() => room.server.workers().length === 4, "the spare's successor");
  process.kill(spare, "SIGKILL");
  await mute.ended();
  await room.talk(after);
  await room.settled();
  expect(room.bob.heard.filter((line) => line.startsWith("* "))).toEqual([]);
});

test("a client that stops reading is disconnected, and costs bounded memory until then", async () => {
  await using room = await openRoom(["--max-lag", "2000000"]);
  using eve = await Client.connect(room.server, "eve");
  eve.pause();
  const before = memory(room.server.pid);
  for (let n = 0; n < 4; n++) await room.talk(flood); // 16 MB
  await room.bob.line(/^\* eve left \(worker \d+ was \d+ bytes behind\)$/);
  // Ten times --max-lag is generous for one client; without a bound it would be all that was said,
  // held several times over.
  expect(memory(room.server.pid) - before).toBeLessThan(64_000_000);
  await room.settled();
});

test("a client that is slow but keeps up loses nothing", async () => {
  await using room = await openRoom(["--max-lag", "100000000"]);
  using eve = await Client.connect(room.server, "eve");
  for (let n = 1; n <= 3; n++) {
    eve.pause();
    await room.talk(40_000); // 8 MB: more than the sockets and pipes on the way to eve hold
    eve.resume();
    await allHave([eve], "ann", n * 40_000);
  }
});

test("a flood waits for who got no processor for a while", async () => {
  await using room = await openRoom();
  const { ann, bob, server } = room;
  using eve = await Client.connect(server, "eve");
  const starved = await server.worker("bob");
  process.kill(starved, "SIGSTOP");
  ann.send(numbered(40_000)); // 8 MB, twice as much as bob may be behind
  await eve.lines.until(() => eve.received > 2_500_000, "more than half of that");
  await Bun.sleep(500); // so long it gets no processor; unpaced, the flood would be through
  process.kill(starved, "SIGCONT");
  await allHave([bob, eve], "ann", 40_000);
});

test("--rate slows a flood down, drops nothing of it, and others talk meanwhile", async () => {
  await using server = await startServer(["--rate", "200"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  using eve = await Client.connect(server, "eve");
  eve.send(numbered(800)); // 400 at once, 400 in 2 s
  await bob.line(/^eve: 399 /);
  ann.send("in between\n");
  await bob.line("ann: in between");
  expect(bob.lines.all.some((line) => line.startsWith("eve: 799 "))).toBe(false);
  await allHave([ann, bob], "eve", 800);
});

test("a client that resets its connection has left, and nothing else has happened", async () => {
  await using room = await openRoom();
  const eve = createConnection(room.server.port, "127.0.0.1");
  eve.on("error", () => {});
  eve.write("eve\n");
  await room.bob.line("* eve joined (3 online)");
  eve.resetAndDestroy();
  await room.bob.line("* eve left");
  for (let n = 0; n < 5; n++) {
    const mute = createConnection(room.server.port, "127.0.0.1", () => mute.resetAndDestroy());
    mute.on("error", () => {});
  }
  await room.talk(after);
  await room.settled();
});

test("a client that leaves and resets with lines still on their way is no error", async () => {
  await using room = await openRoom(["--max-lag", "100000000"]);
  using eve = await Client.connect(room.server, "eve");
  eve.pause();
  await room.talk(40_000);
  await eve.end();
  await room.bob.line("* eve left");
  eve.reset();
  await room.settled();
});

test.skipIf(!existsSync("/proc/net/tcp"))(
  "a client that vanished is looked for: keep-alive is on",
  async () => {
    await using server = await startServer();
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

test("without Bun's native sockets, the plain ones lose nothing either", async () => {
  await using server = await startServer(["--rate", "0"], { env: { PIPECHAT_PLAIN: "1" } });
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  bob.pause();
  ann.send(numbered(flood));
  using eve = await Client.connect(server, "eve");
  eve.send("now\n");
  await ann.line("eve: now");
  bob.resume();
  await allHave([bob], "ann", flood);
});

test("workers do not get the server's environment", async () => {
  const child = Bun.spawn([process.execPath, "server.ts", "--port", "0"], {
    cwd: root,
    env: { ...process.env, PIPECHAT_SECRET: "hunter2" },
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await watchServer(child);
  using _ann = await Client.connect(server, "ann");
  const seen = commandLine(await server.worker("ann"));
  expect(seen).toContain("worker.ts");
  expect(seen).not.toContain("hunter2");
});

test("a spare that is stopped does not keep a client waiting: another takes over", async () => {
  await using room = await openRoom();
  const spare = await spareOf(room);
  process.kill(spare, "SIGSTOP");
  const eve = await Client.connect(room.server, "eve");
  expect(await room.server.worker("eve")).not.toBe(spare);
  await eve.end();
  await eve.ended();
  await room.settled();
});

test("nor does one that is stopped while it starts", async () => {
  await using room = await openRoom();
  const before = room.server.workers();
  process.kill(await spareOf(room), "SIGKILL");
  const next = () => room.server.workers().find((pid) => !before.includes(pid));
  // As soon as it runs worker.ts: the server waits for it until then.
  await until(() => next() !== undefined && commandLine(next()!).includes("worker.ts"), "another");
  process.kill(next()!, "SIGSTOP");
  using _eve = await Client.connect(room.server, "eve");
});

test("whoever lost their process does not wait behind newcomers for another", async () => {
  await using server = await startServer(["--spares", "0"]);
  using ann = await Client.connect(server, "ann");
  await until(() => server.workers().length === 1, "ann's worker alone");
  process.kill(server.pid, "SIGSTOP");
  await until(() => state(server.pid) === "T", "its stop");
  const storm = await Promise.all(Array.from({ length: 40 }, () => Client.connect(server)));
  for (const client of storm) client.send("eve\n");
  process.kill(await server.worker("ann"), "SIGKILL");
  process.kill(server.pid, "SIGCONT");
  await ann.line(/ of ann was killed by SIGKILL, \d+ took over$/);
  const joined = server.log.all.filter((line) => /: eve\d* joined/.test(line)).length;
  expect(joined).toBeLessThan(20);
  for (const client of storm) client[Symbol.dispose]();
});

test("a client that leaves soon after joining may read its last lines slowly", async () => {
  await using room = await openRoom(["--join-timeout", "2", "--max-lag", "100000000"]);
  using eve = await Client.connect(room.server, "eve");
  eve.pause();
  await room.talk(40_000);
  await eve.end();
  await room.bob.line("* eve left");
  await Bun.sleep(3500); // the join timeout, and a second more
  eve.resume();
  await allHave([eve], "ann", 40_000);
});
