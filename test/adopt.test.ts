import { expect, setDefaultTimeout, test as anyTest } from "bun:test";
import { chownSync, closeSync, existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { openSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { native } from "../parts/shared/native.ts";
import { descriptorOf } from "../parts/shared/socket.ts";
import { unsaidLines } from "../parts/worker/native-relay.ts";
import { children, Client, descriptors, ended, freePort, long } from "./helpers.ts";
import { missingBefore, numbered } from "./helpers.ts";
import { patience, root, type Server, spoken, startServer, until } from "./helpers.ts";
import { Redis, startLinked, test as testWithRedis } from "./redis-server.ts";

setDefaultTimeout(2 * patience);

const test = native ? anyTest : () => {};
/** A test that mostly waits: those that stand together run together. */
const testBeside = native ? anyTest.concurrent : () => {};
const testLinked = native ? testWithRedis : () => {};
const gone = "* the server is gone, waiting for another (10 s)";
const isBack = /^\* the server is back \(\d online\)$/; // a busy machine may bring some a bit later
const missing = "* lines of others may be missing here";

/** An address where servers come and go, and a folder of its own for the socket of whoever waits. */
class Place implements AsyncDisposable {
  readonly port = freePort();
  readonly #temporary = mkdtempSync(join(tmpdir(), "adopt-"));
  /** Its path is longer than the kernel takes for a socket. */
  readonly runtime = join(this.#temporary, "x".repeat(100));
  readonly folder = join(this.runtime, "pipechat");
  /** The Unix socket on which its server hears those who wait. */
  readonly path = join(this.folder, `127.0.0.1:${this.port}`);
  readonly #args: string[];
  server!: Server;

  constructor(...args: string[]) {
    mkdirSync(this.runtime, 0o700);
    this.#args = ["--port", `${this.port}`, "--rate", "0", "--spares", "0", ...args];
  }

  async start(...before: string[]): Promise<Server> {
    // Under bun test --no-orphans, the workers would be killed with their server.
    const env = { BUN_FEATURE_FLAG_NO_ORPHANS: "", XDG_RUNTIME_DIR: this.runtime };
    return (this.server = await startServer(this.#args, { env, before }));
  }

  /** Ends the server, which disconnects nobody. */
  async end(signal: "SIGKILL" | "SIGUSR2"): Promise<void> {
    this.server.process.kill(signal);
    await this.server.process.exited;
    expect(this.server.errors.all).toEqual([]);
  }

  /** How many offers its server has accepted that are not settled. */
  get offers(): number {
    const isOurs = (line: string) => line.endsWith(`/127.0.0.1:${this.port}`);
    const sockets = readFileSync("/proc/net/unix", "utf8").split("\n").filter(isOurs);
    return sockets.filter((line) => / 03 +[1-9]\d* /.test(line)).length; // connected, and a process has it
  }

  /** What lies in the folder for those who wait. */
  get files(): string[] {
    return existsSync(this.folder) ? readdirSync(this.folder) : [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const workers = children(this.server.pid);
    await this.server.stop();
    await ended(workers);
    expect(this.files).toEqual([]);
    rmSync(this.#temporary, { recursive: true });
  }
}

/** Offers the file behind a descriptor as a client, as a worker does; gives the server's answer. */
async function offer(place: Place, fd: number, text: string): Promise<string> {
  const answer = Promise.withResolvers<string>();
  const data = (_: Bun.Socket, chunk: Buffer) => {
    if (`${chunk}` !== "heard\n") answer.resolve(`${chunk}`.replace("heard\n", ""));
  };
  const close = () => answer.resolve("");
  const socket = await Bun.connect({ unix: place.path, socket: { data, close } });
  native!.pass((socket as unknown as { fd: number }).fd, fd);
  socket.write(`${text}\n`);
  await answer.promise;
  socket.end();
  return answer.promise;
}
const good = { pid: 1, name: "eve", isTorn: false, unsaid: "", unshown: "", mayLack: false };

/** Somebody who says numbered lines, and by name the number of the next line that they will hear. */
type Speaker = { name: string; client: Client; said: number; next: Map<string, number> };

/** Reads what a speaker has heard of the others: once, whole, in order; gives how much is missing. */
function read({ name, client, next }: Speaker): { lost: number; told: number } {
  let lost = 0;
  for (const line of client.messages) {
    const [, from = "", text = ""] = /^(\w+): (.*)$/.exec(line) ?? [];
    const gap = next.has(from) ? missingBefore(from, next.get(from)!, text) : undefined;
    // The server may have died in the middle of a line, for somebody who was behind: then it is lost.
    const isBegun = () =>
      [...next].some(([name, n]) => `${name}: ${spoken(name, n)}`.startsWith(line));
    if (!gap && isBegun()) continue;
    if (!gap) throw new Error(`${name} heard ${line} instead of ${from} ${next.get(from)}`);
    lost += gap.lines;
    next.set(from, next.get(from)! + gap.lines + 1);
  }
  const told = client.lines.all.filter((line) => /may be (missing|lost)/.test(line)).length;
  client.lines.all.length = 0;
  return { lost, told };
}

/** Lets a server end by each signal while people talk; gives what each one has missed. */
async function talk(place: Place, speakers: Speaker[], ...signals: ("SIGKILL" | "SIGUSR2")[]) {
  const say = (one: Speaker) => one.client.send(`${spoken(one.name, one.said++)}\n`);
  const timer = setInterval(() => speakers.forEach(say), 5);
  const all = (wanted: RegExp | string, count: number) =>
    Promise.all(speakers.map(({ client }) => client.lines.count(wanted, count)));
  for (const [round, signal] of signals.entries()) {
    await all(/^\w+: /, 400 * (round + 1));
    await place.end(signal);
    if (round === 0) await all(gone, 1);
    await place.start();
    await all(isBack, round + 1);
  }
  clearInterval(timer);
  speakers.forEach(say);
  for (const { name, client } of speakers)
    for (const other of speakers)
      if (other.name !== name)
        await client.line(`${other.name}: ${spoken(other.name, other.said - 1)}`);
  for (const { client } of speakers)
    expect(client.heard.filter((line) => /left|renamed|is now/.test(line))).toEqual([]);
  return speakers.map(read);
}

test("in a talk, SIGUSR2 loses nothing, and SIGKILL only what the server held, and it says so", async () => {
  await using place = new Place();
  await place.start();
  using stack = new DisposableStack();
  const speakers: Speaker[] = [];
  for (const name of "abc") {
    const next = new Map([..."abc"].filter((other) => other !== name).map((other) => [other, 0]));
    const client = stack.use(await Client.connect(place, name));
    speakers.push({ name, client, said: 0, next });
  }
  for (const missed of await talk(place, speakers, "SIGUSR2"))
    expect(missed).toEqual({ lost: 0, told: 0 });
  for (const { lost, told } of await talk(place, speakers, "SIGKILL", "SIGKILL"))
    if (lost > 0) expect(told).toBeGreaterThan(0);
});

test("of what a dead server has taken in part, whole lines are said again", () => {
  const unsaid = (sent: number) => `${unsaidLines(Buffer.from("a\nbc\n"), sent)}`;
  expect([0, 1, 2, 3, 4].map(unsaid)).toEqual(["a\nbc\n", "a\nbc\n", "bc\n", "bc\n", "bc\n"]);
});

testBeside("a server that was killed and comes back has everybody, before newcomers", async () => {
  await using place = new Place("--max-clients", "4");
  const old = await place.start();
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(place, "bob");
  using carl = await Client.connect(place, "carl");
  const workers = children(old.pid);
  carl.send("secret ".repeat(2000));
  await carl.line(/^\* not sent: /); // its worker has taken it
  await place.end("SIGKILL");
  await ann.line(gone);
  ann.send("is anybody there?\nhalf a ");
  await place.start();
  using newcomers = new DisposableStack();
  const come = async () => newcomers.use(await Client.connect(place));
  const other = await come();
  other.send("bob\n");
  for (let n = 0; n < 3; n++) await come();
  await (await come()).line("* server is full");
  await other.line("* bob is taken, you are bob2");
  ann.send("line\n");
  await other.line("ann: half a line");
  bob.send("yes\n");
  await ann.line("bob: yes");
  const joined = ["* bob joined (2 online)", "* carl joined (3 online)"];
  const notices = [gone, expect.stringMatching(isBack), "* bob2 joined (4 online)"];
  const heard = ({ heard }: Client) => heard.filter((line) => line !== missing);
  expect(heard(ann)).toEqual([...joined, ...notices, "bob: yes"]);
  expect(bob.messages).toEqual(["ann: is anybody there?", "ann: half a line"]);
  expect(heard(bob).filter((line) => line.startsWith("* "))).toEqual([joined[1], ...notices]);
  carl.send("and its tail\nand another\n");
  await bob.line("carl: and another");
  expect(bob.messages.join()).not.toContain("tail");
  await carl.line("* a line of yours may be lost");
  await ended(workers);

  newcomers.dispose();
  await place.end("SIGKILL");
  await bob.lines.count(gone, 2);
  bob.send("farewell\n");
  await bob.end();
  carl.reset();
  await place.start();
  for (const line of ["bob: farewell", "* bob left", "* carl left"]) await ann.line(line);
});

testBeside("a client 2 MB behind reads whole lines: all, or at SIGKILL it is told", async () => {
  await using place = new Place();
  await place.start();
  using ann = await Client.connect(place, "ann");
  for (const signal of ["SIGUSR2", "SIGKILL"] as const) {
    using slow = await Client.connect(place, signal);
    slow.pause();
    ann.send(numbered(3000, 0, long) + "/who\n");
    await ann.line(new RegExp(`^\\* ${signal} \\(`));
    await place.end(signal);
    await place.start();
    ann.send("end\n");
    slow.resume();
    await slow.line("ann: end");
    const heard = slow.messages.slice(0, -1);
    const said = numbered(3000, 0, long).trimEnd().replace(/^/gm, "ann: ").split("\n");
    if (signal === "SIGUSR2") expect(heard).toEqual(said);
    // The line in which the server died is cut, and its client told behind it.
    else expect(slow.lines.all[slow.lines.all.indexOf(gone) - 1]).toBe(missing);
    expect(heard.filter((line) => !said.includes(line)).length).toBeLessThan(2);
    expect(new Set(heard).size).toBe(heard.length);
  }
});

testBeside("whoever ends while a server adopts, the next one has the others", async () => {
  await using place = new Place();
  await place.start();
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(place, "bob");
  await place.end("SIGUSR2");
  await place.start();
  await until(() => place.offers === 2, "two offers");
  await place.end("SIGUSR2"); // which it obeys when it has adopted them
  const last = await place.start();
  for (const { lines } of [ann, bob]) await lines.count(isBack, 2);
  ann.send("hello\n");
  await bob.line("ann: hello");
  for (const { lines } of [ann, bob])
    expect(lines.all.filter((line) => /left|may be/.test(line))).toEqual([]);

  using carl = await Client.connect(place, "carl");
  using dan = await Client.connect(place, "dan");
  const stopped = await last.worker("dan");
  process.kill(stopped, "SIGSTOP");
  const ending = place.end("SIGKILL");
  process.kill(await last.worker("carl"), "SIGKILL");
  await ending;
  await carl.ended();
  for (const wanted of [/^listening/, /was adopted/]) {
    const { log } = await place.start();
    await log.line(wanted);
    await place.end("SIGKILL");
  }
  ann.lines.all.length = 0;
  await place.start();
  await ann.line(isBack);
  ann.send("hello again\n");
  await bob.line("ann: hello again");
  dan.send("are you there?\n");
  process.kill(stopped, "SIGCONT");
  await ann.line("dan: are you there?");
  ann.send("yes\n");
  await dan.line("ann: yes");
  expect(dan.lines.all).toContain(missing);
  for (const { lines } of [ann, bob])
    expect(lines.all.filter((line) => /left|taken|\w2 /.test(line))).toEqual([]);
  expect(ann.lines.all.filter((line) => line.includes("joined"))).toEqual([]);
});

testBeside("if no server comes, clients are disconnected, and nothing is left", async () => {
  await using place = new Place("--spares", "1");
  await using elsewhere = new Place("--port", "0");
  await using taken = new Place();
  const [waiting, other] = [await place.start(), await elsewhere.start()];
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(other, "bob");
  using nameless = await Client.connect(place);
  const workers = [...children(waiting.pid), ...children(other.pid)];
  await taken.start();
  using dan = await Client.connect(taken, "dan");
  await Promise.all([place, elsewhere, taken].map((one) => one.end("SIGKILL")));
  await dan.line(gone);
  rmSync(taken.path);
  writeFileSync(taken.path, "as a server that came too late for dan");
  await bob.ended(); // nobody can come back to a port that the system has chosen
  await nameless.ended();
  expect(ann.lines.ended).toBe(false);
  await ann.ended();
  expect(ann.lines.all.at(-1)).toBe(gone);
  await ended(workers);
  await dan.ended();
  expect(taken.files).toHaveLength(1);
  rmSync(taken.path);
});

testBeside("rubbish is not adopted; a client that two workers offer is, once", async () => {
  await using place = new Place();
  const server = await place.start();
  using ann = await Client.connect(place, "ann");
  const files = descriptors(server.pid);
  const file = openSync(join(root, "package.json"), "r");
  const names = ["rubbish", "null", good, { ...good, name: "* eve" }];
  const offers = names.map((it) => (typeof it === "string" ? it : JSON.stringify(it)));
  for (const text of offers) expect(await offer(place, file, text)).toBe("refused\n");
  closeSync(file);
  // One that passes nothing, and one that goes at once.
  const silent = await Bun.connect({ unix: place.path, socket: { data() {} } });
  silent.write("+rubbish\n");
  (await Bun.connect({ unix: place.path, socket: { data() {} } })).terminate();
  await server.log.count(/was not adopted/, offers.length + 1);
  ann.send("/who\n");
  await ann.line(/ann/);
  await until(() => descriptors(server.pid) === files, "what was passed to be closed");

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
  await until(() => heard.includes("* lines of yours may be lost\n" + missing), "the losses");
  expect(heard.match(/ann: hi/g)).toHaveLength(1);
  eve.destroy();
  (await accepted.promise).destroy();
  listener.close();
  await ann.line("* eve left");
});

testBeside("in a folder that is not safe, nobody waits, and the log says why", async () => {
  await using place = new Place();
  const { folder } = place;
  const make = [() => mkdirSync(folder, 0o755), () => symlinkSync(".", folder)];
  if (process.getuid?.() === 0)
    make.push(() => (mkdirSync(folder, 0o700), chownSync(folder, 65534, 65534)));
  for (const makeUnsafe of make) {
    makeUnsafe();
    const server = await place.start();
    await server.log.line(
      /^if this server is killed, its clients are lost: .* only you can enter$/,
    );
    await server.stop();
    rmSync(folder, { recursive: true });
  }
});

const fill = ["unshare", "-m", "sh", "-ec"];
fill.push(`mount -t tmpfs -o nr_inodes=1 none "$XDG_RUNTIME_DIR"; exec "$@"`, "sh");
const canFill = native && Bun.which("unshare") && Bun.spawnSync(["unshare", "-m", "true"]).success;
const testFull = canFill ? testBeside : () => {};
testFull("on a full disk people chat, and the log says why nobody waits", async () => {
  await using place = new Place();
  const server = await place.start(...fill);
  await server.log.line(/^if this server is killed, its clients are lost: ENOSPC/);
  using ann = await Client.connect(place, "ann");
  using bob = await Client.connect(place, "bob");
  ann.send("hello\n");
  await bob.line("ann: hello");
});

testLinked("with --redis, names stay theirs, and nobody reads that they left", async (stack) => {
  const redis = stack.use(await Redis.start());
  const place = stack.use(new Place("--redis", redis.url));
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
});
