/** Faults, one after the other, and that nobody but the one concerned notices. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  allHave,
  children,
  Client,
  commandLine,
  descriptors,
  disconnect,
  isAlive,
  memory,
  numbered,
  parseListening,
  patience,
  randomFrom,
  root,
  run,
  type Server,
  startServer,
  state,
  testWith,
  unsafe,
  until,
  watchServer,
} from "./helpers.ts";

setDefaultTimeout(2 * patience);

/** What is said after a fault: 20,000 lines of 200 bytes. */
const after = 20_000;

interface Room extends AsyncDisposable {
  server: Server;
  ann: Client;
  bob: Client;
  /** Says numbered lines as ann, and checks that bob has all of them since the beginning. */
  talk(lines: number): Promise<void>;
  /** Waits until the server is as it was with ann and bob alone: no process or descriptor more. */
  settled(): Promise<void>;
}

/** A server on which ann and bob chat while something goes wrong with others. */
async function openRoom(args: string[] = []): Promise<Room> {
  const server = await startServer(["--rate", "0", ...args]);
  const ann = await Client.connect(server, "ann");
  const bob = await Client.connect(server, "bob");
  const spares = args.includes("--spares") ? Number(args[args.indexOf("--spares") + 1]) : 1;
  await until(
    () => server.workers().length === 2 + spares,
    "the spare",
    () => server.workers(),
  );
  const before = descriptors(server.pid);
  let said = 0;
  return {
    server,
    ann,
    bob,
    async talk(lines) {
      ann.send(numbered(lines, said));
      said += lines;
      await allHave([bob], "ann", said);
    },
    async settled() {
      const now = () => [server.workers().map(state), descriptors(server.pid)];
      const calm = () => {
        const workers = server.workers();
        if (workers.length !== 2 + spares || !workers.every(isAlive)) return false; // or not reaped
        return descriptors(server.pid) <= before;
      };
      await until(calm, `${2 + spares} living workers and ${before} descriptors`, now);
    },
    async [Symbol.asyncDispose]() {
      ann[Symbol.dispose]();
      bob[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

const isPlain = process.env["PIPECHAT_PLAIN"] !== undefined; // without system calls, more may be lost

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
    const talk = room.talk(after);
    await room.bob.line(/^eve: 500 /);
    process.kill(await room.server.worker("eve"), signal);
    await talk;
    await room.bob.line(/ of eve was killed by SIG.* took over$/);
    await room.talk(after);
    if (!isPlain) await allHave([eve], "ann", 2 * after);
    await room.bob.line(/^eve: 9999 /);
    const heard = room.bob.lines.all.filter((line) => line.startsWith("eve: "));
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
    else await eve.line(/^ann: 59999 /);
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
  expect(again.lines.all[0]).toStartWith("* welcome eve (3 online)");
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

test("a stopped worker falls behind, is ended, and nobody else waits for it", async () => {
  await using room = await openRoom(["--max-lag", "1000000"]);
  using eve = await Client.connect(room.server, "eve");
  const pid = await room.server.worker("eve");
  process.kill(pid, "SIGSTOP");
  await room.talk(after);
  await room.bob.line(/^\* eve left \(worker \d+ was \d+ bytes behind\)$/);
  await eve.ended();
  await room.talk(after);
  await room.settled();
});

/** The worker that waits for the next client of the room. */
async function spareOf({ server }: Room): Promise<number> {
  const served = [await server.worker("ann"), await server.worker("bob")];
  return server.workers().find((pid) => !served.includes(pid))!;
}

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
  for (let n = 0; n < 4; n++) await room.talk(after); // 16 MB
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

test("who sends no name in time, or only drips, is told and let go", async () => {
  await using server = await startServer(["--join-timeout", "1"]);
  using ann = await Client.connect(server, "ann");
  using mute = await Client.connect(server);
  using drip = await Client.connect(server);
  const dripping = setInterval(() => drip.send("x"), 100);
  for (const client of [mute, drip]) {
    await client.line("* no name within 1 s, goodbye");
    await client.ended();
  }
  clearInterval(dripping);
  ann.send("/who\n");
  await ann.line("* 1 online:");
});

test("in a storm, who sent a name in time is not sent away because the server took its time", async () => {
  await using server = await startServer(["--join-timeout", "1"]);
  const clients = await Promise.all(Array.from({ length: 150 }, () => Client.connect(server)));
  for (const client of clients) client.send("someone\n");
  for (const client of clients) await client.line(/^\* welcome /);
  for (const client of clients) client[Symbol.dispose]();
});

const hostile = {
  "control bytes": ["a\0b\x01\x07\x08\x7fc", "abc"],
  colours: ["\x1b[31;1mred\x1b[0m", "red"],
  "a cleared screen": ["\x1b[2J\x1b[Hboo", "boo"],
  "a hyperlink": ["\x1b]8;;http://evil\x07click\x1b]8;;\x07", "click"],
  "the clipboard": ["\x1b]52;c;ZXZpbA==\x1b\\x", "x"],
  "a device control string": ["\x1bP1$r0m\x1b\\x", "x"],
  "C1 controls": ["\u009b31mred\u0085x", "redx"],
  "a lone CR": ["* root left\rhello", "* root lefthello"],
  "a bidirectional override": ["a\u202eb\u2066c\u2069", "abc"],
  "a line separator": ["a\u2028* forged", "a* forged"],
  "a tab": ["a\tb", "a\tb"],
} satisfies Record<string, [string, string]>;

for (const [what, [sent, heard]] of Object.entries(hostile)) {
  test(`${what} in a line: nobody's terminal gets more than text`, async () => {
    await using server = await startServer();
    using ann = await Client.connect(server, "ann");
    using bob = await Client.connect(server, "bob");
    ann.send(`${sent}\nnext\n`);
    await bob.line("ann: next");
    expect(bob.messages).toEqual([`ann: ${heard}`, "ann: next"]);
  });
}

test("invalid UTF-8 of every kind arrives as replacement characters", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const invalid = [
    [0x80], // a continuation without a beginning
    [0xc3], // a beginning without its continuation
    [0xc0, 0xaf], // overlong
    [0xe0, 0x80, 0x80], // overlong
    [0xed, 0xa0, 0x80], // a surrogate
    [0xf4, 0x90, 0x80, 0x80], // beyond U+10FFFF
    [0xff, 0xfe], // never
  ];
  for (const bytes of invalid) ann.send(Uint8Array.of(0x3c, ...bytes, 0x3e, 0x0a));
  ann.send("next\n");
  await bob.line("ann: next");
  expect(bob.messages.length).toBe(invalid.length + 1);
  for (const line of bob.messages.slice(0, -1)) expect(line).toMatch(/^ann: <\ufffd+>$/);
});

test("a megabyte without a newline is refused once, and 100,000 empty lines say nothing", async () => {
  await using room = await openRoom();
  using eve = await Client.connect(room.server, "eve");
  eve.send("x".repeat(1_000_000));
  await eve.line("* not sent: longer than 4096 bytes");
  eve.send("\n".repeat(100_000) + "\r\n\x07\n" + "next\n");
  await room.bob.line("eve: next");
  expect(room.bob.messages).toEqual(["eve: next"]);
  expect(eve.heard).toEqual(["* not sent: longer than 4096 bytes"]);
});

test("2,000 lines of rubbish: what others see is clean, and the next line always works", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  const random = randomFrom(seed);
  const pick = <T>(from: T[]): T => from[Math.floor(random() * from.length)]!;
  await using server = await startServer(["--rate", "0", "--max-line", "500"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const rubbish = [..."\0\t\x07\x1b\x7f\r \u009b\u202e\u2066\ufeff😀é*:[]8;m"]
    .map((text) => Buffer.from(text))
    .concat(
      ["\x1b[", "\x1b]0;", "\x1bP", "\x1b\\", "\x9c", "* ann left"].map((text) =>
        Buffer.from(text),
      ),
    )
    .concat(Array.from({ length: 40 }, () => Buffer.of(0x80 + Math.floor(random() * 128))));
  for (let n = 0; n < 2_000; n++) {
    const length = random() < 0.05 ? 900 : Math.floor(random() * 40);
    const line = Buffer.concat(Array.from({ length }, () => pick(rubbish)));
    // In pieces of any size, and never a command: those are the other tests'.
    ann.send(Buffer.concat([Buffer.from("."), line, Buffer.from(`\nok ${n}\n`)]));
    if (random() < 0.1) await ann.flushed();
  }
  try {
    await bob.line("ann: ok 1999");
    const oks = bob.messages.filter((line) => line.startsWith("ann: ok "));
    expect(oks).toEqual(Array.from({ length: 2_000 }, (_, n) => `ann: ok ${n}`));
    const text = [...bob.lines.all, ...ann.lines.all];
    expect(text.filter((line) => !/^(ann: |\* )/.test(line))).toEqual([]);
    expect(text.filter((line) => unsafe.test(line))).toEqual([]);
  } catch (error) {
    throw new Error(`with SEED=${seed}: ${(error as Error).message}`);
  }
});

test("300 connections at once on 64 places: 64 are served, the others told, the places free again", async () => {
  await using server = await startServer(["--max-clients", "64"]);
  await until(() => server.workers().length === 1, "the spare");
  const before = descriptors(server.pid);
  const clients = await Promise.all(Array.from({ length: 300 }, () => Client.connect(server)));
  for (const client of clients) client.send("someone\n");
  const first = await Promise.all(clients.map((client) => client.line(/^\* (welcome|server)/)));
  expect(first.filter((line) => line.startsWith("* welcome")).length).toBe(64);
  expect(first.filter((line) => line === "* server is full").length).toBe(236);
  for (const client of clients) client[Symbol.dispose]();
  await until(() => server.workers().length === 1, "the end of all but the spare");
  await until(() => descriptors(server.pid) <= before, "their descriptors' end");
  const next = await Promise.all(Array.from({ length: 64 }, () => Client.whenFree(server, "x")));
  for (const client of next) client[Symbol.dispose]();
});

test("connections that are reset while they are refused do no harm", async () => {
  await using server = await startServer(["--max-clients", "1"]);
  using ann = await Client.connect(server, "ann");
  for (let n = 0; n < 100; n++) {
    const refused = createConnection(server.port, "127.0.0.1", () => refused.resetAndDestroy());
    refused.on("error", () => {});
    await new Promise((resolve) => refused.on("close", resolve));
  }
  await ann.end();
  await ann.ended();
  using _bob = await Client.whenFree(server, "bob");
});

/** A copy of the server whose `worker.ts` a test can replace while it runs. */
async function startWithWorker(
  source: string,
  ...args: string[]
): Promise<{ server: Server; setWorker(source: string): void }> {
  const folder = mkdtempSync(join(tmpdir(), "pipechat-"));
  for (const file of ["server.ts", "package.json", "parts"])
    cpSync(join(root, file), join(folder, file), { recursive: true });
  const setWorker = (source: string) => writeFileSync(join(folder, "worker.ts"), source);
  setWorker(source);
  return {
    server: await startServer(["--spares", "0", "--rate", "0", ...args], {
      script: join(folder, "server.ts"),
    }),
    setWorker,
  };
}

const goodWorker = readFileSync(join(root, "worker.ts"), "utf8");
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

test("without Bun's native sockets, the plain ones lose nothing either", async () => {
  await using server = await startServer(["--rate", "0"], { env: { PIPECHAT_PLAIN: "1" } });
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  bob.pause();
  ann.send(numbered(after));
  using eve = await Client.connect(server, "eve");
  eve.send("now\n");
  await ann.line("eve: now");
  bob.resume();
  await allHave([bob], "ann", after);
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

testWith(
  "prlimit",
  "a server on Linux that can start no process",
  "util-linux",
)("no process to be had: the client is told, and served when there is one", async () => {
  await using server = await startServer(["--spares", "0"]);
  using ann = await Client.connect(server, "ann");
  const limit = (files: number) =>
    expect(
      Bun.spawnSync(["prlimit", `--nofile=${files}:`, "--pid", String(server.pid)]).exitCode,
    ).toBe(0);
  const used = readdirSync(`/proc/${server.pid}/fd`).map(Number);
  let files = 0;
  for (let free = 0; free < 2; files++) if (!used.includes(files)) free++;
  limit(files); // two are free: one for the connection, too few for a worker
  using eve = await Client.connect(server);
  await eve.line("* no process can be started for you, try again later");
  await eve.ended();
  limit(1024);
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

/** Clients ann and bob, who have good workers, and eve, who has one that does `deed` once joined. */
async function startWithEve(deed: string) {
  const { server, setWorker } = await startWithWorker(goodWorker);
  const ann = await Client.connect(server, "ann");
  const bob = await Client.connect(server, "bob");
  setWorker(badWorker(deed));
  const eve = await Client.connect(server);
  await bob.line("* eve joined (3 online)");
  return { server, ann, bob, eve, setWorker };
}

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

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} ends the server in order: what was said arrives, all are told, nothing is left`, async () => {
    await using server = await startServer(["--rate", "0"]);
    using ann = await Client.connect(server, "ann");
    using bob = await Client.connect(server, "bob");
    using eve = await Client.connect(server, "eve");
    const workers = server.workers();
    ann.send(numbered(5_000));
    await bob.line(/^ann: 4999 /);
    server.process.kill(signal);
    for (const client of [ann, bob, eve]) {
      await client.line("* server is shutting down");
      await client.ended();
      expect(client.lines.all.at(-1)).toBe("* server is shutting down");
    }
    await allHave([bob, eve], "ann", 5_000);
    expect(await server.process.exited).toBe(0);
    await until(() => !workers.some(isAlive), "the workers' end");
  });
}

test("a SIGTERM in the middle of a flood: everyone has the same lines", async () => {
  await using server = await startServer(["--rate", "0"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  using eve = await Client.connect(server, "eve");
  ann.send(numbered(50_000));
  await bob.line(/^ann: 999 /);
  expect(await server.stop()).toBe(0);
  await Promise.all([bob.ended(), eve.ended()]);
  expect(bob.messages.length).toBeGreaterThanOrEqual(1000);
  expect(eve.messages).toEqual(bob.messages);
  const said = numbered(bob.messages.length).split("\n");
  expect(bob.messages.every((line, n) => line === `ann: ${said[n]}`)).toBe(true);
});

test("a stopped worker does not keep the server from ending", async () => {
  await using server = await startServer();
  using _ann = await Client.connect(server, "ann");
  const pid = await server.worker("ann");
  process.kill(pid, "SIGSTOP");
  expect(await server.stop()).toBe(0);
  await until(() => !isAlive(pid), "the worker's end");
});

test("SIGKILL of the server: its workers notice, let their clients go and end", async () => {
  await using server = await startServer(["--rate", "0", "--max-lag", "100000000"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  using stalled = await Client.connect(server, "stalled");
  stalled.pause();
  ann.send(numbered(40_000)); // 8 MB: the stalled one's worker has stopped reading, too
  await allHave([bob], "ann", 40_000);
  using _mute = await Client.connect(server);
  await until(() => server.workers().length === 5, "the spare");
  const workers = server.workers();
  process.kill(server.pid, "SIGKILL");
  await ann.ended();
  await until(
    () => !workers.some(isAlive),
    "the workers' end",
    () => workers.filter(isAlive),
  );
});

/** A server in a terminal of its own, as a person runs it. */
async function startInTerminal(...args: string[]): Promise<{
  child: Bun.Subprocess;
  port: number;
  screen: () => string;
}> {
  let screen = "";
  const child = Bun.spawn([process.execPath, "server.ts", "--port", "0", ...args], {
    cwd: root,
    terminal: {
      cols: 100,
      rows: 30,
      data(_, chunk) {
        screen += Buffer.from(chunk).toString();
      },
    },
  });
  await until(
    () => screen.includes("listening on"),
    "the server",
    () => screen,
  );
  return { child, port: parseListening(screen).port, screen: () => screen };
}

test("Ctrl-C in a terminal, which reaches the workers too, ends everything in order", async () => {
  const { child, port, screen } = await startInTerminal();
  using ann = await Client.connect({ port }, "ann");
  using bob = await Client.connect({ port }, "bob");
  await until(() => children(child.pid).length === 3, "the spare");
  const workers = children(child.pid);
  child.terminal!.write("\x03");
  for (const client of [ann, bob]) {
    await client.line("* server is shutting down");
    await client.ended();
  }
  expect([await child.exited, workers.filter(isAlive)]).toEqual([0, []]);
  expect(screen()).not.toContain("rror");
  expect(screen()).toEndWith("\r\nbye\r\n"); // and a shell's prompt stands at the margin
});

test("a second Ctrl-C ends everything at once", async () => {
  const { child, port } = await startInTerminal();
  using ann = await Client.connect({ port }, "ann");
  await until(() => children(child.pid).length === 2, "the spare");
  const workers = children(child.pid);
  const stopped = await Client.connect({ port }, "stopped");
  for (const pid of children(child.pid)) if (!workers.includes(pid)) workers.push(pid);
  for (const pid of workers.slice(1)) process.kill(pid, "SIGSTOP"); // they would be waited for
  child.terminal!.write("\x03");
  await ann.line("* server is shutting down");
  child.terminal!.write("\x03");
  expect(await child.exited).toBe(130);
  stopped[Symbol.dispose]();
  await until(
    () => !workers.some(isAlive),
    "the workers' end",
    () => workers.filter(isAlive),
  );
});

test("a terminal that takes no more of the log stops neither the chat nor the server's end", async () => {
  const { child, port } = await startInTerminal("--rate", "0", "--verbose");
  using ann = await Client.connect({ port }, "ann");
  using bob = await Client.connect({ port }, "bob");
  child.terminal!.write("\x13"); // Ctrl-S
  ann.send(numbered(after)); // 4 MB for the log
  await allHave([bob], "ann", after);
  child.kill("SIGTERM");
  await bob.ended();
  expect(await child.exited).toBe(0);
});

test("a terminal that takes the log again gets what is new, not all that it missed", async () => {
  const { child, port, screen } = await startInTerminal("--rate", "0", "--verbose");
  using ann = await Client.connect({ port }, "ann");
  using bob = await Client.connect({ port }, "bob");
  child.terminal!.write("\x13"); // Ctrl-S
  ann.send(numbered(after));
  await allHave([bob], "ann", after);
  child.terminal!.write("\x11"); // Ctrl-Q
  for (let n = 0; !screen().includes(`eve${n} joined`); n++) {
    using _eve = await Client.connect({ port }, `eve${n + 1}`);
  }
  expect(screen().length).toBeLessThan(2_000_000);
  child.kill("SIGTERM");
  await child.exited;
});

test("64 descriptors: the server says so, refuses whom it cannot serve, and goes on", async () => {
  const child = Bun.spawn(
    ["sh", "-c", `ulimit -n 64; exec "$0" server.ts --port 0`, process.execPath],
    {
      cwd: root,
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
  await using server = await watchServer(child);
  await server.log.line(/^only [68] clients at once: .*ulimit -n/);
  for (let round = 0; round < 3; round++) {
    const clients = await Promise.all(
      Array.from({ length: 40 }, () => Client.connect(server).catch(() => null)),
    );
    for (const client of clients) client?.send("x\n");
    for (const client of clients) client?.[Symbol.dispose]();
    await until(
      () => server.workers().length <= 1,
      "free places",
      () => server.workers(),
    );
  }
  using ann = await Client.whenFree(server, "ann");
  using bob = await Client.whenFree(server, "bob");
  ann.send("still here\n");
  await bob.line("ann: still here");
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

test("who has not joined hears nothing", async () => {
  await using room = await openRoom();
  using mute = await Client.connect(room.server);
  mute.send("x".repeat(5000)); // an answer to that proves that its worker serves it
  await mute.line("* not sent: longer than 4096 bytes");
  await room.talk(100);
  mute.send("\neve\n");
  await mute.line(/^\* welcome eve/);
  expect(mute.lines.all.length).toBe(2);
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

test("a name that was sent in time counts, though the server was stopped meanwhile", async () => {
  await using server = await startServer(["--join-timeout", "1"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server);
  await until(() => server.workers().length === 3, "the next spare");
  process.kill(server.pid, "SIGSTOP");
  bob.send("bob\n");
  await Bun.sleep(2500); // longer than the timeout
  process.kill(server.pid, "SIGCONT");
  await bob.line(/^\* welcome bob/);
  await ann.line(/^\* bob joined/);
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

test("a signal to the whole group, as timeout(1) sends it, ends everything in order", async () => {
  const child = Bun.spawn([process.execPath, "server.ts", "--port", "0"], {
    cwd: root,
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
  });
  await using server = await watchServer(child);
  using ann = await Client.connect(server, "ann");
  process.kill(-server.pid, "SIGTERM");
  await ann.line("* server is shutting down");
  await ann.ended();
  expect(ann.heard).toEqual(["* server is shutting down"]);
  expect(await child.exited).toBe(0);
});

test("a signal to each process, as systemctl(1) sends it, ends everything in order", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  await until(() => server.workers().length === 3, "the spare");
  for (const pid of server.workers()) process.kill(pid, "SIGTERM");
  ann.send("last words\n");
  await bob.line("ann: last words");
  expect(await server.stop()).toBe(0);
  for (const { heard } of [ann, bob]) expect(heard.at(-1)).toBe("* server is shutting down");
  expect([...ann.heard, ...bob.heard].join()).not.toMatch(/took over|left/);
});

test.skipIf(!existsSync("/proc/self/status"))("under nohup, SIGHUP does not end it", async () => {
  const script = `trap "" HUP; exec "$0" server.ts --port 0`;
  const child = Bun.spawn(["sh", "-c", script, process.execPath], {
    cwd: root,
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await watchServer(child);
  using ann = await Client.connect(server, "ann");
  child.kill("SIGHUP");
  using _bob = await Client.connect(server, "bob");
  await ann.line("* bob joined (2 online)");
});

test("the log says when what happened, and the address of whoever was refused", async () => {
  const limits = ["--max-per-address", "2", "--join-timeout", "1"];
  const { child, port, screen } = await startInTerminal(...limits);
  using _ann = await Client.connect({ port }, "ann");
  using mute = await Client.connect({ port });
  using third = await Client.connect({ port });
  await Promise.all([third.ended(), mute.ended()]);
  const events = [
    / worker \d+ \(127.0.0.1\): ann joined/,
    / 127.0.0.1 was refused: too many connections/,
  ];
  for (const event of [...events, / 127.0.0.1 was refused: no name within 1 s/])
    await until(() => event.test(screen()), `${event}`, screen);
  child.kill();
  await child.exited;
  const [first, ...rest] = screen().trim().split("\r\n");
  expect(first).toStartWith("listening on 127.0.0.1:");
  const times = rest.slice(0, 3).map((line) => Date.parse(line.slice(0, 19)));
  for (const time of times) expect(Math.abs(time - Date.now())).toBeLessThan(60_000);
});

test("a web page cannot speak, and the log tells who tried", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  // In a process of its own: after a malformed answer, ours may stop reading the server's log.
  const page = `fetch("http://127.0.0.1:${server.port}/", { method: "POST", body: "hello\\n" })`;
  expect((await run([process.execPath, "-e", `await ${page}`])).stderr).toContain("HTTP");
  await server.log.line("127.0.0.1 was refused: this is no web server");
  ann.send("/who\n");
  await ann.line("* 1 online:");
  expect(ann.heard.filter((line) => line.includes("POST"))).toEqual([]);
});
