import { expect, setDefaultTimeout } from "bun:test";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { native } from "../parts/shared/native.ts";
import {
  children,
  Client,
  freePort,
  isAlive,
  missingBefore,
  numbered,
  patience,
  root,
  type Server,
  spoken,
  testWith,
  until,
  watchServer,
} from "./helpers.ts";
import { Redis, startLinked, test as testWithRedis } from "./redis-server.ts";

setDefaultTimeout(2 * patience);

const test = native ? testWith("nc", "a server that is killed", "netcat-openbsd") : () => {};
const gone = "* the server is gone, waiting for another (10 s)";

const { BUN_FEATURE_FLAG_NO_ORPHANS: _, ...env } = process.env;

/** An address where servers come and go, and a folder of its own for the socket of whoever waits. */
class Place implements AsyncDisposable {
  readonly port = freePort();
  readonly folder = mkdtempSync(join(tmpdir(), "adopt-"));
  server!: Server;

  constructor(
    readonly args: string[] = [],
    readonly env: Record<string, string> = {},
  ) {}

  async start(): Promise<Server> {
    const args = ["--port", `${this.port}`, "--rate", "0", ...this.args];
    this.server = await watchServer(
      Bun.spawn([process.execPath, resolve(root, "server.ts"), ...args], {
        // Under bun test --no-orphans, the workers would be killed with their server.
        env: { ...env, XDG_RUNTIME_DIR: this.folder, ...this.env },
        stdio: ["pipe", "pipe", "pipe"],
      }),
    );
    return this.server;
  }

  /** Ends the server, which disconnects nobody. */
  async end(signal: "SIGKILL" | "SIGUSR2"): Promise<void> {
    this.server.process.kill(signal);
    await this.server.process.exited;
    expect(this.server.errors.all).toEqual([]);
  }

  /** What lies in the folder for those who wait. */
  get files(): string[] {
    const folder = join(this.folder, "pipechat");
    return existsSync(folder) ? readdirSync(folder) : [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const workers = children(this.server.pid);
    await this.server.stop();
    await until(() => !workers.some(isAlive), "the workers' end");
    expect(this.files).toEqual([]);
    rmSync(this.folder, { recursive: true });
  }
}

async function restarted(clients: Client[]): Promise<void> {
  for (const client of clients) await client.line(/^\* the server is back /);
}

test("a server that is killed and started again has everybody still there", async () => {
  await using place = new Place();
  const old = await place.start();
  using ann = await Client.connect(place, "ann");
  const nc = Bun.spawn(["nc", "127.0.0.1", `${place.port}`], { stdin: "pipe", stdout: "pipe" });
  nc.stdin.write("bob\n");
  await ann.line("* bob joined (2 online)");
  const workers = children(old.pid);
  await place.end("SIGKILL");
  await ann.line(gone);
  ann.send("is anybody there?\nhalf a ");
  await place.start();
  using other = await Client.connect(place, "bob");
  await other.line("* bob is taken, you are bob2");
  await ann.line("* the server is back (2 online)");
  ann.send("line\n");
  await other.line("ann: half a line");
  nc.stdin.write("yes\n");
  await ann.line("bob: yes");
  expect(ann.heard).toEqual([
    "* bob joined (2 online)",
    gone,
    "* the server is back (2 online)",
    "* bob2 joined (3 online)",
    "bob: yes",
  ]);
  nc.kill();
  const heard = (await nc.stdout.text()).split("\n").slice(1, -1);
  const said = ["ann: is anybody there?", "ann: half a line"];
  expect(heard.filter((line) => line.startsWith("ann: "))).toEqual(said);
  expect(heard.filter((line) => line.startsWith("* "))).toEqual([
    gone,
    "* the server is back (2 online)",
    "* bob2 joined (3 online)",
  ]);
  await until(() => !workers.some(isAlive), "the end of the old workers");
});

/** Talks until it is told to stop, and checks what it hears of the others. */
class Speaker implements Disposable {
  said = 0;
  lost = 0;
  isTold = false; // that it may miss something

  constructor(
    readonly name: string,
    readonly client: Client,
  ) {}

  say(): void {
    this.client.send(`${spoken(this.name, this.said++)}\n`);
  }

  /** Checks everything that it heard: once, whole, in order; gives how much is missing. */
  check(others: Speaker[]): { lost: number; told: number } {
    const next = new Map(others.map(({ name }) => [name, 0]));
    let lost = 0;
    for (const line of this.client.messages) {
      const [, name = "", text = ""] = /^(\w+): (.*)$/.exec(line) ?? [];
      const expected = next.get(name);
      const missing = expected === undefined ? undefined : missingBefore(name, expected, text);
      if (!missing) throw new Error(`${this.name} heard ${line} instead of ${name} ${expected}`);
      lost += missing.lines;
      next.set(name, expected! + missing.lines + 1);
    }
    for (const { name, said } of others) lost += said - next.get(name)!;
    const told = this.client.lines.all.filter((line) => /may be (missing|lost)/.test(line)).length;
    return { lost, told };
  }

  [Symbol.dispose](): void {
    this.client[Symbol.dispose]();
  }
}

/** Lets a server end again and again while everybody talks; gives what each one has missed. */
async function talk(signal: "SIGKILL" | "SIGUSR2", rounds: number, count: number) {
  await using place = new Place();
  await place.start();
  await using stack = new AsyncDisposableStack();
  const speakers: Speaker[] = [];
  for (let n = 0; n < count; n++) {
    const name = String.fromCharCode(97 + n);
    speakers.push(stack.use(new Speaker(name, await Client.connect(place, name))));
  }
  const timer = setInterval(() => speakers.forEach((speaker) => speaker.say()), 5);
  stack.defer(() => clearInterval(timer));
  for (let round = 1; round <= rounds; round++) {
    const before = speakers.map(({ client }) => client.messages.length);
    await Promise.all(
      speakers.map(({ client }, n) => client.lines.count(/^\w+: /, before[n]! + 100 * count)),
    );
    await place.end(signal);
    if (round % 2) await Promise.all(speakers.map(({ client }) => client.lines.count(gone, round)));
    await place.start();
    const back = new RegExp(`^\\* the server is back \\(${count} online\\)$`);
    await Promise.all(speakers.map(({ client }) => client.lines.count(back, round)));
  }
  clearInterval(timer);
  for (const speaker of speakers) speaker.client.send("end\n");
  await Promise.all(
    speakers.map(async ({ client }) => {
      await client.lines.count(/^\w: end$/, count - 1);
      client.lines.all.splice(0, Infinity, ...client.lines.all.filter((l) => !/^\w: end$/.test(l)));
    }),
  );
  for (const { client } of speakers)
    expect(client.lines.all.filter((line) => /left|renamed|is now/.test(line))).toEqual([]);
  return speakers.map((speaker) => speaker.check(speakers.filter((other) => other !== speaker)));
}

test("killed again and again in a talk, it loses only what it held, and says so", async () => {
  for (const { lost, told } of await talk("SIGKILL", 2, 6)) {
    expect(lost).toBeLessThan(2 * 6 * 10);
    if (lost > 0) expect(told).toBeGreaterThan(0);
  }
});

test("SIGUSR2 loses nothing at all", async () => {
  for (const { lost, told } of await talk("SIGUSR2", 2, 6)) expect([lost, told]).toEqual([0, 0]);
});

test("SIGUSR2 loses nothing for a client that is 2 MB behind", async () => {
  await using place = new Place();
  await place.start();
  using ann = await Client.connect(place, "ann");
  using slow = await Client.connect(place, "slow");
  slow.pause();
  ann.send(numbered(30_000) + "/who\n");
  await ann.line(/^\* .*ann/);
  await ann.line(/^\* .*slow/);
  await place.end("SIGUSR2");
  await place.start();
  await restarted([ann]);
  ann.send("end\n");
  slow.resume();
  await slow.line("ann: end");
  expect(slow.messages.length).toBe(30_001);
  expect(slow.messages.slice(0, -1).join("\n") + "\n").toBe(
    numbered(30_000).replace(/^/gm, "ann: ").slice(0, -5),
  );
});

test("a client that is 2 MB behind when the server is killed reads whole lines, and is told", async () => {
  await using place = new Place();
  await place.start();
  using ann = await Client.connect(place, "ann");
  using slow = await Client.connect(place, "slow");
  slow.pause();
  ann.send(numbered(30_000) + "/who\n");
  await ann.line(/^\* .*slow/);
  await place.end("SIGKILL");
  await place.start();
  await restarted([ann]);
  ann.send("end\n");
  slow.resume();
  await slow.line("ann: end");
  await slow.line("* lines of others may be missing here");
  const said = new Set(
    numbered(30_000)
      .split("\n")
      .map((line) => `ann: ${line}`),
  );
  const heard = slow.messages.slice(0, -1);
  // The line in which the server died is cut, and its client told behind it.
  const cut = heard.filter((line) => !said.has(line));
  expect(cut.length).toBeLessThan(2);
  expect(new Set(heard).size).toBe(heard.length);
});

test("killed while it adopts, or with some of its workers, the next server has the others", async () => {
  await using place = new Place();
  const old = await place.start();
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(place, "bob");
  using carl = await Client.connect(place, "carl");
  const worker = await old.worker("carl");
  old.process.kill("SIGKILL");
  process.kill(worker, "SIGKILL");
  await old.process.exited;
  await carl.ended();
  for (const wanted of [/^listening/, /was adopted/, /was adopted/]) {
    const server = await place.start();
    await server.log.line(wanted);
    await place.end("SIGKILL");
  }
  await place.start();
  await restarted([ann, bob]);
  ann.send("hello\n");
  await bob.line("ann: hello");
  for (const { heard } of [ann, bob])
    expect(heard.filter((line) => /left|taken|ann2|bob2/.test(line))).toEqual([]);
});

test("who leaves while nobody serves them has said everything, and left", async () => {
  await using place = new Place();
  await place.start();
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(place, "bob");
  using carl = await Client.connect(place, "carl");
  await place.end("SIGKILL");
  for (const client of [ann, bob, carl]) await client.line(gone);
  bob.send("farewell\n");
  await bob.end();
  carl.reset();
  await place.start();
  await ann.line("bob: farewell");
  await ann.line(/^\* bob left/);
  await ann.line(/^\* carl left/);
});

test("if no server comes, clients are disconnected, and nothing is left", async () => {
  await using place = new Place();
  await using elsewhere = new Place(["--port", "0"]);
  const [waiting, other] = [await place.start(), await elsewhere.start()];
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(other, "bob");
  using nameless = await Client.connect(place);
  const workers = [...children(waiting.pid), ...children(other.pid)];
  await Promise.all([place.end("SIGKILL"), elsewhere.end("SIGKILL")]);
  await bob.ended(); // nobody can come back to a port that the system has chosen
  await nameless.ended();
  expect(ann.lines.ended).toBe(false);
  await ann.ended();
  expect(ann.lines.all.at(-1)).toBe(gone);
  await until(() => !workers.some(isAlive), "the workers' end");
  expect(place.files).toEqual([]);
  await place.start();
  await elsewhere.start();
});

test("an offer that is rubbish is refused, and harms nobody", async () => {
  await using place = new Place();
  const server = await place.start();
  using ann = await Client.connect(place, "ann");
  const path = join(place.folder, "pipechat", `127.0.0.1:${place.port}`);
  const good = { pid: 1, name: "eve", isTorn: false, unsaid: "", unshown: "", mayLack: false };
  const fd = openSync(join(root, "package.json"), "r");
  const before = server.log.all.length;
  const offers = [
    "rubbish",
    "null",
    JSON.stringify(good),
    JSON.stringify({ ...good, name: "* eve" }),
  ];
  for (const offer of offers) {
    const ended = Promise.withResolvers<string>();
    const socket = await Bun.connect({
      unix: path,
      socket: {
        data: (_, chunk) => ended.resolve(`${chunk}`),
        close: () => ended.resolve(""),
      },
    });
    native!.pass((socket as unknown as { fd: number }).fd, fd);
    socket.write(`${offer}\n`);
    expect(await ended.promise).toBe("refused\n");
    socket.end();
  }
  // One that passes nothing, and one that goes at once.
  const silent = await Bun.connect({ unix: path, socket: { data() {} } });
  silent.write("+rubbish\n");
  (await Bun.connect({ unix: path, socket: { data() {} } })).terminate();
  closeSync(fd);
  await server.log.count(/was not adopted/, offers.length + 1);
  expect(server.log.all.length - before).toBeGreaterThan(offers.length);
  ann.send("/who\n");
  await ann.line(/ann/);
});

test("in a folder that is not safe, nobody waits, and the log says why", async () => {
  await using place = new Place();
  const folder = join(place.folder, "pipechat");
  mkdirSync(folder);
  const refusal = /^if this server is killed, its clients are lost: .* only you can enter$/;
  chmodSync(folder, 0o755);
  await (await place.start()).log.line(refusal);
  await place.server.stop();
  rmSync(folder, { recursive: true });
  symlinkSync(tmpdir(), folder);
  await (await place.start()).log.line(refusal);
  await place.server.stop();
  rmSync(folder);
  const deep = join(place.folder, "x".repeat(100));
  mkdirSync(deep);
  await using long = new Place([], { XDG_RUNTIME_DIR: deep });
  await (await long.start()).log.line(/ is too long for a Unix socket$/);
  mkdirSync(join(long.folder, "pipechat"));
  using ann = await Client.connect(long, "ann");
  await long.end("SIGKILL");
  await ann.ended();
  await long.start();
  await place.start();
});

(native ? testWithRedis : () => {})(
  "with --redis, names stay theirs, and nobody reads that they left",
  async (stack) => {
    const redis = stack.use(await Redis.start());
    const place = stack.use(new Place(["--redis", redis.url]));
    const elsewhere = stack.use(await startLinked(redis));
    await place.start();
    const ann = stack.use(await Client.connect(place, "ann"));
    const bob = stack.use(await Client.connect(elsewhere, "bob"));
    await ann.line("* bob joined (2 online)");
    for (const signal of ["SIGKILL", "SIGUSR2"] as const) {
      await place.end(signal);
      await ann.line(gone);
      ann.send(`after ${signal}\n`);
      await place.start();
      await bob.line(`ann: after ${signal}`);
      const other = stack.use(await Client.connect(elsewhere, "ann"));
      await other.line("* ann is taken, you are ann2");
      other.send("/quit\n");
      await bob.lines.count("* ann2 left", signal === "SIGKILL" ? 1 : 2);
    }
    await ann.lines.count("* the server is back (2 online)", 2);
    expect(bob.heard.filter((line) => /\bann (left|joined)/.test(line))).toEqual([]);
  },
);
