/** The end of a server, in order and not, and its log. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { allHave, Client, children, ended, long, numbered, parseListening } from "./helpers.ts";
import { startServer } from "./helpers.ts";
import { flood, openRoom } from "./scenes.ts";
import { Session } from "./screen.ts";

const farewell = "* server is shutting down";

/** Checks that this is the last that clients hear. */
async function areSentAway(...clients: Client[]): Promise<void> {
  for (const client of clients) {
    await client.ended();
    expect(client.heard.at(-1)).toBe(farewell);
  }
}

test("SIGTERM to its group, as by timeout(1), in a flood: all have the same lines, nothing is left", async () => {
  await using server = await startServer(["--rate", "0"], { detached: true });
  using room = await openRoom(server);
  using eve = await Client.connect(server, "eve");
  const workers = server.workers();
  room.ann.send(numbered(flood, 0, long));
  await room.bob.line(/^ann: 99 /);
  process.kill(-server.pid, "SIGTERM");
  await areSentAway(room.ann, room.bob, eve);
  const count = room.bob.messages.length;
  expect(count).toBeGreaterThanOrEqual(100);
  await allHave([room.bob, eve], "ann", count, long);
  expect(await server.process.exited).toBe(0);
  await ended(workers);
});

test("SIGTERM to each process, as by systemctl(1), ends it in order; SIGHUP under nohup(1) does not", async () => {
  const hasProc = existsSync("/proc/self/status"); // elsewhere it does not know what it ignores
  await using server = await startServer([], { before: hasProc ? ["nohup"] : [] });
  if (hasProc) server.process.kill("SIGHUP");
  using room = await openRoom(server);
  const { ann, bob } = room;
  for (const pid of server.workers()) process.kill(pid, "SIGTERM");
  ann.send("last words\n");
  await bob.line("ann: last words");
  expect(await server.stop()).toBe(0);
  await areSentAway(ann, bob);
  expect([...ann.heard, ...bob.heard].join()).not.toMatch(/took over|left/);
});

test("SIGKILL of the server: its workers notice, let their clients go and end", async () => {
  // Under bun test --no-orphans, the workers would be killed with their server.
  const env = { BUN_FEATURE_FLAG_NO_ORPHANS: "" };
  await using server = await startServer(["--rate", "0", "--max-lag", "100000000"], { env });
  using room = await openRoom(server);
  using stalled = await Client.connect(server, "stalled");
  stalled.pause();
  await room.talk(flood); // the stalled one's worker has stopped reading, too
  using _mute = await Client.connect(server);
  await server.hasWorkers(5);
  const workers = server.workers();
  process.kill(server.pid, "SIGKILL");
  await room.ann.ended();
  await ended(workers);
});

/** A server in a terminal of its own, as a person runs it. */
async function startInTerminal(...args: string[]) {
  const command = [process.execPath, "server.ts", "--port", "0", ...args];
  const session = new Session(command, 100, { PIPECHAT_HASTE: "4" });
  await session.shows(/listening on .*pid \d+/);
  return Object.assign(session, { port: parseListening(session.raw).port });
}

test("Ctrl-C in its terminal ends all in order, stopped workers too; a second one at once", async () => {
  for (const second of ["", "\x03"]) {
    using server = await startInTerminal();
    using ann = await Client.connect(server, "ann");
    using _stopped = await Client.connect(server, "stopped");
    await server.shows("stopped joined");
    const workers = children(server.process.pid);
    const pid = Number(/worker (\d+) \(\S+\): stopped joined/.exec(server.raw)![1]);
    process.kill(pid, "SIGSTOP");
    server.type("\x03");
    await ann.line(farewell);
    server.type(second);
    expect(await server.process.exited).toBe(second ? 130 : 0);
    await ended(workers);
    await ann.ended();
    if (second) continue;
    expect(server.raw).not.toContain("rror");
    expect(server.raw).toEndWith("\r\nbye\r\n"); // and a shell's prompt stands at the margin
  }
});

test("a terminal that takes no more of the log stops neither the chat nor the server's end", async () => {
  using server = await startInTerminal("--rate", "0", "--verbose");
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const lines = 500; // 1 MB for the log
  server.type("\x13"); // Ctrl-S
  ann.send(numbered(lines, 0, long));
  await allHave([bob], "ann", lines, long);
  const shown = server.raw.length;
  server.type("\x11"); // Ctrl-Q: it gets what is new, not all that it missed
  for (let n = 0; !server.raw.includes(`eve${n} joined`); n++) {
    using _eve = await Client.connect(server, `eve${n + 1}`);
  }
  expect(server.raw.length - shown).toBeLessThan(500_000);
  server.type("\x13");
  ann.send(numbered(lines, lines, long));
  await allHave([bob], "ann", 2 * lines, long);
  server.process.kill("SIGTERM");
  await areSentAway(bob);
  expect(await server.process.exited).toBe(0);
});
