/** Servers that share a room: with real servers, a real Redis, and faults on the way between them. */
import { expect, setDefaultTimeout } from "bun:test";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import {
  allHave,
  certificate,
  Client,
  freePort,
  numbered,
  patience,
  root,
  run,
  type Server,
  startServer,
  state,
  testWith,
  until,
  watchServer,
} from "./helpers.ts";
import { Redis } from "./redis-server.ts";

setDefaultTimeout(2 * patience); // the one in helpers.ts is the first test file's only

const test = testWith("redis-server", "several servers that share a room");

/** Stands between servers and their Redis, and makes the way to it long, or to another one. */
class Proxy implements AsyncDisposable {
  delay = 0; // ms, each way
  #to: Redis;
  readonly #server = createServer((socket) => this.#carry(socket));

  private constructor(to: Redis) {
    this.#to = to;
  }

  static async start(to: Redis): Promise<Proxy> {
    const proxy = new Proxy(to);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `redis://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Leads new connections to another Redis. */
  turn(to: Redis): void {
    this.#to = to;
  }

  #carry(socket: Socket): void {
    const ends = [socket, connect(this.#to.port, "127.0.0.1")];
    for (const [from, to] of [ends, ends.toReversed()] as [Socket, Socket][]) {
      let last = Promise.resolve();
      from.on("error", () => {});
      from.on("data", (chunk) => {
        const passed = Bun.sleep(this.delay);
        last = last.then(() => passed).then(() => void to.write(chunk));
      });
      from.on("close", () => last.then(() => to.destroy()));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Three nodes with a third of the slots each, as Redis Cluster has them, and replicas on demand. */
class Cluster implements AsyncDisposable {
  readonly nodes: Redis[] = [];
  #slot = 0;

  static async start(): Promise<Cluster> {
    const cluster = new Cluster();
    for (const slots of [
      ["0", "5460"],
      ["5461", "10922"],
      ["10923", "16383"],
    ]) {
      const node = await cluster.#add();
      await node.send("CLUSTER", "ADDSLOTSRANGE", ...slots);
    }
    await cluster.#agrees((info) => info.includes("cluster_state:ok"));
    cluster.#slot = await cluster.nodes[0]!.send("CLUSTER", "KEYSLOT", "pipechat:lobby");
    return cluster;
  }

  async #add(): Promise<Redis> {
    const bus = freePort();
    const options = ["--cluster-port", String(bus), "--cluster-node-timeout", "2000"];
    const node = await Redis.start("--cluster-enabled", "yes", ...options);
    this.nodes.push(node);
    await node.send("CLUSTER", "SET-CONFIG-EPOCH", String(this.nodes.length));
    const address = ["127.0.0.1", String(node.port), String(bus)];
    if (this.nodes.length > 1) await this.nodes[0]!.send("CLUSTER", "MEET", ...address);
    await this.#agrees((info) => info.includes(`cluster_known_nodes:${this.nodes.length}`));
    return node;
  }

  async #agrees(check: (info: string) => boolean): Promise<void> {
    for (const node of this.nodes)
      while (!check(await node.send("CLUSTER", "INFO"))) await Bun.sleep(20);
  }

  /** The node that has the room, and two that have not. */
  get parts(): { owner: Redis; others: Redis[] } {
    const owner = this.nodes[Math.floor(this.#slot / 5461)]!;
    return { owner, others: this.nodes.filter((node) => node !== owner) };
  }

  /** Adds a replica of a node. */
  async replicate(master: Redis): Promise<Redis> {
    const replica = await this.#add();
    await replica.send("CLUSTER", "REPLICATE", await master.send("CLUSTER", "MYID"));
    await this.hasReplica(replica);
    return replica;
  }

  /** Waits until a node is a replica, as all nodes know. */
  async hasReplica(replica: Redis): Promise<void> {
    const id = await replica.send("CLUSTER", "MYID");
    const isKnown = new RegExp(`^${id} \\S+ (myself,)?slave .* connected$`, "m");
    for (const node of this.nodes)
      while (!isKnown.test(await node.send("CLUSTER", "NODES"))) await Bun.sleep(20);
    while (!/master_link_status:up/.test(await replica.send("INFO", "replication")))
      await Bun.sleep(20);
  }

  /** Moves the room from node to node: `first` this key, then `meanwhile()`, then all others. */
  async migrate(from: Redis, to: Redis, { first = [] as string[], meanwhile = async () => {} }) {
    const [fromId, toId] = [await from.send("CLUSTER", "MYID"), await to.send("CLUSTER", "MYID")];
    const slot = String(this.#slot);
    const move = (keys: string[]) =>
      from.send("MIGRATE", "127.0.0.1", String(to.port), "", "0", "5000", "KEYS", ...keys);
    await to.send("CLUSTER", "SETSLOT", slot, "IMPORTING", fromId);
    await from.send("CLUSTER", "SETSLOT", slot, "MIGRATING", toId);
    if (first.length > 0) await move(first);
    if (first.length > 0) await meanwhile();
    await move(await from.send("CLUSTER", "GETKEYSINSLOT", slot, "10"));
    if (first.length === 0) await meanwhile();
    for (const node of [to, from, ...this.nodes])
      await node.send("CLUSTER", "SETSLOT", slot, "NODE", toId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes) await node[Symbol.asyncDispose]();
  }
}

/** Starts a server that is linked to the others of a Redis. */
function startLinked(redis: { url: string }, ...args: string[]): Promise<Server> {
  return startServer(["--redis", redis.url, "--rate", "0", ...args]);
}

/** Ends a server as a power failure does. */
async function crash(server: Server): Promise<void> {
  server.process.kill("SIGKILL");
  await server.process.exited;
}

/** Waits for a line on all `clients`. */
function allSee(clients: Client[], wanted: string | RegExp): Promise<string[]> {
  return Promise.all(clients.map((client) => client.line(wanted)));
}

/** What came after the welcome, but for joins: one on another server may be told after it, too. */
function heardBy({ heard }: Client): string[] {
  return heard.filter((line) => !/^\* \w+ joined \(\d+ online\)$/.test(line));
}

/** All notices that they have got, but for joins. */
function noticesTo(clients: Client[]): string[] {
  return clients.flatMap(heardBy).filter((line) => line.startsWith("* "));
}

const lost = "* link to other servers lost";
const back = "* link is back";
const missing = "* some lines from other servers may be missing here";

for (const count of [2, 3]) {
  test(`${count} servers are one room: all see the same, in order`, async () => {
    await using redis = await Redis.start();
    await using first = await startLinked(redis);
    await using second = await startLinked(redis);
    await using third = await startLinked(redis, ...(count === 2 ? ["--room", "other"] : []));
    using ann = await Client.connect(first, "ann");
    using bob = await Client.connect(second, "bob");
    await ann.line("* bob joined (2 online)");
    using carl = await Client.connect(third, "carl");
    const others = count === 2 ? [bob] : [bob, carl];
    if (count === 3) await allSee([ann, bob], "* carl joined (3 online)");
    ann.send("before\n/nick eve\nafter\n/quit\n");
    await allSee(others, "* eve left");
    bob.send("she is gone\n");
    if (count === 3) await carl.line("bob: she is gone");
    const seen = ["ann: before", "* ann is now eve", "eve: after", "* eve left"];
    expect(heardBy(bob)).toEqual(seen);
    expect(heardBy(carl)).toEqual(count === 2 ? [] : [...seen, "bob: she is gone"]);
  });
}

test("/who shows everyone, grouped by server", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using _bob = await Client.connect(second, "bob");
  using _carl = await Client.connect(second, "carl");
  ann.send("/who\n/help\n");
  await ann.line(/^\* \/help|^\* \/nick/);
  const who = ann.lines.all.slice(ann.lines.all.indexOf("* 3 online:"));
  expect(who.slice(1, 6)).toEqual([
    expect.stringMatching(new RegExp(`^\\* server ${first.pid} on \\S+, this one:$`)),
    expect.stringMatching(
      new RegExp(`^\\* ann \\(worker ${await first.worker("ann")}: .* down\\), you$`),
    ),
    expect.stringMatching(new RegExp(`^\\* server ${second.pid} on \\S+:$`)),
    `* bob (worker ${await second.worker("bob")})`,
    `* carl (worker ${await second.worker("carl")})`,
  ]);
});

test("a name that someone has on another server gets a number, and is free when they leave", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using other = await Client.connect(second, "ann");
  expect(other.lines.all[0]).toBe("* ann is taken, you are ann2");
  ann.send("/nick eve\n");
  await other.line("* ann is now eve");
  other.send("/nick ann\n/nick eve\n");
  await allSee([ann, other], "* ann is now eve2");
  await ann.end();
  await other.line("* eve left");
  other.send("/nick eve\n");
  await other.line("* eve2 is now eve");
});

test("a name that was sent in time counts, however long Redis takes to give it", async () => {
  await using redis = await Redis.start();
  await using server = await startLinked(redis, "--join-timeout", "1");
  using ann = await Client.connect(server);
  redis.signal("SIGSTOP");
  ann.send("ann\n");
  await Bun.sleep(2000); // longer than the timeout
  redis.signal("SIGCONT");
  await ann.line(/^\* welcome ann/);
});

test("100 people on two servers want one name at once: one gets it, the others a number each", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  const clients = await Promise.all(
    Array.from({ length: 100 }, (_, n) => Client.connect(n % 2 ? first : second, `p${n}`)),
  );
  for (const client of clients) client.send("/nick star\n");
  const renamed = (client: Client) => client.lines.all.filter((line) => line.includes(" is now "));
  for (const client of clients)
    await client.lines.until(() => renamed(client).length === 100, "100 renames");
  const names = renamed(clients[0]!).map((line) => line.split(" ").at(-1)!);
  const wanted = Array.from({ length: 100 }, (_, n) => (n === 0 ? "star" : `star${n + 1}`));
  expect(names.sort()).toEqual(wanted.sort());
  for (const client of clients) client[Symbol.dispose]();
});

test("whatever a line holds, it arrives byte for byte", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  const text = "\ufeff é e\u0301 😀👩‍👩‍👧 \t \ufffd \uffff \u{10ffff} %s $1 \\n\\0 '\" *3\\r\\n$4";
  ann.send(`${text}\n${"😀".repeat(1000)}\n`);
  await bob.line(`ann: ${"😀".repeat(1000)}`);
  expect(bob.messages[0]).toBe(`ann: ${text}`);
});

test("kill -9 of a server: the others are told who left, and the names are free", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  await using third = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  using _eve = await Client.connect(third, "eve");
  using _zoe = await Client.connect(third, "zoe");
  await crash(third);
  for (const name of ["eve", "zoe"])
    await allSee([ann, bob], `* ${name} left (their server was lost)`);
  using _new = await Client.connect(first, "eve");
  await bob.line("* eve joined (3 online)");
  const left = bob.lines.all.filter((line) => line.includes(" left"));
  expect(left.length).toBe(2); // each of them once, though two servers noticed
});

test("a server that was stopped for long: its people left for the others, and are back with it", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  using carl = await Client.connect(second, "carl");
  second.process.kill("SIGSTOP");
  await ann.line("* bob left (their server was lost)");
  await ann.line("* carl left (their server was lost)");
  using eve = await Client.connect(first, "bob");
  eve.send("while you slept\n");
  await ann.line("bob: while you slept");
  second.process.kill("SIGCONT");
  await ann.line("* carl joined (their server is back)");
  await bob.line("* bob is taken, you are bob2");
  await allSee([ann, carl], "* bob is now bob2");
  await allSee([bob, carl], "bob: while you slept");
  bob.send("awake\n");
  await allSee([ann, eve, carl], "bob2: awake");
  expect(bob.lines.all.filter((line) => line.includes(" left"))).toEqual([]);
});

test("a slow server loses nothing", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  ann.send(numbered(20_000));
  bob.send(numbered(20_000));
  await bob.line(/^ann: 500 /);
  second.process.kill("SIGSTOP");
  await until(() => state(second.pid) === "T", "its stop");
  ann.send(numbered(20_000, 20_000));
  ann.send("/who\n"); // answered when all of it is appended here
  await ann.line(/online:$/);
  second.process.kill("SIGCONT");
  await allHave([bob], "ann", 40_000);
  await allHave([ann], "bob", 20_000);
  expect(bob.lines.all).not.toContain(missing);
});

test("a flood that is faster than Redis waits for it, and nothing is lost", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  const client = new Bun.RedisClient(redis.url, { autoReconnect: false });
  const pause = () => client.send("CLIENT", ["PAUSE", "100", "WRITE"]).catch(() => {});
  const clock = setInterval(pause, 150); // two thirds of the time Redis takes no writes
  ann.send(numbered(100_000)); // 20 MB
  await allHave([bob], "ann", 100_000);
  clearInterval(clock);
  client.close();
  expect(ann.heard).toEqual(["* bob joined (2 online)"]);
});

/** Three servers, with someone who talks and someone who listens on each. */
async function startThree(redis: Redis) {
  const servers = await Promise.all([1, 2, 3].map(() => startLinked(redis)));
  const talkers = await Promise.all(
    servers.map((server, n) => Client.connect(server, `talker${n}`)),
  );
  const listeners = await Promise.all(
    servers.map((server, n) => Client.connect(server, `listener${n}`)),
  );
  let said = 0;
  return {
    servers,
    listeners,
    talk(lines: number) {
      for (const talker of talkers) talker.send(numbered(lines, said));
      said += lines;
    },
    /** Every line on every server exactly once, in its sender's order, and no notice of a loss. */
    async allArrived() {
      for (const n of talkers.keys()) await allHave(listeners, `talker${n}`, said);
      for (const { lines } of listeners)
        expect(lines.all.filter((line) => /^\* .* miss/.test(line))).toEqual([]);
    },
    async [Symbol.asyncDispose]() {
      for (const client of [...talkers, ...listeners]) client[Symbol.dispose]();
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    },
  };
}

/** Waits until all `clients` have a line for the `count`th time. */
async function allSeeTimes(clients: Client[], wanted: string, count: number): Promise<void> {
  for (const { lines } of clients) await lines.count(wanted, count);
}

test("kill -9 and restart of Redis in the middle of a flood: every line everywhere exactly once", async () => {
  await using redis = await Redis.start();
  await using room = await startThree(redis);
  for (const round of [1, 2, 3]) {
    room.talk(10_000);
    await room.listeners[0]!.line(new RegExp(`^talker1: ${(round - 1) * 15_000 + 500} `));
    await redis.kill();
    room.talk(5_000);
    await allSeeTimes(room.listeners, lost, round);
    await redis.start();
    await allSeeTimes(room.listeners, back, round);
    await room.allArrived();
  }
});

test("a Redis that answers nothing: the chat goes on, and what it gets twice is told once", async () => {
  await using redis = await Redis.start();
  await using room = await startThree(redis);
  room.talk(10_000);
  await room.listeners[0]!.line(/^talker1: 500 /);
  redis.signal("SIGSTOP");
  room.talk(2_000);
  const newcomer = await Client.connect(room.servers[0]!, "newcomer");
  newcomer.send("hello\n");
  await room.listeners[0]!.line("newcomer: hello");
  await allSee(room.listeners, lost);
  redis.signal("SIGCONT"); // now it finds on the lost connections what was sent, and does it
  await allSee(room.listeners, back);
  await allSee(room.listeners, "newcomer: hello");
  await room.allArrived();
  const numbers = await appended(redis);
  expect(new Set(numbers).size).toBeLessThan(numbers.length); // it did get something twice
  newcomer[Symbol.dispose]();
});

/** The server and the number of each block in the stream. */
async function appended(redis: Redis): Promise<string[]> {
  const entries: [string, string[]][] = await redis.send("XRANGE", "pipechat:lobby", "-", "+");
  return entries.map(([, fields]) => fields.slice(0, 4).join(" "));
}

test("while the link is lost people come, go, and take names that others have: then all is sorted out", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  using zoe = await Client.connect(second, "zoe");
  await redis.kill();
  await allSee([ann, bob], lost);
  await zoe.end();
  await bob.line("* zoe left");
  using here = await Client.connect(first, "eve");
  using there = await Client.connect(second, "eve");
  here.send("I am eve\n/who\n");
  await here.line("* the link is lost: who is on other servers is not known");
  await redis.start();
  await allSee([ann, bob, here, there], back);
  await bob.line("eve: I am eve");
  await allSee([ann, bob, here, there], "* eve is now eve2");
  const [renamed] = [here, there].filter((eve) =>
    eve.lines.all.includes("* eve is taken, you are eve2"),
  );
  renamed!.send("I am eve2 now\n");
  await allSee([ann, bob], "eve2: I am eve2 now");
  using _zoe = await Client.connect(first, "zoe"); // free, although nobody could say so then
  await bob.line("* zoe joined (5 online)");
});

test("Redis was away for long: nobody is said to have left, but those whose server is gone", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  await using third = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  using _eve = await Client.connect(third, "eve");
  await redis.kill();
  await allSee([ann, bob], lost);
  await crash(third);
  await redis.age();
  await redis.start();
  await allSee([ann, bob], back);
  await allSee([ann, bob], "* eve left (their server was lost)");
  const left = [ann, bob].flatMap((client) =>
    client.lines.all.filter((line) => / left/.test(line)),
  );
  expect(left.length).toBe(2);
});

test("Redis is killed in the middle of a write, again and again: nothing is lost or said to be", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  for (const round of [1, 2, 3]) {
    ann.send(`line ${round}\n/nick ann${round}\n`);
    await bob.line(new RegExp(`is now ann${round}$`));
    await redis.kill();
    await redis.tear();
    await allSeeTimes([ann, bob], lost, round);
    await redis.start();
    await allSeeTimes([ann, bob], back, round);
  }
  ann.send("the end\n");
  await bob.line("ann3: the end");
  expect(bob.messages).toEqual(["ann: line 1", "ann1: line 2", "ann2: line 3", "ann3: the end"]);
  expect(bob.lines.all).not.toContain(missing);
});

test("more than is kept while the link is lost: both sides are told how much is missing", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using eve = await Client.connect(first, "eve");
  using bob = await Client.connect(second, "bob");
  await redis.kill();
  await allSee([ann, eve, bob], lost);
  ann.send(numbered(60_000)); // 12 MB
  await allHave([eve], "ann", 60_000);
  await eve.line("* too much waits for the link: other servers miss what is said from now");
  await redis.start();
  const notice = await bob.line(/^\* \d+ lines from server \d+ on \S+ are missing here$/);
  const count = Number(notice.split(" ")[1]);
  await eve.line(`* other servers have missed ${count} lines`);
  await allHave([bob], "ann", 60_000 - count);
  expect(bob.lines.all.findIndex((line) => line === notice)).toBe(
    bob.lines.all.findLastIndex((line) => line.startsWith("ann: ")) + 1,
  );
  ann.send("and on\n");
  await bob.line("ann: and on");
});

test("a stream trimmed before a server came to read it: its room is told", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  second.process.kill("SIGSTOP");
  await until(() => state(second.pid) === "T", "its stop");
  // An entry each: the next is said when the one before is in the stream.
  const length = () =>
    redis.send("XINFO", "STREAM", "pipechat:lobby").then((info) => info["last-generated-id"]);
  for (let n = 0; n < 5; n++) {
    const before = await length();
    ann.send(`lost ${n}\n`);
    while ((await length()) === before) await Bun.sleep(1);
  }
  await redis.send("XTRIM", "pipechat:lobby", "MAXLEN", "2");
  second.process.kill("SIGCONT");
  await bob.line("ann: lost 4");
  const seen = bob.heard.filter((line) => line !== lost && line !== back);
  // The first may have been on its way already: an XREAD waited for it.
  expect(seen.slice(-3)).toEqual([missing, "ann: lost 3", "ann: lost 4"]);
  expect(seen).not.toContain("ann: lost 1");
});

test("a Redis that has forgotten everything: the room is told, and is one again", async () => {
  await using redis = await Redis.start("--appendonly", "no");
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  ann.send("one\n");
  await bob.line("ann: one");
  await redis.kill();
  await allSee([ann, bob], lost);
  await redis.start();
  await allSee([ann, bob], back);
  ann.send("two\n");
  await bob.line("ann: two");
  expect(bob.heard.slice(-2)).toEqual([missing, "ann: two"]);
  using other = await Client.connect(second, "ann");
  expect(other.lines.all[0]).toBe("* ann is taken, you are ann2");
});

test("the stream does not grow for ever", async () => {
  await using redis = await Redis.start("--appendfsync", "no");
  await using first = await startLinked(redis);
  using _ann = await Client.connect(first, "ann");
  const fields = ["from", "x/1/x", "number", "0", "entry", "0", "block", "x\n"];
  const client = new Bun.RedisClient(redis.url, { autoReconnect: false });
  const add = () => client.send("XADD", ["pipechat:lobby", "*", ...fields]);
  await Promise.all(Array.from({ length: 12_000 }, add));
  client.close();
  using _bob = await Client.connect(first, "bob"); // a line, and with it the trimming
  await until(() => first.log.all.some((line) => line.includes("bob joined")), "the line");
  let length = Infinity;
  while ((length = await redis.send("XLEN", "pipechat:lobby")) > 11_000) await Bun.sleep(5);
  expect(length).toBeGreaterThanOrEqual(10_000);
});

test("what no server wrote into the stream is skipped with a line in the log", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  const good = { from: "mars/1/abc", number: "7", entry: "7", block: "* x\n" };
  const foreign = [
    { foo: "bar" },
    { ...good, block: "no end" },
    { ...good, number: "-1" },
    { ...good, number: "1e3" },
    { ...good, entry: "" },
    { ...good, from: "" },
    { from: good.from, number: "7", entry: "7" },
    { "\0": "\x1b[2J" },
  ];
  for (const entry of foreign)
    await redis.send("XADD", "pipechat:lobby", "*", ...Object.entries(entry).flat());
  ann.send("hello\n");
  await bob.line("ann: hello");
  for (const server of [first, second]) {
    const skipped = () => server.log.all.filter((line) => /^skipped \d+-\d+ in /.test(line)).length;
    await until(() => skipped() === foreign.length, "a line in the log for each", skipped);
  }
  expect(heardBy(bob)).toEqual(["ann: hello"]);
});

test("SIGTERM: what was said arrives, the others are told who left, and the names are free", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  ann.send(numbered(5_000));
  await bob.line(/^ann: 10 /);
  expect(await first.stop()).toBe(0);
  await bob.line("* ann left (their server was shut down)");
  await ann.ended();
  expect(ann.lines.all.at(-1)).toBe("* server is shutting down");
  using _new = await Client.connect(second, "ann");
  await bob.line("* ann joined (2 online)");
  expect(await redis.send("ZCARD", "{pipechat:lobby}:servers")).toBe(1);
});

test("SIGTERM while Redis is away: the server ends all the same", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  await redis.kill();
  await ann.line(lost);
  ann.send("unheard\n/help\n");
  await ann.line(/^\* \/who/);
  expect(await first.stop()).toBe(0);
  await first.log.line("the link is lost: other servers miss what was said last");
});

const secret = "s3cret:/@?";
const runServer = (url: string) =>
  run([process.execPath, "server.ts", "--port", "0", "--redis", url]);

test("a password: the right one works, and none is ever printed", async () => {
  await using redis = await Redis.start("--requirepass", secret);
  const url = (password: string) => redis.url.replace("//", `//:${encodeURIComponent(password)}@`);
  await using first = await startServer(["--redis", url(secret)]);
  await using second = await startServer(["--redis", url(secret)]);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  ann.send("hello\n");
  await bob.line("ann: hello");
  await redis.kill();
  await ann.line(lost);
  expect(first.log.all.join("\n")).not.toContain("s3cret");
  await redis.start();
  for (const wrong of [redis.url, url("wr0ng")]) {
    expect(await runServer(wrong)).toEqual({
      code: 1,
      stdout: "",
      stderr: `server.ts: Redis at 127.0.0.1:${redis.port} does not accept the password, or wants one: check --redis\n`,
    });
  }
});

test("a URL that leads nowhere is one clear line", async () => {
  const port = freePort();
  expect(await runServer(`redis://:geheim@127.0.0.1:${port}`)).toEqual({
    code: 1,
    stdout: "",
    stderr: `server.ts: cannot reach Redis at 127.0.0.1:${port}: start it, or check --redis\n`,
  });
  for (const url of ["http://:geheim@127.0.0.1", "geheim", "redis:geheim"]) {
    const { code, stderr } = await runServer(url);
    expect([code, stderr]).toEqual([
      2,
      "server.ts: --redis takes a URL, such as redis://127.0.0.1:6379 (see --help)\n",
    ]);
  }
});

test("a Redis that has room for one of two connections is one clear line", async () => {
  await using redis = await Redis.start("--maxclients", "1");
  const { code, stdout, stderr } = await runServer(redis.url);
  expect([code, stdout, stderr.split("\n").length]).toEqual([1, "", 2]);
  expect(stderr).toMatch(
    /^server\.ts: cannot use Redis at .*: ERR max number of clients reached$/m,
  );
});

test("a user that may not read the stream is one clear line, and appends nothing", async () => {
  await using redis = await Redis.start();
  await redis.send("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "+@all", "-xread");
  const { code, stdout, stderr } = await runServer(redis.url.replace("//", "//deaf:pw@"));
  expect([code, stdout, stderr.split("\n").length]).toEqual([1, "", 2]);
  expect(stderr).toMatch(/^server\.ts: cannot use Redis at .*: NOPERM .*xread/m);
  expect(await redis.send("EXISTS", "pipechat:lobby")).toBe(0);
});

test("a user that may read the stream no more: the link is lost once, and back once", async () => {
  await using redis = await Redis.start();
  await redis.send("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all");
  await using first = await startServer(["--redis", redis.url.replace("//", "//ann:pw@")]);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  await ann.line("* bob joined (2 online)");
  const entries = (await appended(redis)).length;
  await redis.send("CONFIG", "RESETSTAT");
  await redis.send("ACL", "SETUSER", "ann", "-xread");
  await ann.line(lost);
  const rejected = async () => {
    const [, count] = /cmdstat_xread:.*rejected_calls=(\d+)/.exec(
      await redis.send("INFO", "commandstats"),
    )!;
    return Number(count);
  };
  while ((await rejected()) < 5) await Bun.sleep(5); // it was tried again and again
  expect((await appended(redis)).length).toBe(entries);
  await redis.send("ACL", "SETUSER", "ann", "+xread");
  await ann.line(back);
  bob.send("hello\n");
  await ann.line("bob: hello");
  expect(ann.heard.slice(-3)).toEqual([lost, back, "bob: hello"]);
});

test("links that are lost as soon as they are made: few notices, and nothing is appended", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  const monitor = new Bun.RedisClient(redis.url, { autoReconnect: false });
  let entries: string[] = []; // ours, and that ann has joined
  while ((entries = await appended(redis)).length < 2) await Bun.sleep(1);
  for (let cuts = 0; cuts < 6; cuts++) {
    while (!(await monitor.send("CLIENT", ["LIST"])).includes("cmd=eval")) await Bun.sleep(1);
    await monitor.send("CLIENT", ["KILL", "TYPE", "normal"]);
  }
  await ann.lines.count(back, 2); // the first was back at once, and then one that has lasted
  monitor.close();
  expect(noticesTo([ann])).toEqual([lost, back, lost, back]);
  expect(await appended(redis)).toEqual(entries);
});

test("a slow Redis: lines arrive late, and the room is told once, and once that it is quick again", async () => {
  await using redis = await Redis.start();
  await using proxy = await Proxy.start(redis);
  await using second = await startLinked(redis);
  using bob = await Client.connect(second, "bob");
  proxy.delay = 1600; // each way
  await using first = await startLinked(proxy);
  using ann = await Client.connect(first, "ann");
  const slow = "* link to other servers is slow: lines come about 3 s late";
  await ann.line(slow);
  for (const n of [1, 2]) {
    ann.send(`line ${n}\n`);
    bob.send(`line ${n}\n`);
    await Promise.all([bob.line(`ann: line ${n}`), ann.line(`bob: line ${n}`)]);
  }
  proxy.delay = 0;
  await ann.line("* link is quick again");
  expect(noticesTo([ann, bob])).toEqual([slow, "* link is quick again"]);
});

test("a Redis that is too slow to be of use is away: at the start one clear line, then lost and back", async () => {
  await using redis = await Redis.start();
  await using proxy = await Proxy.start(redis);
  await using first = await startLinked(proxy);
  await using second = await startLinked(redis);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  proxy.delay = 4000; // each way
  ann.send("slowly\n");
  const { code, stderr } = await runServer(proxy.url);
  expect([code, stderr]).toEqual([
    1,
    `server.ts: Redis at ${new URL(proxy.url).host} takes more than 4 s to answer: check the way to it, or check --redis\n`,
  ]);
  await ann.line(lost);
  proxy.delay = 0;
  await ann.line(back);
  await bob.line("ann: slowly");
  bob.send("there you are\n");
  await ann.line("bob: there you are");
  expect(noticesTo([ann, bob])).toEqual([lost, back]);
});

test("a cluster: whatever node --redis names, the room is one, also while it moves to others", async () => {
  await using cluster = await Cluster.start();
  const { owner, others } = cluster.parts;
  await using first = await startLinked(others[0]!);
  await using second = await startLinked(others[1]!);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  ann.send(numbered(10_000));
  bob.send(numbered(10_000));
  await bob.line(/^ann: 500 /);
  await cluster.migrate(owner, others[0]!, {});
  ann.send(numbered(10_000, 10_000));
  bob.send(numbered(10_000, 10_000));
  await allHave([bob], "ann", 20_000);
  await allHave([ann], "bob", 20_000);
  expect(noticesTo([ann, bob])).toEqual([]);
});

test("a room whose node is about to give it away: all go on there, and then where it is", async () => {
  await using cluster = await Cluster.start();
  const { owner, others } = cluster.parts;
  await using first = await startLinked(owner);
  await using second = await startLinked(others[0]!);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  const meanwhile = async () => {
    ann.send("where are we?\n"); // all is there already, and the node is not the room's yet
    await bob.line("ann: where are we?");
    bob.send("between two nodes\n");
    await ann.line("bob: between two nodes");
  };
  await cluster.migrate(owner, others[1]!, { meanwhile });
  ann.send("and now?\n");
  await bob.line("ann: and now?");
  expect(noticesTo([ann, bob])).toEqual([]);
});

test("a room that is half on one node and half on another waits, and loses nothing", async () => {
  await using cluster = await Cluster.start();
  const { owner, others } = cluster.parts;
  await using first = await startLinked(owner);
  await using second = await startLinked(others[0]!);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  ann.send("before\n");
  await bob.line("ann: before");
  const meanwhile = async () => {
    ann.send("from ann\n");
    bob.send("from bob\n");
    await allSee([ann, bob], lost);
  };
  await cluster.migrate(owner, others[1]!, { first: ["pipechat:lobby"], meanwhile });
  await allSee([ann, bob], back);
  await ann.line("bob: from bob");
  await bob.line("ann: from ann");
  ann.send("after\n");
  await bob.line("ann: after");
  expect(bob.messages).toEqual(["ann: before", "ann: from ann", "ann: after"]);
  expect(ann.messages).toEqual(["bob: from bob"]);
  expect(bob.lines.all).not.toContain(missing);
});

test("a cluster's node is killed, the one that --redis names: its replica takes over", async () => {
  await using cluster = await Cluster.start();
  const { owner, others } = cluster.parts;
  const replica = await cluster.replicate(owner);
  await using first = await startLinked(owner);
  await using second = await startLinked(others[0]!);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  await ann.line("* bob joined (2 online)");
  await owner.send("WAIT", "1", "0");
  await owner.kill();
  await allSee([ann, bob], lost);
  ann.send("meanwhile\n");
  await replica.send("CLUSTER", "FAILOVER", "TAKEOVER");
  await allSee([ann, bob], back);
  await bob.line("ann: meanwhile");
  bob.send("back\n");
  await ann.line("bob: back");

  // The old one comes back as a replica, and is made master again: nobody need know.
  await owner.start();
  await cluster.hasReplica(owner);
  await owner.send("CLUSTER", "FAILOVER");
  await cluster.hasReplica(replica);
  ann.send("again\n");
  await bob.line("ann: again");
  bob.send("again\n");
  await ann.line("bob: again");
  expect(noticesTo([ann, bob])).toEqual([lost, back, lost, back]);
});

test("a replica that is promoted late, and lacks what was said last: the room is told, and goes on", async () => {
  await using master = await Redis.start();
  await using replica = await Redis.start("--replicaof", `127.0.0.1 ${master.port}`);
  await using proxy = await Proxy.start(master);
  await using first = await startLinked(proxy);
  await using second = await startLinked(proxy);
  using ann = await Client.connect(first, "ann");
  using bob = await Client.connect(second, "bob");
  ann.send("one\n");
  await bob.line("ann: one");
  while ((await replica.send("XLEN", "pipechat:lobby")) < 3) await Bun.sleep(5);
  await master.send("WAIT", "1", "0");
  await replica.send("REPLICAOF", "127.0.0.1", String(freePort())); // nobody is there
  await master.send("XADD", "pipechat:lobby", "99999999999999-0", "a clock", "far ahead");
  ann.send("two\n");
  await bob.line("ann: two");
  await master.kill();
  await allSee([ann, bob], lost);
  proxy.turn(replica);
  const refused = async () =>
    /errorstat_READONLY:count=(\d+)/.exec(await replica.send("INFO", "errorstats"))?.[1] ?? 0;
  while (Number(await refused()) < 3) await Bun.sleep(5);
  await replica.send("REPLICAOF", "NO", "ONE");
  await allSee([ann, bob], back);
  ann.send("three\n");
  await bob.line("ann: three");
  expect(bob.messages).toEqual(["ann: one", "ann: two", "ann: three"]);
  expect(bob.lines.all).toContain(missing);
});

test("a key of the room that is something else is one clear line", async () => {
  await using redis = await Redis.start();
  await redis.send("SET", "pipechat:lobby", "mine");
  const { code, stderr } = await runServer(redis.url);
  expect([code, stderr.split("\n").length]).toEqual([1, 2]);
  expect(stderr).toContain("WRONGTYPE");
});

test("rediss:// is encrypted, and refuses a certificate of nobody", async () => {
  const port = freePort();
  const tls = ["--tls-port", String(port), "--tls-auth-clients", "no"];
  tls.push("--tls-cert-file", certificate("localhost.pem"));
  tls.push("--tls-key-file", certificate("localhost.key"));
  await using _redis = await Redis.start(...tls);
  const url = `rediss://127.0.0.1:${port}`;
  const { code, stderr } = await runServer(url);
  expect([code, stderr]).toEqual([
    1,
    `server.ts: cannot use Redis at 127.0.0.1:${port}: unable to verify the first certificate\n`,
  ]);
  const child = Bun.spawn([process.execPath, "server.ts", "--port", "0", "--redis", url], {
    cwd: root,
    env: { ...process.env, NODE_EXTRA_CA_CERTS: certificate("ca.pem") },
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await watchServer(child);
  using ann = await Client.connect(server, "ann");
  ann.send("/who\n");
  await ann.line(/this one:$/);
});
