import { expect, setDefaultTimeout, test as anyTest } from "bun:test";
import { chmodSync, chownSync, closeSync, existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { openSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { native } from "../parts/shared/native.ts";
import { descriptorOf } from "../parts/shared/socket.ts";
import { children, Client, descriptors, ended, freePort, long } from "./helpers.ts";
import { missingBefore, numbered } from "./helpers.ts";
import { patience, root, type Server, spoken, startServer, until } from "./helpers.ts";
import { Redis, startLinked, test as testWithRedis } from "./redis-server.ts";

setDefaultTimeout(2 * patience);

const test = native ? anyTest : () => {};
/** A test that mostly waits: those that stand together run together. */
const testBeside = native ? anyTest.concurrent : () => {};
const gone = "* the server is gone, waiting for another (10 s)";
const isRoot = process.getuid?.() === 0;
const missing = "* lines of others may be missing here";

/** An address where servers come and go, and a folder of its own for the socket of whoever waits. */
class Place implements AsyncDisposable {
  readonly port = freePort();
  readonly folder = mkdtempSync(join(tmpdir(), "adopt-"));
  server!: Server;

  constructor(
    readonly args: string[] = [],
    readonly env: Record<string, string> = {},
    readonly before: string[] = [],
  ) {}

  /** The Unix socket on which its server hears those who wait. */
  get path(): string {
    return join(this.folder, "pipechat", `127.0.0.1:${this.port}`);
  }

  async start(): Promise<Server> {
    const args = ["--port", `${this.port}`, "--rate", "0", "--spares", "0", ...this.args];
    // Under bun test --no-orphans, the workers would be killed with their server.
    const env = { BUN_FEATURE_FLAG_NO_ORPHANS: "", XDG_RUNTIME_DIR: this.folder, ...this.env };
    return (this.server = await startServer(args, { env, before: this.before }));
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
    await ended(workers);
    expect(this.files).toEqual([]);
    rmSync(this.folder, { recursive: true });
  }
}

/** Offers the file behind a descriptor as a client, as a worker does; gives the server's answer. */
async function offer(place: Place, fd: number, text: string): Promise<string> {
  const answer = Promise.withResolvers<string>();
  const data = (_: Bun.Socket, chunk: Buffer) => answer.resolve(`${chunk}`);
  const close = () => answer.resolve("");
  const socket = await Bun.connect({ unix: place.path, socket: { data, close } });
  native!.pass((socket as unknown as { fd: number }).fd, fd);
  socket.write(`${text}\n`);
  await answer.promise;
  socket.end();
  return answer.promise;
}
const good = { pid: 1, name: "eve", isTorn: false, unsaid: "", unshown: "", mayLack: false };

async function restarted(clients: Client[]): Promise<void> {
  for (const client of clients) await client.line(/^\* the server is back /);
}

/** Checks all that a speaker has heard of the others: once, whole, in order; gives how much is missing. */
function check({ name, client }: Speaker, others: Speaker[]): { lost: number; told: number } {
  const next = new Map(others.map(({ name }) => [name, 0]));
  let lost = 0;
  for (const line of client.messages) {
    const [, from = "", text = ""] = /^(\w+): (.*)$/.exec(line) ?? [];
    const gap = next.has(from) ? missingBefore(from, next.get(from)!, text) : undefined;
    // The server may have died in the middle of a line, for somebody who was behind: then it is lost.
    const isBegun = ({ name }: Speaker) =>
      `${name}: ${spoken(name, next.get(name)!)}`.startsWith(line);
    if (!gap && others.some(isBegun)) continue;
    if (!gap) throw new Error(`${name} heard ${line} instead of ${from} ${next.get(from)}`);
    lost += gap.lines;
    next.set(from, next.get(from)! + gap.lines + 1);
  }
  for (const other of others) lost += other.said - next.get(other.name)!;
  const told = client.lines.all.filter((line) => /may be (missing|lost)/.test(line)).length;
  return { lost, told };
}

type Speaker = { name: string; client: Client; said: number };

/** Lets a server end twice while six people talk; gives what each one has missed. */
async function talk(signal: "SIGKILL" | "SIGUSR2") {
  await using place = new Place();
  await place.start();
  using stack = new DisposableStack();
  const speakers: Speaker[] = [];
  for (const name of "abcdef")
    speakers.push({ name, client: stack.use(await Client.connect(place, name)), said: 0 });
  const say = (one: Speaker) => one.client.send(`${spoken(one.name, one.said++)}\n`);
  const timer = setInterval(() => speakers.forEach(say), 5);
  stack.defer(() => clearInterval(timer));
  const all = (wanted: RegExp | string, count: number) =>
    Promise.all(speakers.map(({ client }) => client.lines.count(wanted, count)));
  for (let round = 1; round <= 2; round++) {
    await all(/^\w+: /, 400 * round);
    await place.end(signal);
    if (round === 1) await all(gone, 1);
    await place.start();
    await all("* the server is back (6 online)", round);
  }
  clearInterval(timer);
  speakers.forEach(say);
  for (const one of speakers)
    for (const { name, said } of speakers)
      if (name !== one.name) await one.client.line(`${name}: ${spoken(name, said - 1)}`);
  for (const { client } of speakers)
    expect(client.lines.all.filter((line) => /left|renamed|is now/.test(line))).toEqual([]);
  return speakers.map((one) =>
    check(
      one,
      speakers.filter((other) => other !== one),
    ),
  );
}

test("killed again and again in a talk, it loses only what it held, and says so", async () => {
  for (const { lost, told } of await talk("SIGKILL")) {
    expect(lost).toBeLessThan(1000); // of more than 4000: what two servers held when they died
    if (lost > 0) expect(told).toBeGreaterThan(0);
  }
});

test("SIGUSR2 loses nothing at all", async () => {
  for (const { lost, told } of await talk("SIGUSR2")) expect([lost, told]).toEqual([0, 0]);
});

testBeside("a server that is killed and started again has everybody still there", async () => {
  await using place = new Place();
  const old = await place.start();
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(place, "bob");
  const workers = children(old.pid);
  await place.end("SIGKILL");
  await ann.line(gone);
  ann.send("is anybody there?\nhalf a ");
  await place.start();
  using other = await Client.connect(place, "bob");
  await other.line("* bob is taken, you are bob2");
  ann.send("line\n");
  await other.line("ann: half a line");
  bob.send("yes\n");
  await ann.line("bob: yes");
  const notices = [gone, "* the server is back (2 online)", "* bob2 joined (3 online)"];
  const heard = ({ heard }: Client) => heard.filter((line) => line !== missing);
  expect(heard(ann)).toEqual(["* bob joined (2 online)", ...notices, "bob: yes"]);
  expect(bob.messages).toEqual(["ann: is anybody there?", "ann: half a line"]);
  expect(heard(bob).filter((line) => line.startsWith("* "))).toEqual(notices);
  await ended(workers);
});

for (const signal of ["SIGUSR2", "SIGKILL"] as const) {
  testBeside(
    `a client that is 2 MB behind at ${signal} reads whole lines; all of them, or it is told`,
    async () => {
      await using place = new Place();
      await place.start();
      using ann = await Client.connect(place, "ann");
      using slow = await Client.connect(place, "slow");
      slow.pause();
      ann.send(numbered(3000, 0, long) + "/who\n");
      await ann.line(/^\* .*slow/);
      await place.end(signal);
      await place.start();
      await restarted([ann]);
      ann.send("end\n");
      slow.resume();
      await slow.line("ann: end");
      const heard = slow.messages.slice(0, -1);
      const said = numbered(3000, 0, long).trimEnd().replace(/^/gm, "ann: ").split("\n");
      if (signal === "SIGUSR2") return expect(heard).toEqual(said);
      expect(slow.lines.all).toContain(missing);
      // The line in which the server died is cut, and its client told behind it.
      expect(heard.filter((line) => !said.includes(line)).length).toBeLessThan(2);
      expect(new Set(heard).size).toBe(heard.length);
    },
  );
}

testBeside(
  "killed while it adopts, or with some of its workers, the next server has the others",
  async () => {
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
  },
);

testBeside("SIGUSR2 while it adopts is obeyed when it has, and nothing is lost", async () => {
  await using place = new Place();
  const old = await place.start();
  const files = descriptors(old.pid);
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(place, "bob");
  await place.end("SIGUSR2");
  const { pid } = await place.start();
  // For each client, the Unix socket of its worker, and its own.
  await until(
    () => descriptors(pid) >= files + 4,
    "two offers",
    () => descriptors(pid),
  );
  await place.end("SIGUSR2");
  await place.start();
  await Promise.all([ann, bob].map(({ lines }) => lines.count(/^\* the server is back /, 2)));
  ann.send("hello\n");
  await bob.line("ann: hello");
  for (const { lines } of [ann, bob])
    expect(lines.all.filter((line) => /left|may be/.test(line))).toEqual([]);
});

testBeside(
  "a worker that was stopped meanwhile brings its client later, and tells it",
  async () => {
    await using place = new Place();
    const old = await place.start();
    using ann = await Client.connect(place, "ann");
    using bob = await Client.connect(place, "bob");
    const stopped = await old.worker("bob");
    process.kill(stopped, "SIGSTOP");
    await place.end("SIGKILL");
    await place.start();
    await ann.line("* the server is back (1 online)");
    bob.send("are you there?\n");
    process.kill(stopped, "SIGCONT");
    await ann.line("bob: are you there?");
    ann.send("yes\n");
    await bob.line("ann: yes");
    expect(bob.lines.all).toContain(missing);
    expect(ann.heard.filter((line) => /bob (left|joined)/.test(line))).toEqual([
      "* bob joined (2 online)",
    ]);
  },
);

testBeside("newcomers do not get the places of those who wait", async () => {
  await using place = new Place(["--max-clients", "2"]);
  await place.start();
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(place, "bob");
  await place.end("SIGKILL");
  await place.start();
  const newcomers = await Promise.all([1, 2, 3].map(() => Client.connect(place)));
  await restarted([ann, bob]);
  await newcomers[2]!.line("* server is full");
  for (const client of newcomers) client[Symbol.dispose]();
});

testBeside("who leaves while nobody serves them has said everything, and left", async () => {
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
  await ann.line("* bob left");
  await ann.line("* carl left");
});

testBeside("if no server comes, clients are disconnected, and nothing is left", async () => {
  await using place = new Place(["--spares", "1"]);
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
  // The dying server may still have accepted an offer: then lines may be missing.
  expect(ann.lines.all.filter((line) => line !== missing).at(-1)).toBe(gone);
  await ended(workers);
  expect(place.files).toEqual([]);
  await place.start();
  await elsewhere.start();
});

testBeside("an offer that is rubbish is refused, and harms nobody", async () => {
  await using place = new Place();
  const server = await place.start();
  using ann = await Client.connect(place, "ann");
  const files = descriptors(server.pid);
  const fd = openSync(join(root, "package.json"), "r");
  const before = server.log.all.length;
  const names = ["rubbish", "null", good, { ...good, name: "* eve" }];
  const offers = names.map((it) => (typeof it === "string" ? it : JSON.stringify(it)));
  for (const text of offers) expect(await offer(place, fd, text)).toBe("refused\n");
  // One that passes nothing, and one that goes at once.
  const silent = await Bun.connect({ unix: place.path, socket: { data() {} } });
  silent.write("+rubbish\n");
  (await Bun.connect({ unix: place.path, socket: { data() {} } })).terminate();
  closeSync(fd);
  await server.log.count(/was not adopted/, offers.length + 1);
  expect(server.log.all.length - before).toBeGreaterThan(offers.length);
  ann.send("/who\n");
  await ann.line(/ann/);
  await until(() => descriptors(server.pid) === files, "what was passed to be closed");
  const isThere = (...as: string[]) => Bun.spawnSync([...as, "test", "-S", place.path]).success;
  expect(isThere()).toBe(true);
  if (isRoot && Bun.which("setpriv"))
    expect(isThere("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")).toBe(false);
});

testBeside("a client that two workers offer is adopted once, and told", async () => {
  await using place = new Place();
  const server = await place.start();
  using ann = await Client.connect(place, "ann");
  const accepted = Promise.withResolvers<Socket>();
  const listener = createServer({ pauseOnConnect: true }, accepted.resolve).listen(0, "127.0.0.1");
  await once(listener, "listening");
  const eve = connect((listener.address() as AddressInfo).port);
  let heard = "";
  eve.setEncoding("utf8").on("data", (text) => (heard += text));
  const fd = descriptorOf(await accepted.promise);
  const text = JSON.stringify({ ...good, unsaid: "hello\n", unshown: btoa("ann: hi\n") });
  const answers = await Promise.all([offer(place, fd, text), offer(place, fd, text)]);
  expect(answers).toEqual(["taken\n", "taken\n"]);
  await ann.line("hello");
  await server.log.line(/eve was adopted from worker 1$/);
  eve.write("are you there?\n");
  await ann.line("eve: are you there?");
  expect(ann.messages.filter((line) => line.includes("hello"))).toEqual(["hello"]);
  expect(heard.match(/ann: hi/g)).toHaveLength(1);
  expect(heard).toContain("* lines of yours may be lost\n" + missing);
  eve.destroy();
  (await accepted.promise).destroy();
  listener.close();
  await ann.line("* eve left");
});

testBeside("in a folder that is not safe, nobody waits, and the log says why", async () => {
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
  if (isRoot) {
    mkdirSync(folder, 0o700);
    chownSync(folder, 65534, 65534);
    await (await place.start()).log.line(refusal);
    await place.server.stop();
    rmSync(folder, { recursive: true });
  }
  await place.start();
});

testBeside("a long path is no problem", async () => {
  await using place = new Place();
  const deep = join(place.folder, "x".repeat(100));
  mkdirSync(deep);
  place.env["XDG_RUNTIME_DIR"] = deep;
  await place.start();
  using ann = await Client.connect(place, "ann");
  await place.end("SIGKILL");
  await place.start();
  await restarted([ann]);
});

const fill = ["unshare", "-m", "sh", "-ec"];
fill.push(`mount -t tmpfs -o nr_inodes=1 none "$XDG_RUNTIME_DIR"; exec "$@"`, "sh");
const canFill = native && Bun.which("unshare") && Bun.spawnSync(["unshare", "-m", "true"]).success;
(canFill ? testBeside : () => {})(
  "on a full disk people chat, and the log says why nobody waits",
  async () => {
    await using place = new Place([], {}, fill);
    const server = await place.start();
    await server.log.line(/^if this server is killed, its clients are lost: ENOSPC/);
    using ann = await Client.connect(place, "ann");
    using bob = await Client.connect(place, "bob");
    ann.send("hello\n");
    await bob.line("ann: hello");
  },
);

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
