/** The end of a server, in order and not, and the log's terminal. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { allHave, Client, children, ended, long, numbered, parseListening } from "./helpers.ts";
import { patience, startServer } from "./helpers.ts";
import { flood, openRoom } from "./scenes.ts";
import { Session } from "./screen.ts";

setDefaultTimeout(2 * patience);

test("SIGTERM ends the server in order: what was said arrives, all are told, nothing is left", async () => {
  await using server = await startServer(["--rate", "0"]);
  using room = await openRoom(server);
  using eve = await Client.connect(server, "eve");
  const workers = server.workers();
  await room.talk(500);
  server.process.kill("SIGTERM");
  for (const client of [room.ann, room.bob, eve]) {
    await client.line("* server is shutting down");
    await client.ended();
    expect(client.lines.all.at(-1)).toBe("* server is shutting down");
  }
  await allHave([eve], "ann", 500, long);
  expect(await server.process.exited).toBe(0);
  await ended(workers);
});

test("a SIGTERM in the middle of a flood: everyone has the same lines", async () => {
  await using server = await startServer(["--rate", "0"]);
  using room = await openRoom(server);
  using eve = await Client.connect(server, "eve");
  room.ann.send(numbered(4 * flood, 0, long));
  await room.bob.line(/^ann: 99 /);
  expect(await server.stop()).toBe(0);
  const messages = [];
  for (const client of [room.bob, eve]) {
    await client.ended();
    messages.push(client.messages);
  }
  const count = messages[0]!.length;
  expect(count).toBeGreaterThanOrEqual(100);
  expect(messages[1]!.length).toBe(count);
  await allHave([room.bob, eve], "ann", count, long);
});

test("SIGKILL of the server: its workers notice, let their clients go and end", async () => {
  await using server = await startServer(["--rate", "0", "--max-lag", "100000000"]);
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

test("Ctrl-C in a terminal, which reaches the workers too, ends everything in order", async () => {
  using server = await startInTerminal();
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  const workers = children(server.process.pid);
  server.type("\x03");
  for (const client of [ann, bob]) {
    await client.line("* server is shutting down");
    await client.ended();
  }
  expect(await server.process.exited).toBe(0);
  await ended(workers);
  expect(server.raw).not.toContain("rror");
  expect(server.raw).toEndWith("\r\nbye\r\n"); // and a shell's prompt stands at the margin
});

test("stopped workers do not keep the server from ending, and a second Ctrl-C ends it at once", async () => {
  for (const second of ["", "\x03"]) {
    using server = await startInTerminal();
    using ann = await Client.connect(server, "ann");
    using _stopped = await Client.connect(server, "stopped");
    await server.shows("stopped joined");
    const workers = children(server.process.pid);
    const pid = Number(/worker (\d+) \(\S+\): stopped joined/.exec(server.raw)![1]);
    process.kill(pid, "SIGSTOP");
    server.type("\x03");
    await ann.line("* server is shutting down");
    server.type(second);
    expect(await server.process.exited).toBe(second ? 130 : 0);
    await ended(workers);
  }
});

test("a terminal that takes no more of the log stops neither the chat nor the server's end", async () => {
  using server = await startInTerminal("--rate", "0", "--verbose");
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  server.type("\x13"); // Ctrl-S
  ann.send(numbered(flood, 0, long)); // 6 MB for the log
  await allHave([bob], "ann", flood, long);
  const shown = server.raw.length;
  server.type("\x11"); // Ctrl-Q: it gets what is new, not all that it missed
  for (let n = 0; !server.raw.includes(`eve${n} joined`); n++) {
    using _eve = await Client.connect(server, `eve${n + 1}`);
  }
  expect(server.raw.length - shown).toBeLessThan(2_000_000);
  server.type("\x13");
  ann.send(numbered(flood, flood, long));
  await allHave([bob], "ann", 2 * flood, long);
  server.process.kill("SIGTERM");
  await bob.ended();
  expect(await server.process.exited).toBe(0);
});

test("a signal to the whole group, as timeout(1) sends it, ends everything in order", async () => {
  await using server = await startServer([], { detached: true });
  using ann = await Client.connect(server, "ann");
  process.kill(-server.pid, "SIGTERM");
  await ann.line("* server is shutting down");
  await ann.ended();
  expect(ann.heard).toEqual(["* server is shutting down"]);
  expect(await server.process.exited).toBe(0);
});

test("a signal to each process, as systemctl(1) sends it, ends everything in order", async () => {
  await using server = await startServer();
  using room = await openRoom(server);
  const { ann, bob } = room;
  for (const pid of server.workers()) process.kill(pid, "SIGTERM");
  ann.send("last words\n");
  await bob.line("ann: last words");
  expect(await server.stop()).toBe(0);
  for (const { heard } of [ann, bob]) expect(heard.at(-1)).toBe("* server is shutting down");
  expect([...ann.heard, ...bob.heard].join()).not.toMatch(/took over|left/);
});

test.skipIf(!existsSync("/proc/self/status"))("under nohup, SIGHUP does not end it", async () => {
  await using server = await startServer([], { before: ["nohup"] });
  using ann = await Client.connect(server, "ann");
  server.process.kill("SIGHUP");
  using _bob = await Client.connect(server, "bob");
  await ann.line("* bob joined (2 online)");
});

test("the log says when what happened, and the address of whoever was refused", async () => {
  using server = await startInTerminal("--max-per-address", "2", "--join-timeout", "1");
  using _ann = await Client.connect(server, "ann");
  using mute = await Client.connect(server);
  using third = await Client.connect(server);
  await Promise.all([third.ended(), mute.ended()]);
  const time = String.raw`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) `;
  for (const event of [
    "worker \\d+ \\(127.0.0.1\\): ann joined",
    "127.0.0.1 was refused: too many connections",
    "127.0.0.1 was refused: no name within 1 s",
  ]) {
    const logged = new RegExp(time + event, "m");
    await server.shows(logged);
    const [, at] = logged.exec(server.screen.text)!;
    expect(Math.abs(Date.parse(at!) - Date.now())).toBeLessThan(60_000);
  }
  server.process.kill();
  await server.process.exited;
});
