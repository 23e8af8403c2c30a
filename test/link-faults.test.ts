/** Servers that share a room: one is lost, or the link to Redis is slow, refused or cut. */
import { expect } from "bun:test";
import { Client } from "./helpers.ts";
import { allSee, back, crash, hasty, heardBy, lost, noticesTo, openRoom } from "./redis-server.ts";
import { Proxy, Redis, startLinked, startTwo, test } from "./redis-server.ts";

test("a server is killed, another stopped for long: all are told who left, and who is back with it", async (stack) => {
  const { redis, first, second, ann, bob } = await openRoom(stack, hasty);
  const third = stack.use(await startLinked(redis, hasty));
  const carl = stack.use(await Client.connect(second, "carl"));
  const witness = stack.use(
    await Client.connect(stack.use(await startLinked(redis, hasty)), "wim"),
  );
  stack.use(await Client.connect(third, "eve"));
  stack.use(await Client.connect(third, "zoe"));
  await allSee([ann, bob, witness], / joined \(6 online\)$/);
  await crash(third);
  second.process.kill("SIGSTOP");
  for (const name of ["eve", "zoe", "bob", "carl"])
    await allSee([ann, witness], `* ${name} left (their server was lost)`);
  const heir = stack.use(await Client.connect(first, "bob"));
  heir.send("while you slept\n");
  await ann.line("bob: while you slept");
  second.process.kill("SIGCONT");
  await ann.line("* carl joined (their server is back)");
  await bob.line("* bob is taken, you are bob2");
  await allSee([ann, carl], "* bob is now bob2");
  await allSee([bob, carl], "bob: while you slept");
  bob.send("awake\n");
  await allSee([ann, heir, carl], "bob2: awake");
  const left = (client: Client) => client.lines.all.filter((line) => line.includes(" left")).length;
  expect([ann, witness, bob].map(left)).toEqual([4, 4, 2]); // once, though two servers noticed
});

test("Redis was away for long: nobody is said to have left, but those whose server is gone", async (stack) => {
  const { redis, ann, bob } = await openRoom(stack, hasty);
  const third = stack.use(await startLinked(redis, hasty));
  stack.use(await Client.connect(third, "eve"));
  await redis.kill();
  await allSee([ann, bob], lost);
  await crash(third);
  await redis.age();
  await redis.start();
  await allSee([ann, bob], back);
  await allSee([ann, bob], "* eve left (their server was lost)");
  expect([...ann.heard, ...bob.heard].filter((line) => / left/.test(line)).length).toBe(2);
});

test("a user that may read the stream no more: the link is lost once, and back once", async (stack) => {
  const redis = stack.use(await Redis.start());
  await redis.send("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all");
  const { ann, bob } = await startTwo(
    stack,
    { url: redis.url.replace("//", "//ann:pw@") },
    redis,
    hasty,
  );
  const entries = await redis.appended();
  await redis.send("CONFIG", "RESETSTAT");
  await redis.send("ACL", "SETUSER", "ann", "-xread");
  await ann.line(lost);
  const rejected = /cmdstat_xread:.*rejected_calls=([5-9]|\d\d)/; // it was tried again and again
  await redis.until((stats) => rejected.test(stats), "INFO", "commandstats");
  expect(await redis.appended()).toEqual(entries);
  await redis.send("ACL", "SETUSER", "ann", "+xread");
  await ann.line(back);
  bob.send("hello\n");
  await ann.line("bob: hello");
  expect(ann.heard.slice(-3)).toEqual([lost, back, "bob: hello"]);
});

test("a link that is cut and made again at once: nobody need know, and nothing is lost", async (stack) => {
  const { redis, ann, bob } = await openRoom(stack, hasty);
  const monitor = new Bun.RedisClient(redis.url, { autoReconnect: false });
  for (let cut = 0; cut < 4; cut++) {
    ann.send(`${cut}\n`);
    await redis.until((list) => list.split(" flags=b ").length === 3, "CLIENT", "LIST"); // both wait for entries
    await monitor.send("CLIENT", ["KILL", "TYPE", "normal"]);
  }
  monitor.close();
  await bob.line("ann: 3");
  expect(heardBy(bob)).toEqual(["ann: 0", "ann: 1", "ann: 2", "ann: 3"]);
  expect(noticesTo([ann])).toEqual([]);
});

test("a slow Redis: lines arrive late, and the room is told once; one that is too slow is away", async (stack) => {
  const redis = stack.use(await Redis.start());
  const proxy = stack.use(await Proxy.start(redis));
  const { ann, bob } = await startTwo(stack, proxy, redis, hasty);
  const hello = async (text: string) => {
    for (const client of [ann, bob]) client.send(`${text}\n`);
    await Promise.all([bob.line(`ann: ${text}`), ann.line(`bob: ${text}`)]);
  };
  const [slow, quick] = [
    /^\* link .* is slow: lines come about 1 s late$/,
    "* link is quick again",
  ];
  proxy.delay = 325; // each way
  await ann.line(slow);
  await hello("slowly");
  await hello("as slowly");
  proxy.delay = 0;
  await ann.line(quick);
  proxy.delay = 1000;
  const reason = "takes more than 1 s to answer: check the way to it, or check --redis";
  await expect(startLinked(proxy, hasty)).rejects.toThrow(reason);
  await ann.line(lost);
  proxy.delay = 0;
  await ann.line(back);
  await hello("and now?");
  const told = noticesTo([ann]).filter((line) => line.startsWith("* link"));
  expect(told).toEqual([expect.stringMatching(slow), quick, lost, back]);
});
