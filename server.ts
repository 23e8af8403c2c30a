#!/usr/bin/env bun
/**
 * pipechat's server: a chat with one process per connection. `bun server.ts --help` lists the options.
 *
 * It accepts a connection, takes a worker process (`worker.ts`), passes it the socket over IPC, and
 * from then on only relays: whole lines, from each worker's stdout to every other worker's stdin. It
 * never reads a byte from a client, so nothing that a client sends can hurt it. If a worker dies, another
 * one gets the socket, and the client chats on.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fail } from "./parts/shared/command-line.ts";
import { Connection, filesPerClient } from "./parts/server/connection.ts";
import type { Heritage, Request } from "./parts/shared/control.ts";
import { endLog, log, say } from "./parts/server/log.ts";
import { isIgnored, maxOpenFiles } from "./parts/server/limits.ts";
import { readOptions } from "./parts/server/options.ts";
import { Pool } from "./parts/server/pool.ts";
import { WorkerProcess } from "./parts/server/process.ts";
import { Refusal, Refusals } from "./parts/server/refusal.ts";
import { Room } from "./parts/server/room.ts";
import { readTerms, readTermsOrEnd } from "./parts/server/terms.ts";
import { after, atMost } from "./parts/shared/timers.ts";

const options = readOptions(Bun.argv.slice(2));
if (options.hashPassword)
  await (await import("./parts/server/hash-password.ts")).printPasswordHash(); // and exit

const maxFiles = maxOpenFiles();
const maxClients = Math.min(options.maxClients, Math.floor((maxFiles - 30) / filesPerClient));
let terms = readTermsOrEnd(options); // on which the next client is served
const script = join(import.meta.dir, "worker.ts");
if (!existsSync(script)) fail(1, `there is no ${script}: run it with bun, from its folder`);
const limits = { maxLine: options.maxLine, plain: options.tlsCert !== undefined };
const start = () => new WorkerProcess(script, limits);
const pool = new Pool(start, options.spares, availableParallelism());
const room = await Room.open(options).catch((error: Error) => fail(1, error.message));
const connections = new Set<Connection>(); // from accept to their end
const refusals = new Refusals(maxFiles / 8);
let isStopping = false;

const server = createServer({ pauseOnConnect: true, noDelay: true, keepAlive: true }, (socket) => {
  // In TLS, only a worker could speak to the client.
  const silently = terms.tls !== undefined;
  serve(socket).catch((reason) => refusals.refuse(socket, reason, { silently }));
});
await listen();

// --- A connection --------------------------------------------------------------------------------

/** A connection from accept to its end. Rejects with a Refusal if the client cannot be served. */
async function serve(socket: Socket): Promise<void> {
  socket.on("error", () => {}); // the client may be gone at any moment
  const connection = new Connection(socket, options.maxLag);
  using _place = takePlace(connection);

  // 1. A process gets a copy of the socket. The server keeps one, too, and never reads it.
  let worker = await engage(socket);
  connection.serveBy(worker);
  const hasName = () => connection.asked === "name" || room.nameOf(connection) !== "";
  const isNew = () => !connection.isClosing && !hasName();
  using _question = after(500, () => {
    if (isNew() && !connection.asked) room.tell(connection, "your name?");
  });
  using _limit = after(options.joinTimeout * 1000, () => {
    if (isNew()) refuse(connection, `no name within ${options.joinTimeout} s, goodbye`);
  });

  try {
    for (;;) {
      // 2. Its lines are relayed and its requests are answered, in order, until it is reaped.
      for await (const said of worker) {
        if (!(said instanceof Uint8Array)) await answer(connection, said);
        else if (room.nameOf(connection)) await room.say(connection, said);
        else if (!connection.isClosing) worker.kill("spoke without having joined");
      }

      // 3. If it has died, another one takes over, and the client stays connected.
      connection.abandon();
      const name = room.nameOf(connection);
      if (!name || worker.wasKilled || terms.tls || isStopping || !connection.canBeServed) break;
      if (connection.deathToll) throw new Refusal("your process died too often, goodbye");
      const dead = worker;
      worker = await engage(socket, { name, isTorn: dead.isTorn });
      const isWhole = connection.serveBy(worker);
      room.takeOver(connection, dead.pid, await dead.ended);
      if (dead.isTorn) room.tell(connection, "a line of yours may be lost");
      if (!isWhole) room.tell(connection, "lines of others may be missing here");
    }
    socket.destroy();
  } finally {
    // 4. A client that did not leave before has left now.
    connection.fallSilent();
    const how = connection.reason || `${await worker.ended}${connection.deathToll}`;
    if (!connection.isClosing) room.leave(connection, ` (worker ${worker.pid} ${how})`);
  }
}

/** Passes a copy of a client's socket to a process that takes it: the third at the latest. */
async function engage(socket: Socket, heritage?: Heritage): Promise<WorkerProcess> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const worker = await (heritage ? pool.takeNext() : pool.take());
    if (await worker.serve(terms, socket, heritage)) return worker;
  }
  throw new Refusal("your process could not start, try again later");
}

/** Answers what a worker asks. One that is closing or killed gets no answer: it could join again. */
async function answer(connection: Connection, request: Request): Promise<void> {
  connection.asked = request.type;
  if (!connection.isOpen && request.type !== "leave") return;
  if (request.type === "leave") {
    connection.fallSilent();
    if (isStopping || connection.isClosing) return; // it still gets what the others have said
    room.leave(connection);
    return connection.close(10_000); // it may read its last lines slowly, but not for ever
  }
  if (request.type === "name") await room.name(connection, request.name);
  if (request.type === "refuse") return refuse(connection, request.text);
  if (request.type === "tell" || request.type === "warn") room.tell(connection, request.text);
  if (request.type === "warn") log(`${connection.address} was told: ${request.text}`);
  if (request.type === "who") await room.who(connection);
  connection.order({ type: "done", name: room.nameOf(connection) });
}

/** Takes a place for a connection, until it is disposed of. Throws a Refusal if there is none. */
function takePlace(connection: Connection): Disposable {
  const { address } = connection;
  const neighbours = connections.values().filter((other) => other.address === address);
  if (connections.size >= maxClients) throw new Refusal("server is full");
  if (options.maxPerAddress > 0 && [...neighbours].length >= options.maxPerAddress)
    throw new Refusal("too many connections from your address");
  connections.add(connection);
  return { [Symbol.dispose]: () => void connections.delete(connection) };
}

function refuse(connection: Connection, reason: string): void {
  log(`${connection.address} was refused: ${reason}`);
  sendAway(connection, reason);
}

function sendAway(connection: Connection, reason: string): void {
  room.tell(connection, reason);
  connection.close(1000);
}

// --- The end -------------------------------------------------------------------------------------

/** Ends everything within 2 s: accepts nobody, relays what is on its way, and tells everyone. */
async function shutDown(): Promise<void> {
  const all = [...connections];
  if (isStopping) all.forEach((connection) => connection.kill());
  if (isStopping) process.exit(130); // asked twice
  isStopping = true;
  server.close();
  pool.close();
  for (const connection of all) connection.order({ type: "finish" });
  await atMost(500, ...all.map((connection) => connection.silent));
  for (const connection of all) sendAway(connection, "server is shutting down");
  await atMost(1000, room.close(), ...all.map((connection) => connection.ended));
  for (const connection of all) connection.kill();
  await atMost(100, endLog()); // the terminal may be stopped
  process.exit();
}

// --- The start -----------------------------------------------------------------------------------

/** Reads certificate and password again; with a mistake in them, they stay as they were. */
function reload(): void {
  try {
    terms = readTerms(options);
    log("certificate and password read again");
  } catch (error) {
    log(`not read again: ${(error as Error).message}`);
  }
}

async function listen({ host, port } = options): Promise<void> {
  server.on("error", (error: NodeJS.ErrnoException) => {
    if (server.listening) return log(`cannot accept: ${error.message}`);
    if (error.code === "EADDRINUSE")
      fail(1, `port ${port} is taken: stop what uses it, or choose another with --port`);
    fail(1, `cannot listen on ${host}:${port} (${error.code}): is --host this machine's?`);
  });
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => void shutDown());
  if (!isIgnored(1))
    // under nohup(1), the end of the terminal is no reason to stop
    process.on("SIGHUP", () => void (terms.tls || terms.password ? reload() : shutDown()));
  const { address, family, port: taken } = server.address() as AddressInfo;
  say(`listening on ${family === "IPv6" ? `[${address}]` : address}:${taken} (pid ${process.pid})`);
  if (maxClients < options.maxClients)
    log(`only ${maxClients} clients at once: more need more than ${maxFiles} files (ulimit -n)`);
  pool.refill();
}
