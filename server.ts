#!/usr/bin/env bun
/**
 * pipechat's server: a chat with one process per connection. `bun server.ts --help` lists the options.
 *
 * It accepts a connection and passes its socket over IPC to a worker process (`worker.ts`). From then on it
 * relays whole lines, from each worker's stdout to every other worker's stdin, and answers what workers ask.
 * It never reads a byte from a client, so nothing that a client sends can hurt it. If a worker dies, another
 * one gets the socket, and the client chats on. Five acts, in this order below:
 *
 *     1. accept a connection    2. spawn a worker    3. pass the socket to the worker
 *     4. relay what the worker says to all others    5. give the client of a dead worker another one
 *
 * @module
 */
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { type Adopted, Adoption } from "./parts/server/adopt.ts";
import { broadcast } from "./parts/server/broadcast.ts";
import { Connection } from "./parts/server/connection.ts";
import { countPlaces, listen, obeySignals, shutDown } from "./parts/server/lifecycle.ts";
import { log } from "./parts/server/log.ts";
import { readOptions } from "./parts/server/options.ts";
import { Pool } from "./parts/server/pool.ts";
import { Places } from "./parts/server/places.ts";
import { maxOpenFiles } from "./parts/server/proc.ts";
import {
  type Child,
  type SpawnOptions,
  workerEnvironment,
  WorkerProcess,
} from "./parts/server/process.ts";
import { refuse, Refusal } from "./parts/server/refusal.ts";
import { openLink, Room } from "./parts/server/room.ts";
import { hasUnsaidLines, SocketCopy } from "./parts/server/sockets.ts";
import { readTermsAgain, readTermsOrEnd } from "./parts/server/terms.ts";
import { describeRoom } from "./parts/server/who.ts";
import { fail } from "./parts/shared/command-line.ts";
import type { Request } from "./parts/shared/control.ts";
import { haste } from "./parts/shared/testing.ts";
import { after } from "./parts/shared/timers.ts";

const flood = 16_384; // bytes in a block that only somebody in a hurry sends
const keepAliveInitialDelay = 60_000; // ms of silence; Bun then asks the client once a second, ten times
const maxQuickDeaths = 5; // of workers in a row that die within a second after they got a client

const options = await readOptions(Bun.argv.slice(2));

const script = join(import.meta.dir, "worker.ts");
if (!existsSync(script)) fail(1, `there is no ${script}: run it with bun, from its folder`);
const maxFiles = maxOpenFiles();
const maxClients = countPlaces(options, maxFiles);
let terms = await readTermsOrEnd(options); // on which the next client is served

const places = new Places(maxClients, options.maxPerAddress);
const pool = new Pool(startWorker, options.spares, availableParallelism()); // parts/server/pool.ts
const room = new Room<Connection>(relay, await openLink(options)); // parts/server/room.ts
const adoption = new Adoption({ room, relay, serve, maxLag: options.maxLag }); // parts/server/adopt.ts

// 1. Accept a connection, and keep a copy of its socket: parts/server/connection.ts. Nobody reads it here.
const accepting = { pauseOnConnect: true, noDelay: true, keepAlive: true, keepAliveInitialDelay };
const server = createServer(accepting, (socket) => {
  const connection = new Connection(new SocketCopy(socket), options.maxLag);
  connection.life = serve(connection);
});
obeySignals(
  (how) => shutDown({ pool, room, places, adoption }, how),
  terms.tls || terms.password
    ? async () => void (terms = await readTermsAgain(options, terms))
    : undefined,
);
await listen(server, accepting, options);
adoption.open(server, options.port !== 0 && !terms.tls);
if (maxClients < options.maxClients)
  log(`only ${maxClients} clients at once: more need more than ${maxFiles} files (ulimit -n)`);
pool.refill();

/** 2. Spawns a worker. Lines go over its stdin and stdout; the socket and control messages over IPC. */
function startWorker(): WorkerProcess {
  const spawn = ({ args, ...channels }: SpawnOptions) =>
    Bun.spawn({
      cmd: [process.execPath, script, ...args],
      cwd: "/",
      env: workerEnvironment,
      // A session of its own: a signal to the server's group (Ctrl-C, timeout(1)) is for the server, which
      // ends its workers in order.
      detached: true,
      ...channels, // stdio, ipc and onDisconnect: parts/server/process.ts
    });
  const { maxLine, rate } = options;
  return new WorkerProcess(spawn, { maxLine, rate, isPlain: terms.tls !== undefined });
}

/** A connection's life. An error in it ends this connection, and no other. */
async function serve(connection: Connection, adopted?: Adopted): Promise<void> {
  let worker: WorkerProcess | undefined;
  try {
    using _place = places.take(connection); // parts/server/places.ts
    await adoption.complete; // the clients of a dead server come first
    worker = await handOver(connection, adopted?.isTorn);
    adopted?.settle(worker);
    connection.give(worker);
    using _question = after(500 / haste, () => {
      if (connection.isBefore("heard")) connection.tell("your name?");
    });
    using _limit = after((options.joinTimeout * 1000) / haste, () => {
      const reason = `no name within ${options.joinTimeout} s, goodbye`;
      if (connection.isBefore("named")) connection.refuse(reason);
    });
    for (let quickDeaths = 0; ; worker = await replace(connection, worker)) {
      const start = performance.now();
      const current = worker;
      // Acts 4 and 5: each thing that the worker says comes here, until it is dead and reaped.
      await current.read((said) => {
        if (!(said instanceof Uint8Array)) return answer(connection, said);
        if (connection.name) return relay(said, connection);
        return current.kill("spoke without having joined");
      });
      if (!needsHeir(connection, worker)) break;
      quickDeaths = performance.now() - start < 1000 ? quickDeaths + 1 : 0;
      if (quickDeaths === maxQuickDeaths) throw new Refusal("your process died too often, goodbye");
    }
  } catch (error) {
    if (!connection.closed.aborted)
      refuse(connection, error, { maxWaiting: maxFiles / 8, silently: terms.tls !== undefined });
  } finally {
    connection.kill(); // its process, too, if that lives
    connection.client.close();
    const how = connection.reason || (await worker?.ended);
    if (!pool.isClosed) room.leave(connection, worker && ` (worker ${worker.pid} ${how})`);
  }
}

/** Whether a client needs another worker: not if it has gone, or has got all that it waited for. */
function needsHeir(connection: Connection, dead: WorkerProcess): boolean {
  if (dead.wasKilled || pool.isClosed || connection.client.isClosed) return false;
  if (!connection.isBefore("silent")) return connection.isBefore("closed") && !dead.hasFinished;
  if (!connection.name || terms.tls) throw new Refusal("your process died, connect again");
  return true;
}

/** 3. Passes a copy of a client's socket to a worker. `isTorn`: its last one, if any, left half a line. */
async function handOver(connection: Connection, isTorn?: boolean): Promise<WorkerProcess> {
  const { client, closed } = connection;
  for (let pause = 0; pause < 2000; pause = 2 * pause + 10) {
    if (pause > 0) await Bun.sleep(pause);
    const worker = await pool.take({ isUrgent: isTorn !== undefined, signal: closed });
    if (client.isClosed) {
      pool.put(worker);
      throw new Refusal("the connection was reset");
    }
    const { name, isOpen } = connection;
    const heritage = isTorn === undefined ? undefined : { name, isTorn, isLeaving: !isOpen };
    const order = { type: "serve", ...terms, heritage, meeting: adoption.meeting } as const;
    const pass = (child: Child) =>
      client.lend((socket) => child.send(order, socket, { keepOpen: true }));
    if (await worker.serve(pass, isTorn)) return worker; // else it is dead, or hangs
  }
  throw new Refusal("your process could not start, try again later");
}

/** 4. Writes whole lines to every client but their speaker. Pending while a flood has to wait. */
function relay(block: Uint8Array, speaker?: Connection): Promise<void> | undefined {
  const others = [...room.members].filter((member) => member !== speaker);
  broadcast(block, others); // one call of C for all who wait for nothing; the rest may wait: outlet.ts
  if (speaker) room.link?.append(block); // for other servers of the room
  if (options.verbose) `${Buffer.from(block)}`.trimEnd().split("\n").forEach(log);
  return block.length < flood ? undefined : room.catchUp();
}

/** 5. Gives the client of a dead worker another one, and tells everyone. */
async function replace(connection: Connection, dead: WorkerProcess): Promise<WorkerProcess> {
  const { torn: isTorn } = dead.holds;
  const lines = dead.holds.lines || hasUnsaidLines(connection.client.descriptor);
  const heir = await handOver(connection, isTorn);
  const isWhole = connection.give(heir); // what the dead one had not passed on goes out again
  if (connection.name) room.takeOver(connection, dead.pid, await dead.ended);
  connection.tellLosses(lines ? "lines" : isTorn ? "a line" : "", !isWhole);
  return heir;
}

/** Answers what a worker asks, when all is relayed that it has said before. */
async function answer(connection: Connection, request: Request): Promise<void> {
  if (request.type === "leave") {
    if (!connection.move("silent") || pool.isClosed) return; // it still gets what the others have said
    room.leave(connection);
    return connection.close(10_000); // it may read its last lines slowly, but not for ever
  }
  if (!connection.isOpen) return;
  connection.move(request.type === "name" ? "named" : "heard");
  if (request.type === "refuse") return connection.refuse(request.text);
  if (request.type === "mark") connection.mark();
  if (request.type === "name") await room.name(connection, request.name);
  else if (request.type !== "who") connection.tell(request.text);
  else if (connection.name) connection.tell(await describeRoom(room, connection)); // parts/server/who.ts
  if (request.type === "warn") log(`${connection.address} was told: ${request.text}`);
  connection.order({ type: "done" });
}
