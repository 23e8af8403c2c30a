/** Servers that share a room: Redis is lost and comes back, and everyone has what was said meanwhile. */
import { expect } from "bun:test";
import { allHave, Client, long, numbered, state, until } from "./helpers.ts";
import { allSee, back, hasty, lost, missing, noticesTo, openRoom, Redis } from "./redis-server.ts";
import { startLinked, test } from "./redis-server.ts";

/** Two people say numbered lines to each other, and to `carl` on a third server. */
async function startTalk(stack: AsyncDisposableStack, env = {}) {
  const { redis, first, ann, bob } = await openRoom(stack, env);
  const carl = stack.use(await Client.connect(stack.use(await startLinked(redis, env)), "carl"));
  const everyone = [ann, bob, carl];
  const talk = (count: number, from: number) => {
    for (const talker of [ann, bob]) talker.send(numbered(count, from, long));
  };
  /** Every line on every server exactly once, in its sender's order, and no notice of a loss. */
  const allArrived = async (count: number) => {
    await allHave([bob, carl], "ann", count, long);
    await allHave([ann, carl], "bob", count, long);
    expect(noticesTo(everyone).filter((line) => line.includes("miss"))).toEqual([]);
  };
  return { redis, first, everyone, carl, talk, allArrived };
}

test("kill -9 and restart of Redis in the middle of a flood: every line everywhere exactly once", async (stack) => {
  const { redis, everyone, carl, talk, allArrived } = await startTalk(stack, hasty);
  for (const round of [1, 2]) {
    const end = round * 500;
    talk(400, end - 500);
    await carl.line(new RegExp(`^ann: ${end - 450} `));
    await redis.kill();
    talk(100, end - 100);
    await allSee(everyone, lost, round);
    await redis.start();
    await allSee(everyone, back, round);
    await allArrived(end);
  }
});

test("a Redis that answers nothing: the chat goes on, and what it gets twice is told once", async (stack) => {
  const { redis, first, everyone, talk, allArrived } = await startTalk(stack, hasty);
  talk(400, 0);
  await allArrived(400);
  redis.signal("SIGSTOP");
  talk(1, 400); // so little that all of it waits in Redis's socket
  const newcomer = stack.use(await Client.connect(first, "newcomer"));
  newcomer.send("hello\n");
  await everyone[0]!.line("newcomer: hello");
  talk(99, 401);
  await allSee(everyone, lost);
  redis.signal("SIGCONT"); // now it finds on the lost connections what was sent, and does it
  await allSee(everyone, back);
  await allSee(everyone, "newcomer: hello");
  await allArrived(500);
  const numbers = await redis.appended();
  expect(new Set(numbers).size).toBeLessThan(numbers.length); // it did get something twice
});

test("while the link is lost people come, go, and take names that others have: then all is sorted out", async (stack) => {
  const { redis, first, second, ann, bob } = await openRoom(stack);
  const zoe = stack.use(await Client.connect(second, "zoe"));
  await redis.kill();
  await allSee([ann, bob], lost);
  await zoe.end();
  await bob.line("* zoe left");
  const here = stack.use(await Client.connect(first, "eve"));
  const there = stack.use(await Client.connect(second, "eve"));
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
  stack.use(await Client.connect(first, "zoe")); // free, although nobody could say so then
  await bob.line("* zoe joined (5 online)");
});

test("Redis is killed in the middle of a write, again and again: nothing is lost or said to be", async (stack) => {
  const { redis, ann, bob } = await openRoom(stack, hasty);
  for (const round of [1, 2, 3]) {
    ann.send(`line ${round}\n/nick ann${round}\n`);
    await bob.line(new RegExp(`is now ann${round}$`));
    await redis.kill();
    await redis.tear();
    await allSee([ann, bob], lost, round);
    await redis.start();
    await allSee([ann, bob], back, round);
  }
  ann.send("the end\n");
  await bob.line("ann3: the end");
  expect(bob.messages).toEqual(["ann: line 1", "ann1: line 2", "ann2: line 3", "ann3: the end"]);
  expect(bob.lines.all).not.toContain(missing);
});

test("more than is kept while the link is lost: both sides are told how much is missing", async (stack) => {
  const { redis, first, ann, bob } = await openRoom(stack);
  const eve = stack.use(await Client.connect(first, "eve"));
  await redis.kill();
  await allSee([ann, eve, bob], lost);
  ann.send(numbered(4500, 0, long)); // 9 MB
  await allHave([eve], "ann", 4500, long);
  await eve.line("* too much waits for the link: other servers miss what is said from now");
  await redis.start();
  const notice = await bob.line(/^\* \d+ lines from server \d+ on \S+ are missing here$/);
  const count = Number(notice.split(" ")[1]);
  await eve.line(`* other servers have missed ${count} lines`);
  await allHave([bob], "ann", 4500 - count, long);
  expect(bob.lines.all.indexOf(notice)).toBe(
    bob.lines.all.findLastIndex((line) => line.startsWith("ann: ")) + 1,
  );
  ann.send("and on\n");
  await bob.line("ann: and on");
});

test("a stream trimmed before a server came to read it: its room is told", async (stack) => {
  const { redis, second, ann, bob } = await openRoom(stack);
  second.process.kill("SIGSTOP");
  await until(() => state(second.pid) === "T", "its stop");
  // An entry each: the next is said when the one before is in the stream.
  for (let n = 0; n < 5; n++) {
    const { length } = await redis.appended();
    ann.send(`lost ${n}\n`);
    await redis.until((now) => Number(now) > length, "XLEN", "pipechat:lobby");
  }
  await redis.send("XTRIM", "pipechat:lobby", "MAXLEN", "2");
  second.process.kill("SIGCONT");
  await bob.line("ann: lost 4");
  const seen = bob.heard.filter((line) => line !== lost && line !== back);
  // The first may have been on its way already: an XREAD waited for it.
  expect(seen.slice(-3)).toEqual([missing, "ann: lost 3", "ann: lost 4"]);
  expect(seen).not.toContain("ann: lost 1");
});

test("a Redis that has forgotten everything: the room is told, and is one again", async (stack) => {
  const { redis, second, ann, bob } = await openRoom(stack, {}, "--appendonly", "no");
  ann.send("one\n");
  await bob.line("ann: one");
  await redis.kill();
  await allSee([ann, bob], lost);
  await redis.start();
  await allSee([ann, bob], back);
  ann.send("two\n");
  await bob.line("ann: two");
  expect(bob.heard.slice(-2)).toEqual([missing, "ann: two"]);
  const other = stack.use(await Client.connect(second, "ann"));
  expect(other.lines.all[0]).toBe("* ann is taken, you are ann2");
});

test("SIGTERM while Redis is away: the server ends all the same", async (stack) => {
  const redis = stack.use(await Redis.start());
  const first = stack.use(await startLinked(redis));
  const ann = stack.use(await Client.connect(first, "ann"));
  await redis.kill();
  await ann.line(lost);
  ann.send("unheard\n/help\n");
  await ann.line(/^\* \/who/);
  expect(await first.stop()).toBe(0);
  await first.log.line("the link is lost: other servers miss what was said last");
});
