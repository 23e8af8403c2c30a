/** The end of a server, in order and not, and the log's terminal. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import {
  allHave,
  Client,
  children,
  isAlive,
  numbered,
  parseListening,
  patience,
  root,
  startServer,
  until,
  watchServer,
} from "./helpers.ts";
import { flood } from "./scenes.ts";

setDefaultTimeout(2 * patience);

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} ends the server in order: what was said arrives, all are told, nothing is left`, async () => {
    await using server = await startServer(["--rate", "0"]);
    using ann = await Client.connect(server, "ann");
    using bob = await Client.connect(server, "bob");
    using eve = await Client.connect(server, "eve");
    const workers = server.workers();
    ann.send(numbered(5_000));
    await bob.line(/^ann: 4999 /);
    server.process.kill(signal);
    for (const client of [ann, bob, eve]) {
      await client.line("* server is shutting down");
      await client.ended();
      expect(client.lines.all.at(-1)).toBe("* server is shutting down");
    }
    await allHave([bob, eve], "ann", 5_000);
    expect(await server.process.exited).toBe(0);
    await until(() => !workers.some(isAlive), "the workers' end");
  });
}

test("a SIGTERM in the middle of a flood: everyone has the same lines", async () => {
  await using server = await startServer(["--rate", "0"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  using eve = await Client.connect(server, "eve");
  ann.send(numbered(50_000));
  await bob.line(/^ann: 999 /);
  expect(await server.stop()).toBe(0);
  await Promise.all([bob.ended(), eve.ended()]);
  expect(bob.messages.length).toBeGreaterThanOrEqual(1000);
  expect(eve.messages).toEqual(bob.messages);
  const said = numbered(bob.messages.length).split("\n");
  expect(bob.messages.every((line, n) => line === `ann: ${said[n]}`)).toBe(true);
});

test("a stopped worker does not keep the server from ending", async () => {
  await using server = await startServer();
  using _ann = await Client.connect(server, "ann");
  const pid = await server.worker("ann");
  process.kill(pid, "SIGSTOP");
  expect(await server.stop()).toBe(0);
  await until(() => !isAlive(pid), "the worker's end");
});

test("SIGKILL of the server: its workers notice, let their clients go and end", async () => {
  await using server = await startServer(["--rate", "0", "--max-lag", "100000000"]);
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  using stalled = await Client.connect(server, "stalled");
  stalled.pause();
  ann.send(numbered(40_000)); // 8 MB: the stalled one's worker has stopped reading, too
  await allHave([bob], "ann", 40_000);
  using _mute = await Client.connect(server);
  await until(() => server.workers().length === 5, "the spare");
  const workers = server.workers();
  process.kill(server.pid, "SIGKILL");
  await ann.ended();
  await until(
    () => !workers.some(isAlive),
    "the workers' end",
    () => workers.filter(isAlive),
  );
});

/** A server in a terminal of its own, as a person runs it. */
async function startInTerminal(...args: string[]): Promise<{
  child: Bun.Subprocess;
  port: number;
  screen: () => string;
}> {
  let screen = "";
  const child = Bun.spawn([process.execPath, "server.ts", "--port", "0", ...args], {
    cwd: root,
    terminal: {
      cols: 100,
      rows: 30,
      data(_, chunk) {
        screen += Buffer.from(chunk).toString();
      },
    },
  });
  await until(
    () => screen.includes("listening on"),
    "the server",
    () => screen,
  );
  return { child, port: parseListening(screen).port, screen: () => screen };
}

test("Ctrl-C in a terminal, which reaches the workers too, ends everything in order", async () => {
  const { child, port, screen } = await startInTerminal();
  using ann = await Client.connect({ port }, "ann");
  using bob = await Client.connect({ port }, "bob");
  await until(() => children(child.pid).length === 3, "the spare");
  const workers = children(child.pid);
  child.terminal!.write("\x03");
  for (const client of [ann, bob]) {
    await client.line("* server is shutting down");
    await client.ended();
  }
  expect([await child.exited, workers.filter(isAlive)]).toEqual([0, []]);
  expect(screen()).not.toContain("rror");
  expect(screen()).toEndWith("\r\nbye\r\n"); // and a shell's prompt stands at the margin
});

test("a second Ctrl-C ends everything at once", async () => {
  const { child, port } = await startInTerminal();
  using ann = await Client.connect({ port }, "ann");
  await until(() => children(child.pid).length === 2, "the spare");
  const workers = children(child.pid);
  const stopped = await Client.connect({ port }, "stopped");
  for (const pid of children(child.pid)) if (!workers.includes(pid)) workers.push(pid);
  for (const pid of workers.slice(1)) process.kill(pid, "SIGSTOP"); // they would be waited for
  child.terminal!.write("\x03");
  await ann.line("* server is shutting down");
  child.terminal!.write("\x03");
  expect(await child.exited).toBe(130);
  stopped[Symbol.dispose]();
  await until(
    () => !workers.some(isAlive),
    "the workers' end",
    () => workers.filter(isAlive),
  );
});

test("a terminal that takes no more of the log stops neither the chat nor the server's end", async () => {
  const { child, port } = await startInTerminal("--rate", "0", "--verbose");
  using ann = await Client.connect({ port }, "ann");
  using bob = await Client.connect({ port }, "bob");
  child.terminal!.write("\x13"); // Ctrl-S
  ann.send(numbered(flood)); // 4 MB for the log
  await allHave([bob], "ann", flood);
  child.kill("SIGTERM");
  await bob.ended();
  expect(await child.exited).toBe(0);
});

test("a terminal that takes the log again gets what is new, not all that it missed", async () => {
  const { child, port, screen } = await startInTerminal("--rate", "0", "--verbose");
  using ann = await Client.connect({ port }, "ann");
  using bob = await Client.connect({ port }, "bob");
  child.terminal!.write("\x13"); // Ctrl-S
  ann.send(numbered(flood));
  await allHave([bob], "ann", flood);
  child.terminal!.write("\x11"); // Ctrl-Q
  for (let n = 0; !screen().includes(`eve${n} joined`); n++) {
    using _eve = await Client.connect({ port }, `eve${n + 1}`);
  }
  expect(screen().length).toBeLessThan(2_000_000);
  child.kill("SIGTERM");
  await child.exited;
});

test("a signal to the whole group, as timeout(1) sends it, ends everything in order", async () => {
  const child = Bun.spawn([process.execPath, "server.ts", "--port", "0"], {
    cwd: root,
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
  });
  await using server = await watchServer(child);
  using ann = await Client.connect(server, "ann");
  process.kill(-server.pid, "SIGTERM");
  await ann.line("* server is shutting down");
  await ann.ended();
  expect(ann.heard).toEqual(["* server is shutting down"]);
  expect(await child.exited).toBe(0);
});

test("a signal to each process, as systemctl(1) sends it, ends everything in order", async () => {
  await using server = await startServer();
  using ann = await Client.connect(server, "ann");
  using bob = await Client.connect(server, "bob");
  await until(() => server.workers().length === 3, "the spare");
  for (const pid of server.workers()) process.kill(pid, "SIGTERM");
  ann.send("last words\n");
  await bob.line("ann: last words");
  expect(await server.stop()).toBe(0);
  for (const { heard } of [ann, bob]) expect(heard.at(-1)).toBe("* server is shutting down");
  expect([...ann.heard, ...bob.heard].join()).not.toMatch(/took over|left/);
});

test.skipIf(!existsSync("/proc/self/status"))("under nohup, SIGHUP does not end it", async () => {
  const script = `trap "" HUP; exec "$0" server.ts --port 0`;
  const child = Bun.spawn(["sh", "-c", script, process.execPath], {
    cwd: root,
    stdio: ["pipe", "pipe", "pipe"],
  });
  await using server = await watchServer(child);
  using ann = await Client.connect(server, "ann");
  child.kill("SIGHUP");
  using _bob = await Client.connect(server, "bob");
  await ann.line("* bob joined (2 online)");
});

test("the log says when what happened, and the address of whoever was refused", async () => {
  const limits = ["--max-per-address", "2", "--join-timeout", "1"];
  const { child, port, screen } = await startInTerminal(...limits);
  using _ann = await Client.connect({ port }, "ann");
  using mute = await Client.connect({ port });
  using third = await Client.connect({ port });
  await Promise.all([third.ended(), mute.ended()]);
  const events = [
    / worker \d+ \(127.0.0.1\): ann joined/,
    / 127.0.0.1 was refused: too many connections/,
  ];
  for (const event of [...events, / 127.0.0.1 was refused: no name within 1 s/])
    await until(() => event.test(screen()), `${event}`, screen);
  child.kill();
  await child.exited;
  const [first, ...rest] = screen().trim().split("\r\n");
  expect(first).toStartWith("listening on 127.0.0.1:");
  const times = rest.slice(0, 3).map((line) => Date.parse(line.slice(0, 19)));
  for (const time of times) expect(Math.abs(time - Date.now())).toBeLessThan(60_000);
});
