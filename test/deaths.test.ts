/** What a dead worker, a vanished client and a hard start leave behind: nothing that others notice. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  allHave,
  Client,
  descriptors,
  isAlive,
  numbered,
  patience,
  root,
  startServer,
  state,
  until,
  watchServer,
} from "./helpers.ts";

setDefaultTimeout(2 * patience);

const isPlain = process.env["PIPECHAT_PLAIN"] !== undefined;

/** A test of what plain streams cannot do: they have read, and hold, what would have to wait in the kernel. */
const testNatively = isPlain ? Object.assign(() => {}, { each: () => () => {} }) : test;

/** A server with two clients, and its spares ready. */
async function openRoom(args: string[] = [], spares = 1) {
  const server = await startServer(["--rate", "0", "--spares", String(spares), ...args]);
  const ann = await Client.connect(server, "ann");
  const bob = await Client.connect(server, "bob");
  const ready = async () => {
    await until(() => server.workers().length === 2 + spares, "the spares", server.workers);
    const served = [await server.worker("ann"), await server.worker("bob")];
    return server.workers().filter((pid) => !served.includes(pid));
  };
  const kill = async (name: string) => {
    let pid = await server.worker(name);
    while (!isAlive(pid)) {
      await Bun.sleep(5); // until the log says who took over from the last one
      pid = await server.worker(name);
    }
    process.kill(pid, "SIGKILL");
  };
  return {
    server,
    ann,
    bob,
    ready,
    kill,
    async [Symbol.asyncDispose]() {
      ann[Symbol.dispose]();
      bob[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** A copy of the product whose worker.ts may be changed. */
function copyOfAll() {
  const folder = mkdtempSync(join(tmpdir(), "pipechat-copy-"));
  for (const part of ["server.ts", "worker.ts", "parts", "package.json"])
    cpSync(join(root, part), join(folder, part), { recursive: true });
  return {
    folder,
    code: readFileSync(join(folder, "worker.ts"), "utf8"),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  };
}

test("half a line that outlived its worker does not hold up the lines behind it", async () => {
  await using room = await openRoom();
  const { ann, bob, kill } = room;
  bob.send("x".repeat(300));
  await Bun.sleep(100); // nothing shows that the worker has seen it
  await kill("bob");
  await ann.line(/of bob was killed by SIGKILL/);
  bob.send("y\n");
  if (!isPlain) await ann.line(/^bob: x{300}y$/);
  for (const line of ["hi", "ho"]) {
    bob.send(`${line}\n`);
    await ann.line(`bob: ${line}`);
  }
  bob.send("/quit\n");
  await bob.ended();
});

test("the end of a line whose beginning has died is no line, however many workers die", async () => {
  await using room = await openRoom();
  const { ann, bob, kill, server } = room;
  bob.send("secret ".repeat(1000));
  await until(() => server.workers().length === 3, "the spare", server.workers);
  bob.send("more ".repeat(1000));
  await ann.line("* bob joined (2 online)");
  for (let deaths = 1; deaths <= 2; deaths++) {
    await kill("bob");
    await ann.lines.count(/^\* worker \d+ of bob was killed/, deaths);
  }
  bob.send("and its tail\nand another\n");
  await ann.line("bob: and another");
  if (!isPlain) expect(ann.heard).not.toContain("bob: and its tail");
});

test("a server that was started with SIGCHLD ignored outlives its workers", async () => {
  const command = ["sh", "-c", 'trap "" CHLD; exec "$@"', "sh", process.execPath];
  const stdio = ["pipe", "pipe", "pipe"] as const;
  await using server = await watchServer(
    Bun.spawn([...command, join(root, "server.ts"), "--port", "0"], { stdio: [...stdio] }),
  );
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  process.kill(await server.worker("bob"), "SIGKILL");
  await ann.line(/^\* worker \d+ of bob .*, \d+ took over$/);
  bob.send("here\n");
  await ann.line("bob: here");
});

test("--max-lag bounds a client that has no process", async () => {
  await using room = await openRoom(["--max-lag", "200000"], 8);
  const { ann, kill, ready } = room;
  const spares = await ready();
  for (const pid of spares) process.kill(pid, "SIGSTOP");
  await kill("bob");
  ann.send(`${"x".repeat(3990)}\n`.repeat(100));
  await ann.line(/^\* bob left \(worker \d+ was \d+ bytes behind\)$/);
  await room.bob.ended();
});

test("SIGTERM while a client waits for a stopped worker: it is told, and nothing is left", async () => {
  await using room = await openRoom();
  const { server, bob, kill, ready } = room;
  const [spare] = await ready();
  process.kill(spare!, "SIGSTOP");
  await kill("bob");
  await until(() => descriptors(server.pid) >= 0 && server.workers().length < 3, "the death");
  expect(await server.stop()).toBe(0);
  await bob.line("* server is shutting down");
  await until(
    () => !isAlive(spare!),
    "the end of the spare",
    () => state(spare!),
  );
});

test("whoever has left gets the rest of the talk, though their worker is killed", async () => {
  await using room = await openRoom();
  const { ann, bob, kill } = room;
  bob.pause();
  ann.send(numbered(15_000));
  ann.send("/who\n");
  await ann.line(/^\* try: kill/); // all is said
  const pid = await room.server.worker("bob");
  await bob.end();
  await ann.line("* bob left");
  process.kill(pid, "SIGKILL");
  await until(() => !isAlive(pid), "the death");
  bob.resume();
  await bob.ended();
  if (isPlain) return; // what was in flight is lost there
  expect(bob.messages.length).toBe(15_000);
  void kill;
});

test("clients that reset while they are handed over cost no process each, and no odd line", async () => {
  await using room = await openRoom();
  const { server, ann } = room;
  for (let n = 0; n < 10; n++) {
    const mute = connect(server.port, "127.0.0.1", () => mute.resetAndDestroy());
    mute.on("error", () => {});
    await once(mute, "close");
  }
  ann.send("after\n");
  await room.bob.line("ann: after");
  await room.ready();
  expect(server.log.all.filter((line) => /could not start/.test(line))).toEqual([]);
});

testNatively.each(["goes on", "dies"])(
  "what had arrived before a reset is said, though the worker was stopped and then %s",
  async (fate) => {
    await using room = await openRoom();
    const { server, ann, bob } = room;
    const eve = await Client.connect(server, "eve");
    const pid = await server.worker("eve");
    process.kill(pid, "SIGSTOP");
    eve.send(numbered(400)); // all of it is in the kernel of the server then
    await eve.flushed();
    eve.reset();
    ann.send("the server has had time to see it\n");
    await bob.line(/^ann: /);
    process.kill(pid, fate === "dies" ? "SIGKILL" : "SIGCONT");
    await bob.line("* eve left");
    await allHave([bob], "eve", 400);
  },
);

testNatively("who resets before there is a process for them has said what they said", async () => {
  await using room = await openRoom([], 0);
  const eve = await Client.connect(room.server);
  eve.send("eve\nhello\n");
  await eve.flushed();
  eve.reset();
  await room.bob.line("* eve left");
  expect(room.bob.messages).toEqual(["eve: hello"]);
});

test("eight spares killed at once cut nobody off", async () => {
  await using room = await openRoom([], 8);
  const { ann, bob, kill, ready } = room;
  const spares = await ready();
  for (const pid of spares) process.kill(pid, "SIGKILL");
  await kill("bob");
  await ann.line(/of bob was killed by SIGKILL, \d+ took over$/);
  bob.send("here\n");
  await ann.line("bob: here");
});

test("a worker killed before its client has joined: the client is told, and so is the log", async () => {
  await using room = await openRoom();
  const { server, ready } = room;
  const [spare] = await ready();
  using mute = await Client.connect(server);
  await mute.line("* your name?");
  process.kill(spare!, "SIGKILL");
  await mute.line("* your process died, connect again");
  await server.log.line(/was refused: your process died/);
});

testNatively("a throttled worker holds no lines: killed, it takes none along", async () => {
  await using room = await openRoom(["--rate", "5"]);
  const { ann, bob, kill } = room;
  bob.send(numbered(30));
  await ann.line(/^bob: .*/);
  await kill("bob");
  await ann.line(/of bob was killed by SIGKILL/);
  await until(
    () => ann.messages.length >= 30,
    "30 lines",
    () => ann.messages.length,
  );
  expect(ann.messages.length).toBe(30);
});

test("a mistake in worker.ts that is mended in time disconnects nobody", async () => {
  using copy = copyOfAll();
  const { folder, code } = copy;
  await using server = await startServer(["--spares", "0"], { script: join(folder, "server.ts") });
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  writeFileSync(join(folder, "worker.ts"), "process.exit(7);");
  for (const name of ["ann", "bob"]) process.kill(await server.worker(name), "SIGKILL");
  await server.log.line(/^a worker could not start: exited with code 7, trying again$/);
  writeFileSync(join(folder, "worker.ts"), code);
  await bob.line(/of ann was killed by SIGKILL, \d+ took over$/);
  await server.log.line("workers start again");
  ann.send("back\n");
  await bob.line("ann: back");
  expect(server.log.all.filter((line) => /could not start/.test(line)).length).toBe(1);
});

test("a worker that sends a descriptor along is killed, and nothing of it is kept", async () => {
  using copy = copyOfAll();
  const { folder, code } = copy;
  const send = `if (verb === "send") {
    const peer = (await import("node:net")).connect(Number(argument), "127.0.0.1");
    await new Promise((done) => peer.once("connect", done));
    process.send({ type: "holds", lines: false, part: false }, peer);
    await Bun.sleep(9000);
  }
  `;
  const hijacked = code.replace('if (verb === "help")', `${send}$&`);
  writeFileSync(join(folder, "worker.ts"), hijacked);
  await using server = await startServer([], { script: join(folder, "server.ts") });
  using ann = await Client.connect(server, "ann");
  using eve = await Client.connect(server, "eve");
  const before = descriptors(server.pid);
  eve.send(`/send ${server.port}\n`);
  await ann.line(/^\* eve left \(worker \d+ sent a descriptor\)$/);
  await until(
    () => descriptors(server.pid) <= before,
    "as few descriptors",
    () => descriptors(server.pid),
  );
});
