/** Servers that share a room, with real servers and a real Redis: what people see when all is well. */
import { expect } from "bun:test";
import {
  allHave,
  certificate,
  Client,
  freePort,
  long,
  numbered,
  run,
  startServer,
} from "./helpers.ts";
import { state, until, within } from "./helpers.ts";
import { allSee, enterPair, hasty, heardBy, lost, missing, openRoom } from "./redis-server.ts";
import { roomSharer, startTwo, Proxy, Redis, startLinked, test } from "./redis-server.ts";

const enterRoom = roomSharer();

test("three servers are one room: all see the same, in order, and another room nothing", async (stack) => {
  const { redis, first, second, ann, bob } = await enterRoom(stack);
  const third = stack.use(await startLinked(redis));
  const elsewhere = stack.use(await startLinked(redis, {}, "--room", "other"));
  const carl = stack.use(await Client.connect(third, "carl"));
  const dora = stack.use(await Client.connect(elsewhere, "dora"));
  await allSee([ann, bob], "* carl joined (3 online)");
  ann.send("/who\n");
  await ann.line(/^\* try/);
  const who = ann.lines.all.slice(ann.lines.all.indexOf("* 3 online:")).join("\n");
  expect(who).toMatch(
    new RegExp(`server ${first.pid} on \\S+, this one:\n\\* ann .* down\\), you$`, "m"),
  );
  for (const [{ pid }, name, worker] of [
    [second, "bob", await second.worker("bob")],
    [third, "carl", await third.worker("carl")],
  ] as const)
    expect(who).toMatch(
      new RegExp(`server ${pid} on \\S+:\n\\* ${name} \\(worker ${worker}\\)$`, "m"),
    );
  await redis.send("XADD", "pipechat:lobby", "*", "\0", "\x1b[2J"); // no server has written it
  const text = "\ufeff é e\u0301 😀👩‍👩‍👧 \t \ufffd \uffff \u{10ffff} %s $1 \\n\\0 '\" *3\\r\\n$4";
  ann.send(`${text}\n${"😀".repeat(1000)}\n/nick eve\nafter\n/quit\n`);
  await allSee([bob, carl], "* eve left");
  bob.send("she is gone\n");
  await carl.line("bob: she is gone");
  const said = [`ann: ${text}`, `ann: ${"😀".repeat(1000)}`];
  const seen = [...said, "* ann is now eve", "eve: after", "* eve left"];
  expect(heardBy(bob)).toEqual(seen);
  expect(heardBy(carl)).toEqual([...seen, "bob: she is gone"]);
  expect(heardBy(dora)).toEqual([]);
});

test("a name that someone has on another server, in any case, gets a number, and is free when they leave", async (stack) => {
  const { second, ann } = await enterRoom(stack);
  const other = stack.use(await Client.connect(second, "ＡNN"));
  expect(other.lines.all[0]).toBe("* ＡNN is taken, you are ＡNN2");
  ann.send("/nick eve\n");
  await other.line("* ann is now eve");
  other.send("/nick Ann\n/nick Eve\n");
  await allSee([ann, other], "* Ann is now Eve2");
  ann.send("/nick EVE\n"); // which is its own
  await other.line("* eve is now EVE");
  await ann.end();
  await other.line("* EVE left");
  other.send("/nick eve\n");
  await other.line("* Eve2 is now eve");
});

test("a client whose name another server has taken gets another, whatever happens meanwhile", async (stack) => {
  const redis = stack.use(await Redis.start());
  const proxy = stack.use(await Proxy.start(redis));
  const first = stack.use(await startLinked(proxy, hasty, "--spares", "1"));
  const second = stack.use(await startLinked(redis, hasty));
  const { ann, bob } = await enterPair(stack, first, second);
  /** Gives a name to a server that is not there, and waits until the first one asks for `key`. */
  const take = async (name: string, key: string) => {
    const asked = Promise.withResolvers<void>();
    const [owner, pid] = ["mars/5/abc", "5"];
    await redis.send("HSET", "{pipechat:lobby}:names", name, `${owner} ${name} ${pid}`);
    proxy.onSent = (data) => void (data.includes(`\r\n${key}\r\n`) && asked.resolve());
    await within(asked.promise, `a claim of ${key}`);
  };
  proxy.delay = 100; // each way
  await take("ann", "ann"); // it finds that ann is taken, and says so on its way back
  ann.send("/nick eve\nfirst\n");
  await bob.line("eve: first");
  await take("eve", "eve2"); // its server gets it another name
  ann.send("/nick zoe\nsecond\n");
  await bob.line("zoe: second");
  proxy.delay = 0;
  const served = await first.worker("ann");
  const [spare] = first.workers().filter((pid) => pid !== served);
  process.kill(spare!, "SIGSTOP"); // the next one to serve zoe
  process.kill(served, "SIGKILL");
  await take("zoe", "zoe2");
  await bob.line("* zoe is now zoe2");
  process.kill(spare!, "SIGCONT");
  await bob.line(/^\* worker \d+ of zoe2 was killed/);
  ann.send("third\n");
  await bob.line("zoe2: third");
  expect(heardBy(bob).filter((line) => !line.startsWith("* worker"))).toEqual([
    "* ann is now eve",
    "eve: first",
    "* eve is now eve2",
    "* eve2 is now zoe",
    "zoe: second",
    "* zoe is now zoe2",
    "zoe2: third",
  ]);
});

test("a name that was sent in time counts, however long Redis takes to give it", async (stack) => {
  const redis = stack.use(await Redis.start());
  const server = stack.use(await startLinked(redis, {}, "--join-timeout", "1"));
  const ann = stack.use(await Client.connect(server));
  redis.signal("SIGSTOP");
  ann.send("ann\n");
  const silent = stack.use(await Client.connect(server));
  await silent.ended(); // so the time is over for both
  redis.signal("SIGCONT");
  await ann.line(/^\* welcome ann/);
});

test("10 people on two servers want one name at once: one gets it, the others a number each", async (stack) => {
  const { first, second } = await enterRoom(stack);
  const numbers = Array.from({ length: 10 }, (_, n) => n + 1);
  const clients = await Promise.all(
    numbers.map(async (n) => stack.use(await Client.connect(n % 2 ? first : second, `p${n}`))),
  );
  for (const client of clients) client.send("/nick star\n");
  await allSee(clients, / is now /, 10);
  const renamed = clients[0]!.lines.all.filter((line) => line.includes(" is now "));
  const names = renamed.map((line) => line.split(" ").at(-1)!);
  expect(names.sort()).toEqual(numbers.map((n) => (n === 1 ? "star" : `star${n}`)).sort());
});

test("a slow server loses nothing", async (stack) => {
  const { second, ann, bob } = await enterRoom(stack);
  ann.send(numbered(1000, 0, long));
  bob.send(numbered(1000, 0, long));
  await bob.line(/^ann: 50 /);
  second.process.kill("SIGSTOP");
  await until(() => state(second.pid) === "T", "its stop");
  ann.send(numbered(1000, 1000, long));
  ann.send("/who\n"); // answered when all of it is appended here
  await ann.line(/online:$/);
  second.process.kill("SIGCONT");
  await allHave([bob], "ann", 2000, long);
  await allHave([ann], "bob", 1000, long);
  expect(bob.lines.all).not.toContain(missing);
});

test("a flood that is faster than Redis waits for it, and nothing is lost", async (stack) => {
  const { redis, ann, bob } = await enterRoom(stack);
  await redis.send("CLIENT", "PAUSE", "1500", "WRITE");
  ann.send(numbered(4500, 0, long)); // 9 MB, and 8 MiB may wait
  await allHave([bob], "ann", 4500, long);
  expect(ann.heard).toEqual(["* bob joined (2 online)"]);
});

test("the stream does not grow for ever", async (stack) => {
  const redis = stack.use(await Redis.start("--appendfsync", "no"));
  const first = stack.use(await startLinked(redis));
  const fields = ["from", "x/1/x", "number", "0", "block", "x\n"];
  const client = new Bun.RedisClient(redis.url, { autoReconnect: false });
  const add = () => client.send("XADD", ["pipechat:lobby", "*", ...fields]);
  await Promise.all(Array.from({ length: 12_000 }, add));
  client.close();
  stack.use(await Client.connect(first, "bob")); // a line, and with it the trimming
  await redis.until((length) => Number(length) <= 11_000, "XLEN", "pipechat:lobby");
  expect(await redis.send("XLEN", "pipechat:lobby")).toBeGreaterThanOrEqual(10_000);
});

test("SIGTERM: what was said arrives, the others are told who left, and the names are free", async (stack) => {
  const { redis, first, second, ann, bob } = await openRoom(stack);
  ann.send(numbered(5_000));
  await bob.line(/^ann: 10 /);
  expect(await first.stop()).toBe(0);
  await bob.line("* ann left (their server was shut down)");
  await ann.ended();
  expect(ann.lines.all.at(-1)).toBe("* server is shutting down");
  stack.use(await Client.connect(second, "ann"));
  await bob.line("* ann joined (2 online)");
  expect(await redis.send("ZCARD", "{pipechat:lobby}:servers")).toBe(1);
});

/** Starts a server that cannot use this Redis; gives its exit code and the only line that it prints. */
async function refusal(url: string): Promise<[code: number, line: string]> {
  const server = [process.execPath, "server.ts", "--port", "0", "--redis", url];
  const { code, stdout, stderr } = await run(server);
  expect([stdout, stderr]).toEqual(["", expect.stringMatching(/^server\.ts: .*\n$/)]);
  return [code, stderr.slice("server.ts: ".length, -1)];
}

const secret = "s3cret:/@?";

test("a password: the right one works, and none is ever printed", async (stack) => {
  const redis = stack.use(await Redis.start("--requirepass", secret));
  const url = (password: string) => redis.url.replace("//", `//:${encodeURIComponent(password)}@`);
  const right = { url: url(secret) };
  const { first, ann, bob } = await startTwo(stack, right, right);
  ann.send("hello\n");
  await bob.line("ann: hello");
  await redis.kill();
  await ann.line(lost);
  expect(first.log.all.join("\n")).not.toContain("s3cret");
  await redis.start();
  const reason = `Redis at 127.0.0.1:${redis.port} does not accept the password, or wants one: check --redis`;
  for (const wrong of [redis.url, url("wr0ng")]) expect(await refusal(wrong)).toEqual([1, reason]);
});

test("a URL that leads nowhere is one clear line, without its password", async () => {
  const port = freePort();
  const reason = `cannot reach Redis at 127.0.0.1:${port}: start it, or check --redis`;
  expect(await refusal(`redis://:geheim@127.0.0.1:${port}`)).toEqual([1, reason]);
  const wanted = "--redis takes a URL, such as redis://127.0.0.1:6379 (see --help)";
  for (const url of ["http://:geheim@127.0.0.1", "geheim", "redis:geheim"])
    expect(await refusal(url)).toEqual([2, wanted]);
});

test("a Redis that cannot be used is one clear line, and nothing is appended", async (stack) => {
  const small = stack.use(await Redis.start("--maxclients", "1")); // and we need two connections
  expect((await refusal(small.url))[1]).toMatch(
    /^cannot use .*: ERR max number of clients reached$/,
  );
  const redis = stack.use(await Redis.start());
  for (const command of ["xread", "xadd"]) {
    await redis.send("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all", `-${command}`);
    const [, reason] = await refusal(redis.url.replace("//", "//ann:pw@"));
    expect(reason).toMatch(/^cannot use .*(NOPERM|can't run this command|ACL failure)/);
  }
  expect(await redis.send("EXISTS", "pipechat:lobby")).toBe(0);
  await redis.send("SET", "pipechat:lobby", "mine");
  expect((await refusal(redis.url))[1]).toContain("WRONGTYPE");
});

test("rediss:// is encrypted, and refuses a certificate of nobody", async (stack) => {
  const port = freePort();
  const tls = ["--tls-port", String(port), "--tls-auth-clients", "no"];
  tls.push("--tls-cert-file", certificate("localhost.pem"));
  tls.push("--tls-key-file", certificate("localhost.key"));
  stack.use(await Redis.start(...tls));
  const url = `rediss://127.0.0.1:${port}`;
  const reason = `cannot use Redis at 127.0.0.1:${port}: unable to verify the first certificate`;
  expect(await refusal(url)).toEqual([1, reason]);
  const env = { NODE_EXTRA_CA_CERTS: certificate("ca.pem") };
  const server = stack.use(await startServer(["--redis", url], { env }));
  const ann = stack.use(await Client.connect(server, "ann"));
  ann.send("/who\n");
  await ann.line(/this one:$/);
});
