/** Servers that share a room: one is lost, or Redis is slow, away, refused or cut. Nobody waits long: see `hasty`. */
import { expect } from "bun:test";
import { allHave, Client, long, numbered, state, until, within } from "./helpers.ts";
import { allSee, back, hasty, heardBy, lost, missing, noticesTo } from "./redis-server.ts";
import { roomSharer, startLinked, test } from "./redis-server.ts";

const enterRoom = roomSharer(hasty, 1);

test("a client whose name another server has taken gets another, whatever happens meanwhile", async (stack) => {
  const { redis, proxy, first, ann, bob } = await enterRoom(stack);
  /** Gives a name to a server that is not there, and waits until the first one asks for `key`. */
  const take = async (name: string, key: string) => {
    const asked = Promise.withResolvers<void>();
    await redis.send("HSET", "{pipechat:lobby}:names", name, `mars/5/abc ${name} 5`);
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
  const served = await first.worker("ann");
  const [spare] = first.workers().filter((pid) => pid !== served);
  await until(() => state(spare!) === "S", "a spare that is ready");
  process.kill(spare!, "SIGSTOP"); // the next one to serve zoe, who may be late by a second
  await take("zoe", "zoe2");
  process.kill(served, "SIGKILL"); // while the answer is on its way
  await bob.line("* zoe is now zoe2");
  proxy.delay = 0;
  process.kill(spare!, "SIGCONT");
  await bob.line(/^\* worker \d+ of zoe2 was killed/);
  ann.send("third\n");
  await bob.line("zoe2: third");
  expect(heardBy(bob).filter((line) => !line.startsWith("* worker"))).toEqual([
    ...["* ann is now eve", "eve: first", "* eve is now eve2", "* eve2 is now zoe"],
    ...["zoe: second", "* zoe is now zoe2", "zoe2: third"],
  ]);
  proxy.onSent = () => {};
  await redis.send("HDEL", "{pipechat:lobby}:names", "ann", "eve", "zoe");
});

test("a server is stopped for long, then killed: all are told once who left, and who is back with it", async (stack) => {
  const { redis, first, ann, bob } = await enterRoom(stack);
  const third = stack.use(await startLinked(redis, hasty));
  const carl = stack.use(await Client.connect(third, "carl"));
  const eve = stack.use(await Client.connect(third, "eve"));
  await allSee([ann, bob, carl], "* eve joined (4 online)");
  third.process.kill("SIGSTOP");
  const left = (name: string) => `* ${name} left (their server was lost)`;
  for (const name of ["carl", "eve"]) await allSee([ann, bob], left(name));
  const heir = stack.use(await Client.connect(first, "carl"));
  heir.send("while you slept\n");
  await bob.line("carl: while you slept");
  third.process.kill("SIGCONT");
  await allSee([ann, bob], "* eve joined (their server is back)");
  await carl.line("* carl is taken, you are carl2");
  await allSee([ann, eve], "* carl is now carl2");
  await allSee([carl, eve], "carl: while you slept");
  carl.send("awake\n");
  await allSee([ann, heir, eve], "carl2: awake");

  // While it is killed Redis is away, for long: only its people have left.
  await redis.kill();
  await allSee([ann, bob], lost);
  third.process.kill("SIGKILL");
  await third.process.exited;
  await redis.age();
  await redis.start();
  await allSee([ann, bob], back);
  await allSee([ann, bob], left("carl2"));
  await allSee([ann, bob], left("eve"), 2);
  for (const client of [ann, bob])
    // once, though two servers noticed
    expect(client.lines.all.filter((line) => / left/.test(line))).toHaveLength(4);
});

test("a link that is cut and made again at once is not told; a slow, silent or refused one is, once", async (stack) => {
  const { redis, proxy, ann, bob } = await enterRoom(stack);
  for (let cut = 0; cut < 4; cut++) {
    ann.send(`${cut}\n`);
    await redis.until((list) => list.split(" flags=b ").length === 3, "CLIENT", "LIST"); // both wait for entries
    await redis.send("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
  }
  await bob.line("ann: 3");
  expect(heardBy(bob)).toEqual(["ann: 0", "ann: 1", "ann: 2", "ann: 3"]);
  expect(noticesTo([ann])).toEqual([]);

  const [slow, quick] = [
    /^\* link .* is slow: lines come about 1 s late$/,
    "* link is quick again",
  ];
  proxy.delay = 325; // each way
  await ann.line(slow);
  for (const client of [ann, bob]) client.send("slowly\n");
  await Promise.all([bob.line("ann: slowly"), ann.line("bob: slowly")]);
  proxy.delay = 0;
  await ann.line(quick);
  proxy.delay = 1000; // more than it waits for
  await ann.line(lost);
  proxy.delay = 0;
  await ann.line(back);

  const entries = await redis.appended();
  await redis.send("CONFIG", "RESETSTAT");
  await redis.send("ACL", "SETUSER", "ann", "-xread");
  await allSee([ann], lost, 2);
  const rejected = /cmdstat_xread:.*rejected_calls=([5-9]|\d\d)/; // it was tried again and again
  await redis.until((stats) => rejected.test(stats), "INFO", "commandstats");
  expect(await redis.appended()).toEqual(entries);
  await redis.send("ACL", "SETUSER", "ann", "+xread");
  await allSee([ann], back, 2);
  bob.send("hello\n");
  await ann.line("bob: hello");
  expect(noticesTo([ann])).toEqual([expect.stringMatching(slow), quick, lost, back, lost, back]);
});

test("kill -9 of Redis in a flood: every line arrives exactly once; all is forgotten: the room is told", async (stack) => {
  const { redis, ann, bob } = await enterRoom(stack);
  const talk = (count: number, from: number) => {
    for (const talker of [ann, bob]) talker.send(numbered(count, from, long));
  };
  talk(400, 0);
  await bob.line(/^ann: 50 /);
  await redis.kill();
  talk(100, 400);
  await allSee([ann, bob], lost);
  await redis.start();
  await allHave([bob], "ann", 500, long);
  await allHave([ann], "bob", 500, long);
  expect(noticesTo([ann, bob]).filter((line) => line.includes("miss"))).toEqual([]);

  await redis.kill();
  redis.forget();
  await allSee([ann, bob], lost, 2);
  await redis.start();
  await allSee([ann, bob], back, 2);
  ann.send("two\n");
  await bob.line("ann: two");
  expect(bob.heard.slice(-2)).toEqual([missing, "ann: two"]);
  bob.send("/nick Ann\n");
  await bob.line("* Ann is taken, you are Ann2");
});

test("while the link is lost people chat, and take names that others have: then all is sorted out", async (stack) => {
  const { redis, first, ann, bob } = await enterRoom(stack);
  await redis.kill();
  await allSee([ann, bob], lost);
  stack.use(await Client.connect(first, "dan")).send("hello\n");
  await ann.line("dan: hello");
  ann.send("/nick eve\nI am eve\n/who\n");
  await ann.line("* the link is lost: who is on other servers is not known");
  bob.send("/nick eve\n");
  await bob.line("* bob is now eve");
  await redis.start();
  await allSee([ann, bob], back);
  await bob.line("eve: I am eve");
  await allSee([ann, bob], "* eve is now eve2");
  const taken = ({ lines }: Client) => lines.all.includes("* eve is taken, you are eve2");
  expect([ann, bob].filter(taken)).toHaveLength(1);
  const [renamed, other] = taken(ann) ? [ann, bob] : [bob, ann];
  renamed.send("I am eve2 now\n");
  await other.line("eve2: I am eve2 now");
  for (const name of ["ann", "bob"]) renamed.send(`/nick ${name}\n`); // free, as nobody could say then
  await other.line("* eve2 is now ann");
  await other.line("* ann is now bob");
});
