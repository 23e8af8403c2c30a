/** Servers that share a room, with real servers and a real Redis: what people see, and what can go wrong. */
import { expect } from "bun:test";
import { openLink } from "../parts/redis/link.ts";
import { timing } from "../parts/redis/timing.ts";
import { allHave, certificate, Client, freePort, long, numbered, run } from "./helpers.ts";
import { startServer, state, until } from "./helpers.ts";
import { allSee, heardBy, lost, noticesTo, Redis } from "./redis-server.ts";
import { roomSharer, startLinked, test } from "./redis-server.ts";

const enterRoom = roomSharer();

test("three servers are one room: all see the same, in order, and who leaves with their server", async (stack) => {
  const { redis, first, second, ann, bob } = await enterRoom(stack);
  const third = stack.use(await startLinked(redis));
  const carl = stack.use(await Client.connect(third, "carl"));
  await allSee([ann, bob], "* carl joined (3 online)");
  ann.send("/who\n");
  await ann.line(/^\* try/);
  const who = ann.lines.all.slice(ann.lines.all.indexOf("* 3 online:")).join("\n");
  const here = `server ${first.pid} on \\S+, this one:\n\\* ann .* down\\), you$`;
  expect(who).toMatch(new RegExp(here, "m"));
  for (const [server, name] of [[second, "bob"] as const, [third, "carl"] as const]) {
    const there = `server ${server.pid} on \\S+:\n\\* ${name} \\(worker ${await server.worker(name)}\\)$`;
    expect(who).toMatch(new RegExp(there, "m"));
  }
  await redis.send("XADD", "pipechat:lobby", "*", "\0", "\x1b[2J"); // no server has written it
  const text = "\ufeff é e\u0301 😀👩‍👩‍👧 \t \ufffd \uffff \u{10ffff} %s $1 \\n\\0 '\" *3\\r\\n$4";
  ann.send(`${text}\n${"😀".repeat(1000)}\n/nick eve\nafter\n`);
  const said = [`ann: ${text}`, `ann: ${"😀".repeat(1000)}`, "* ann is now eve", "eve: after"];
  await allSee([bob, carl], "eve: after");
  for (const client of [bob, carl]) expect(heardBy(client)).toEqual(said);

  carl.send(numbered(5000));
  await bob.line(/^carl: 10 /);
  expect(await third.stop()).toBe(0);
  await allSee([ann, bob], "* carl left (their server was shut down)");
  expect(ann.messages).toEqual(bob.messages.filter((line) => line.startsWith("carl: ")));
  await carl.ended();
  expect(carl.lines.all.at(-1)).toBe("* server is shutting down");
  bob.send("/nick carl\n");
  await ann.line("* bob is now carl");
  expect(await redis.send("ZCARD", "{pipechat:lobby}:servers")).toBe(2);
});

test("a name is one person's on all servers, in any case, and free when they leave", async (stack) => {
  const { second, ann, bob } = await enterRoom(stack);
  const other = stack.use(await Client.connect(second, "ＡNN"));
  expect(other.lines.all[0]).toBe("* ＡNN is taken, you are ＡNN2");
  for (const name of ["star", "moon"]) {
    for (const client of [ann, bob, other]) client.send(`/nick ${name}\n`); // all at once
    const renamed = new RegExp(` is now ${name}\\d?$`);
    await allSee([ann, bob, other], renamed, 3);
    const names = bob.lines.all.filter((line) => renamed.test(line)).map((line) => line.slice(-5));
    expect(names.sort()).toEqual([`${name}2`, `${name}3`, ` ${name}`].sort());
  }
  ann.send("/nick eve\n");
  await other.line(/ is now eve$/);
  other.send("/nick Ann\n/nick Eve\n");
  await allSee([ann, other], "* Ann is now Eve2");
  ann.send("/nick EVE\n"); // which is its own
  await other.line("* eve is now EVE");
  await ann.end();
  await other.line("* EVE left");
  other.send("/nick eve\n");
  await other.line("* Eve2 is now eve");
});

test("another room hears nothing, trims its stream, waits for Redis to give a name, and ends without it", async (stack) => {
  const { redis, ann, bob } = await enterRoom(stack);
  const fill = "for n = 1, 12000 do redis.call('XADD', 'pipechat:other', '*', 'x', 'x') end";
  await redis.send("EVAL", fill, "0");
  await redis.send("ACL", "SETUSER", "dora", "on", ">pw", "~*", "+@all");
  const url = redis.url.replace("//", "//dora:pw@");
  const args = ["--room", "other", "--join-timeout", "1"];
  const server = stack.use(await startLinked({ url }, {}, ...args));
  const dora = stack.use(await Client.connect(server, "ann"));
  await redis.until((length) => Number(length) <= 11_000, "XLEN", "pipechat:other");
  expect(await redis.send("XLEN", "pipechat:other")).toBeGreaterThanOrEqual(10_000);
  ann.send("hello\n");
  await bob.line("ann: hello");
  redis.signal("SIGSTOP");
  const eve = stack.use(await Client.connect(server));
  eve.send("eve\n");
  const silent = stack.use(await Client.connect(server));
  await silent.ended(); // so the time is over for both
  redis.signal("SIGCONT");
  await eve.line(/^\* welcome eve/);
  await redis.send("ACL", "DELUSER", "dora"); // cuts its link
  await dora.line(lost);
  dora.send("unheard\n/who\n");
  await dora.line(/^\* try/);
  expect(dora.messages).toEqual([]);
  expect(await server.stop()).toBe(0);
  await server.log.line("the link is lost: other servers miss what was said last");
});

test("a flood waits for Redis and for a slow server, and nothing is lost", async (stack) => {
  const { redis, second, ann, bob } = await enterRoom(stack);
  const before = await redis.send("XLEN", "pipechat:lobby");
  bob.send(numbered(500, 0, long));
  await ann.line(/^bob: 50 /);
  second.process.kill("SIGSTOP");
  await until(() => state(second.pid) === "T", "its stop");
  await redis.send("CLIENT", "PAUSE", "1500", "WRITE");
  ann.send(numbered(4500, 0, long)); // 9 MB, and 8 MiB may wait
  await redis.until((now) => Number(now) > before + 40, "XLEN", "pipechat:lobby");
  second.process.kill("SIGCONT");
  await allHave([bob], "ann", 4500, long);
  await allHave([ann], "bob", 500, long);
  expect(noticesTo([ann, bob]).filter((line) => line.includes("miss"))).toEqual([]);
});

/** Waits until a link is refused, and compares why. */
async function refused(url: string, reason: string | RegExp): Promise<void> {
  await expect(openLink(url, "lobby")).rejects.toThrow(reason);
}

test("a Redis that cannot be used is one clear line, and nothing is appended", async (stack) => {
  const redis = stack.use(await Redis.start());
  const { port, url } = redis;
  for (const command of ["xread", "xadd"]) {
    await redis.send("ACL", "SETUSER", "bob", "reset", "on", ">pw", "~*", "+@all", `-${command}`);
    const denied = /^cannot use .*(NOPERM|can't run this command|ACL failure)/;
    await refused(url.replace("//", "//bob:pw@"), denied);
  }
  expect(await redis.send("EXISTS", "pipechat:lobby")).toBe(0);
  await redis.send("SET", "pipechat:lobby", "mine");
  await refused(url, "WRONGTYPE");
  await redis.send("DEL", "pipechat:lobby");
  await redis.send("CONFIG", "SET", "maxclients", "1"); // and we need two connections
  await refused(url, /^cannot use .*: ERR max number of clients reached$/);
  redis.signal("SIGSTOP");
  const { maxRoundTrip } = timing;
  timing.maxRoundTrip = 200;
  const silent = `Redis at 127.0.0.1:${port} takes more than 0.2 s to answer: check the way to it, or`;
  await refused(url, silent).finally(() => (timing.maxRoundTrip = maxRoundTrip));
});

test("a password works with rediss://, and is never printed, as those that do not work", async (stack) => {
  const port = freePort();
  const tls = ["--tls-port", `${port}`, "--tls-auth-clients", "no"];
  tls.push("--tls-cert-file", certificate("localhost.pem"));
  tls.push("--tls-key-file", certificate("localhost.key"));
  const redis = stack.use(await Redis.start("--requirepass", "s3cret:/@?", ...tls));
  const url = `rediss://:${encodeURIComponent("s3cret:/@?")}@127.0.0.1:${port}`;
  const place = (port: number) => `Redis at 127.0.0.1:${port}`;
  await refused(url, `cannot use ${place(port)}: unable to verify the first certificate`);
  const denied = `${place(redis.port)} does not accept the password, or wants one: check --redis`;
  await refused(redis.url, denied);
  const wanted = "--redis takes a URL, such as redis://127.0.0.1:6379 (see --help)";
  for (const [wrong, code, line] of [
    [redis.url.replace("//", "//:wr0ng@"), 1, denied],
    ["redis:wr0ng", 2, wanted],
  ] as const) {
    const command = [process.execPath, "server.ts", "--port", "0", "--redis", wrong];
    expect(await run(command)).toEqual({ code, stdout: "", stderr: `server.ts: ${line}\n` });
  }
  const env = { NODE_EXTRA_CA_CERTS: certificate("ca.pem") };
  const server = stack.use(await startServer(["--redis", url], { env }));
  const ann = stack.use(await Client.connect(server, "ann"));
  ann.send("/who\n");
  await ann.line(/this one:$/);
  await redis.kill();
  await ann.line(lost);
  expect(server.log.all.join("\n")).not.toContain("s3cret");
  await refused(url, `cannot reach ${place(port)}: start it, or check --redis`);
});
