/** Servers that share a room, with real servers and a real Redis: what people see when all is well. */
import { expect } from "bun:test";
import {
  allHave,
  certificate,
  Client,
  freePort,
  numbered,
  run,
  startServer,
  state,
  until,
} from "./helpers.ts";
import {
  allSee,
  heardBy,
  lost,
  missing,
  openRoom,
  startTwo,
  Redis,
  startLinked,
  test,
} from "./redis-server.ts";

test("three servers are one room: all see the same, in order, and another room nothing", async (stack) => {
  const { redis, ann, bob } = await openRoom(stack);
  await using third = await startLinked(redis);
  await using elsewhere = await startLinked(redis, {}, "--room", "other");
  using carl = await Client.connect(third, "carl");
  using dora = await Client.connect(elsewhere, "dora");
  await allSee([ann, bob], "* carl joined (3 online)");
  ann.send("before\n/nick eve\nafter\n/quit\n");
  await allSee([bob, carl], "* eve left");
  bob.send("she is gone\n");
  await carl.line("bob: she is gone");
  const seen = ["ann: before", "* ann is now eve", "eve: after", "* eve left"];
  expect(heardBy(bob)).toEqual(seen);
  expect(heardBy(carl)).toEqual([...seen, "bob: she is gone"]);
  expect(heardBy(dora)).toEqual([]);
});

test("/who shows everyone, grouped by server", async (stack) => {
  const { first, second, ann } = await openRoom(stack);
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

test("a name that someone has on another server gets a number, and is free when they leave", async (stack) => {
  const { second, ann } = await openRoom(stack);
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
  await using server = await startLinked(redis, {}, "--join-timeout", "1");
  using ann = await Client.connect(server);
  redis.signal("SIGSTOP");
  ann.send("ann\n");
  using silent = await Client.connect(server);
  await silent.ended(); // so the time is over for both
  redis.signal("SIGCONT");
  await ann.line(/^\* welcome ann/);
});

test("30 people on two servers want one name at once: one gets it, the others a number each", async () => {
  await using redis = await Redis.start();
  await using first = await startLinked(redis);
  await using second = await startLinked(redis);
  const numbers = Array.from({ length: 30 }, (_, n) => n + 1);
  const clients = await Promise.all(
    numbers.map((n) => Client.connect(n % 2 ? first : second, `p${n}`)),
  );
  for (const client of clients) client.send("/nick star\n");
  await allSee(clients, / is now /, 30);
  const renamed = clients[0]!.lines.all.filter((line) => line.includes(" is now "));
  const names = renamed.map((line) => line.split(" ").at(-1)!);
  expect(names.sort()).toEqual(numbers.map((n) => (n === 1 ? "star" : `star${n}`)).sort());
  for (const client of clients) client[Symbol.dispose]();
});

test("whatever a line holds, it arrives byte for byte", async (stack) => {
  const { ann, bob } = await openRoom(stack);
  const text = "\ufeff é e\u0301 😀👩‍👩‍👧 \t \ufffd \uffff \u{10ffff} %s $1 \\n\\0 '\" *3\\r\\n$4";
  ann.send(`${text}\n${"😀".repeat(1000)}\n`);
  await bob.line(`ann: ${"😀".repeat(1000)}`);
  expect(bob.messages[0]).toBe(`ann: ${text}`);
});

test("a slow server loses nothing", async (stack) => {
  const { second, ann, bob } = await openRoom(stack);
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

test("a flood that is faster than Redis waits for it, and nothing is lost", async (stack) => {
  const { redis, ann, bob } = await openRoom(stack);
  const client = new Bun.RedisClient(redis.url, { autoReconnect: false });
  const pause = () => client.send("CLIENT", ["PAUSE", "100", "WRITE"]).catch(() => {});
  const clock = setInterval(pause, 150); // two thirds of the time Redis takes no writes
  ann.send(numbered(60_000)); // 12 MB, and 8 MiB may wait
  await allHave([bob], "ann", 60_000);
  clearInterval(clock);
  client.close();
  expect(ann.heard).toEqual(["* bob joined (2 online)"]);
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
  await redis.until((length) => Number(length) <= 11_000, "XLEN", "pipechat:lobby");
  expect(await redis.send("XLEN", "pipechat:lobby")).toBeGreaterThanOrEqual(10_000);
});

test("what no server wrote into the stream is skipped with a line in the log", async (stack) => {
  const { redis, first, second, ann, bob } = await openRoom(stack);
  await redis.send("XADD", "pipechat:lobby", "*", "\0", "\x1b[2J");
  await redis.send("XADD", "pipechat:lobby", "*", "from", "mars/1/abc", "block", "* x\n");
  ann.send("hello\n");
  await bob.line("ann: hello");
  for (const { log } of [first, second])
    await log.count(/^skipped \d+-\d+ in the stream of lobby: no server wrote it$/, 2);
  expect(heardBy(bob)).toEqual(["ann: hello"]);
});

test("SIGTERM: what was said arrives, the others are told who left, and the names are free", async (stack) => {
  const { redis, first, second, ann, bob } = await openRoom(stack);
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

test("a Redis that cannot be used is one clear line, and nothing is appended", async () => {
  await using small = await Redis.start("--maxclients", "1"); // and we need two connections
  expect((await refusal(small.url))[1]).toMatch(
    /^cannot use .*: ERR max number of clients reached$/,
  );
  await using redis = await Redis.start();
  for (const command of ["xread", "xadd"]) {
    await redis.send("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all", `-${command}`);
    const [, reason] = await refusal(redis.url.replace("//", "//ann:pw@"));
    expect(reason).toMatch(/^cannot use .*(NOPERM|can't run this command|ACL failure)/);
  }
  expect(await redis.send("EXISTS", "pipechat:lobby")).toBe(0);
  await redis.send("SET", "pipechat:lobby", "mine");
  expect((await refusal(redis.url))[1]).toContain("WRONGTYPE");
});

test("rediss:// is encrypted, and refuses a certificate of nobody", async () => {
  const port = freePort();
  const tls = ["--tls-port", String(port), "--tls-auth-clients", "no"];
  tls.push("--tls-cert-file", certificate("localhost.pem"));
  tls.push("--tls-key-file", certificate("localhost.key"));
  await using _redis = await Redis.start(...tls);
  const url = `rediss://127.0.0.1:${port}`;
  const reason = `cannot use Redis at 127.0.0.1:${port}: unable to verify the first certificate`;
  expect(await refusal(url)).toEqual([1, reason]);
  const env = { NODE_EXTRA_CA_CERTS: certificate("ca.pem") };
  await using server = await startServer(["--redis", url], { env });
  using ann = await Client.connect(server, "ann");
  ann.send("/who\n");
  await ann.line(/this one:$/);
});
