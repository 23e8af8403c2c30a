/** Servers that share a room through a Redis Cluster, or through a Redis that has replicas. */
import { expect } from "bun:test";
import { allHave, freePort, numbered } from "./helpers.ts";
import { allSee, back, lost, missing, noticesTo } from "./redis-server.ts";
import { enter, Proxy, Redis, startAll, test } from "./redis-server.ts";

/** Adds a node to a cluster; it meets all that are there, as gossip would take longer. */
async function add(stack: AsyncDisposableStack, nodes: Redis[]): Promise<Redis> {
  const bus = String(freePort());
  const options = ["--cluster-port", bus, "--cluster-node-timeout", "2000"];
  const node = stack.use(await Redis.start("--cluster-enabled", "yes", ...options));
  await node.send("CLUSTER", "SET-CONFIG-EPOCH", String(nodes.length + 1));
  for (const other of nodes)
    await other.send("CLUSTER", "MEET", "127.0.0.1", String(node.port), bus);
  nodes.push(node);
  return node;
}

test("a cluster: the room moves to another node without a loss, and to the replica of a dead one", async (stack) => {
  const nodes: Redis[] = [];
  for (const slots of ["0 5460", "5461 10922", "10923 16383"])
    await (await add(stack, nodes)).send("CLUSTER", "ADDSLOTSRANGE", ...slots.split(" "));
  for (const node of nodes)
    await node.until((info) => info.includes("cluster_state:ok"), "CLUSTER", "INFO");
  const slot = String(await nodes[0]!.send("CLUSTER", "KEYSLOT", "pipechat:lobby"));
  const owner = nodes[Math.floor(Number(slot) / 5461)]!;
  const other = nodes.find((node) => node !== owner)!;
  const [from, to] = [await owner.send("CLUSTER", "MYID"), await other.send("CLUSTER", "MYID")];
  const replica = await add(stack, nodes);
  await replica.until((all) => all.includes(to), "CLUSTER", "NODES");
  await replica.send("CLUSTER", "REPLICATE", to);
  const isKnown = / (myself,)?slave .* connected$/m;
  for (const node of nodes) await node.until((all) => isKnown.test(all), "CLUSTER", "NODES");
  await replica.until((info) => info.includes("master_link_status:up"), "INFO", "replication");
  const { ann, bob } = await enter(stack, await startAll(stack, [owner, other]));
  const talk = (from: number) => {
    for (const talker of [ann, bob]) talker.send(numbered(1000, from));
  };
  talk(0);
  await bob.line(/^ann: 100 /);
  await other.send("CLUSTER", "SETSLOT", slot, "IMPORTING", from);
  await owner.send("CLUSTER", "SETSLOT", slot, "MIGRATING", to);
  const move = (keys: string[]) =>
    owner.send("MIGRATE", "127.0.0.1", String(other.port), "", "0", "5000", "KEYS", ...keys);
  await move(["pipechat:lobby"]);
  talk(1000); // while it is half on one node and half on another
  await allSee([ann, bob], lost);
  await move(await owner.send("CLUSTER", "GETKEYSINSLOT", slot, "10"));
  for (const node of [other, owner, ...nodes.slice(0, 3)])
    // not the replica
    await node.send("CLUSTER", "SETSLOT", slot, "NODE", to);
  await allSee([ann, bob], back);
  await allHave([bob], "ann", 2000);
  await allHave([ann], "bob", 2000);

  await other.send("WAIT", "1", "0");
  await other.kill();
  await allSee([ann, bob], lost, 2);
  ann.send("meanwhile\n");
  await replica.send("CLUSTER", "FAILOVER", "TAKEOVER");
  await allSee([ann, bob], back, 2);
  await bob.line("ann: meanwhile");
  for (const client of [ann, bob]) expect(noticesTo([client])).toEqual([lost, back, lost, back]);
});

test("a replica that is promoted late, and lacks what was said last: the room is told, and goes on", async (stack) => {
  const master = stack.use(await Redis.start());
  const replica = stack.use(await Redis.start("--replicaof", `127.0.0.1 ${master.port}`));
  const proxy = stack.use(new Proxy(master));
  const { ann, bob } = await enter(stack, await startAll(stack, [proxy, proxy]));
  ann.send("one\n");
  await bob.line("ann: one");
  await replica.until((length) => Number(length) >= 3, "XLEN", "pipechat:lobby");
  await master.send("WAIT", "1", "0");
  await replica.send("REPLICAOF", "127.0.0.1", String(freePort())); // nobody is there
  await master.send("XADD", "pipechat:lobby", "99999999999999-0", "a clock", "far ahead");
  ann.send("two\n");
  await bob.line("ann: two");
  await master.kill();
  await allSee([ann, bob], lost);
  proxy.to = replica;
  const refused = /errorstat_READONLY:count=([3-9]|\d\d)/; // it was tried again and again
  await replica.until((stats) => refused.test(stats), "INFO", "errorstats");
  await replica.send("REPLICAOF", "NO", "ONE");
  await allSee([ann, bob], back);
  ann.send("three\n");
  await bob.line("ann: three");
  expect(bob.messages).toEqual(["ann: one", "ann: two", "ann: three"]);
  const ofLink = noticesTo([ann, bob]).filter((line) => line.includes("link"));
  expect(ofLink).toEqual([lost, back, lost, back]); // however often it was refused
  expect(bob.lines.all).toContain(missing);
});
