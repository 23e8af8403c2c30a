/** Names that a link loses, in this process, with a real Redis: what is asked of the room. */
import { afterAll, beforeAll, expect } from "bun:test";
import { openLink } from "../parts/redis/link.ts";
import { timing } from "../parts/redis/timing.ts";
import { within } from "./helpers.ts";
import { Proxy, Redis, test } from "./redis-server.ts";

const usual = { ...timing };
beforeAll(() => void (timing.beat = 20)); // names are renewed all the time
afterAll(() => void Object.assign(timing, usual));

/** A link that has claimed `ann` for the worker 1, and `al` for the worker 2. */
async function startLink(stack: AsyncDisposableStack) {
  const redis = stack.use(await Redis.start());
  const proxy = stack.use(await Proxy.start(redis));
  const link = await openLink(proxy.url, "lobby");
  stack.defer(() => link.close("leave"));
  const renamed: string[] = [];
  const rename = (name: string) => void renamed.push(name);
  link.start({ deliver: async () => {}, inform: () => {}, rename });
  expect([await link.claim("ann", 1), await link.claim("al", 2)]).toEqual([1, 2]);
  return {
    ...{ link, proxy, renamed },
    /** Gives `ann` to another server. */
    take: () => redis.send("HSET", "{pipechat:lobby}:names", "ann", "mars/5/abc 5"),
    /** Waits until a renewal is on its way to Redis; gives the names in it. */
    async renewal(): Promise<string> {
      const sent = Promise.withResolvers<string>();
      proxy.onSent = (data) => {
        if (data.includes("ZRANGEBYSCORE")) sent.resolve(data.slice(data.lastIndexOf("}:servers")));
      };
      return within(sent.promise, "a renewal");
    },
  };
}

test("a name that another server has taken is ours no more, and its client is renamed once", async (stack) => {
  const room = await startLink(stack);
  await room.take();
  while (room.link.owns("ann")) await room.renewal();
  for (let more = 0; more < 3; more++) expect(await room.renewal()).toContain("$2\r\nal\r\n");
  expect(room.renamed).toEqual(["ann"]);
  expect(await room.link.claim("ann", 1)).toBe(0);
  room.link.release("ann"); // which is theirs
  expect(await room.link.claim("ann", 3)).toBe(0);
});

test("a client that gets another name before the loss of its old one is known keeps that", async (stack) => {
  const { link, proxy, ...room } = await startLink(stack);
  proxy.delay = 100; // each way
  await room.renewal();
  await room.take(); // it finds that ann is taken, and says so on its way back
  expect(await link.claim("eve", 1)).toBe(3);
  expect(link.owns("ann")).toBe(false);
  expect(room.renamed).toEqual([]);
  link.release("ann");
  proxy.delay = 0;
  for (let more = 0; more < 3; more++) await room.renewal();
  expect([room.renamed, link.owns("eve")]).toEqual([[], true]);
});

test("a name that is released before its loss is known is not lost", async (stack) => {
  const { link, proxy, ...room } = await startLink(stack);
  proxy.delay = 100; // each way
  await room.renewal();
  await room.take();
  link.release("ann");
  for (let more = 0; more < 3; more++) await room.renewal();
  expect(room.renamed).toEqual([]);
});
