/** Servers that share a room through a Redis Cluster, or through a Redis that has replicas. */
import { expect } from "bun:test";
import { allHave, freePort, numbered } from "./helpers.ts";
import { allSee, back, lost, missing, noticesTo, startTwo, Proxy, Redis } from "./redis-server.ts";
import { test } from "./redis-server.ts";

/** Three nodes with a third of the slots each, as Redis Cluster has them, and replicas on demand. */
class Cluster implements AsyncDisposable {
  readonly nodes: Redis[] = [];
  #slot = 0; // the room's

  static async start(): Promise<Cluster> {
    const cluster = new Cluster();
    for (const slots of ["0 5460", "5461 10922", "10923 16383"]) await cluster.#add(slots);
    for (const node of cluster.nodes)
      await node.until((info) => info.includes("cluster_state:ok"), "CLUSTER", "INFO");
    cluster.#slot = await cluster.nodes[0]!.send("CLUSTER", "KEYSLOT", "pipechat:lobby");
    return cluster;
  }

  /** Adds a node, which meets all that are there: gossip would take longer. */
  async #add(slots = ""): Promise<Redis> {
    const bus = String(freePort());
    const options = ["--cluster-port", bus, "--cluster-node-timeout", "2000"];
    const node = await Redis.start("--cluster-enabled", "yes", ...options);
    const others = [...this.nodes];
    this.nodes.push(node);
    await node.send("CLUSTER", "SET-CONFIG-EPOCH", String(this.nodes.length));
    if (slots) await node.send("CLUSTER", "ADDSLOTSRANGE", ...slots.split(" "));
    for (const other of others)
      await other.send("CLUSTER", "MEET", "127.0.0.1", String(node.port), bus);
    return node;
  }

  /** The node that has the room, and two that have not. */
  get parts(): { owner: Redis; others: Redis[] } {
    const owner = this.nodes[Math.floor(this.#slot / 5461)]!;
    return { owner, others: this.nodes.filter((node) => node !== owner) };
  }

  /** Adds a replica of a node. */
  async replicate(master: Redis): Promise<Redis> {
    const replica = await this.#add();
    const id = await master.send("CLUSTER", "MYID");
    await replica.until((nodes) => nodes.includes(id), "CLUSTER", "NODES");
    await replica.send("CLUSTER", "REPLICATE", id);
    await this.hasReplica(replica);
    return replica;
  }

  /** Waits until a node is a replica, as all nodes know. */
  async hasReplica(replica: Redis): Promise<void> {
    const id = await replica.send("CLUSTER", "MYID");
    const isKnown = new RegExp(`^${id} \\S+ (myself,)?slave .* connected$`, "m");
    for (const node of this.nodes)
      await node.until((nodes) => isKnown.test(nodes), "CLUSTER", "NODES");
    await replica.until((info) => info.includes("master_link_status:up"), "INFO", "replication");
  }

  /** Moves the room from node to node: the stream, then `meanwhile()`, then the rest. */
  async migrate(from: Redis, to: Redis, meanwhile = async () => {}) {
    const [fromId, toId] = [await from.send("CLUSTER", "MYID"), await to.send("CLUSTER", "MYID")];
    const slot = String(this.#slot);
    const move = (keys: string[]) =>
      from.send("MIGRATE", "127.0.0.1", String(to.port), "", "0", "5000", "KEYS", ...keys);
    await to.send("CLUSTER", "SETSLOT", slot, "IMPORTING", fromId);
    await from.send("CLUSTER", "SETSLOT", slot, "MIGRATING", toId);
    await move(["pipechat:lobby"]);
    await meanwhile();
    await move(await from.send("CLUSTER", "GETKEYSINSLOT", slot, "10"));
    for (const node of [to, from, ...this.nodes])
      await node.send("CLUSTER", "SETSLOT", slot, "NODE", toId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes) await node[Symbol.asyncDispose]();
  }
}

test("a cluster: whatever node --redis names, the room is one, and moves to others without a loss", async (stack) => {
  const cluster = stack.use(await Cluster.start());
  const { owner, others } = cluster.parts;
  const { ann, bob } = await startTwo(stack, others[0]!, others[1]!);
  const talk = (count: number, from: number) => {
    for (const talker of [ann, bob]) talker.send(numbered(count, from));
  };
  talk(5_000, 0);
  await bob.line(/^ann: 500 /);
  await cluster.migrate(owner, others[0]!);
  talk(5_000, 5_000);
  await allHave([bob], "ann", 10_000);
  await allHave([ann], "bob", 10_000);
  const again = async (notice: string) => {
    for (const [n, { lines }] of [ann, bob].entries()) await lines.count(notice, losses[n]! + 1);
  };
  const losses = [ann, bob].map(({ lines }) => lines.all.filter((line) => line === lost).length);
  const meanwhile = async () => {
    talk(1_000, 10_000); // while it is half on one node and half on another
    await again(lost);
  };
  await cluster.migrate(others[0]!, owner, meanwhile);
  await again(back);
  await allHave([bob], "ann", 11_000);
  await allHave([ann], "bob", 11_000);
  expect([...ann.lines.all, ...bob.lines.all]).not.toContain(missing);
});

test("a cluster's node is killed, the one that --redis names: its replica takes over", async (stack) => {
  const cluster = stack.use(await Cluster.start());
  const { owner, others } = cluster.parts;
  const replica = await cluster.replicate(owner);
  const { ann, bob } = await startTwo(stack, owner, others[0]!);
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

test("a replica that is promoted late, and lacks what was said last: the room is told, and goes on", async (stack) => {
  const master = stack.use(await Redis.start());
  const replica = stack.use(await Redis.start("--replicaof", `127.0.0.1 ${master.port}`));
  const proxy = stack.use(await Proxy.start(master));
  const { ann, bob } = await startTwo(stack, proxy, proxy);
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
  proxy.turn(replica);
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
