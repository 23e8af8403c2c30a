/**
 * How the server begins to listen, which signals it obeys, and how it ends.
 *
 * @module
 */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type ServerOpts } from "node:net";
import { fail } from "../shared/command-line.ts";
import { atMost } from "../shared/timers.ts";
import type { Adoption } from "./adopt.ts";
import { type Connection, filesPerClient } from "./connection.ts";
import { endLog, log, say } from "./log.ts";
import type { Options } from "./options.ts";
import type { Places } from "./places.ts";
import type { Pool } from "./pool.ts";
import { isIgnored } from "./proc.ts";
import type { WorkerProcess } from "./process.ts";
import type { Room } from "./room.ts";

const ownFiles = 29; // that the server itself needs: 10, and a few for connections that are refused

/**
 * How many clients there can be at once, next to the spares, if `maxFiles` may be open. Ends the process, with a
 * line that says what to do, if there can be none.
 */
export function countPlaces({ maxClients, spares }: Options, maxFiles: number): number {
  const needed = ownFiles + spares * (filesPerClient - 1); // a spare has no client's socket
  const places = Math.floor((maxFiles - needed) / filesPerClient);
  if (places < 1)
    fail(
      1,
      `${maxFiles} open files are too few for ${spares} spares and a client: ulimit -n ${needed + filesPerClient}`,
    );
  return Math.min(maxClients, places);
}

const listeners: Server[] = [];

/** Listens, and says so. Ends the process, with a line that says what to do, if that is not possible. */
export async function listen(
  server: Server,
  accepting: ServerOpts,
  { host, port }: Options,
): Promise<void> {
  try {
    listeners.push(...(await open(server, accepting, host, port)));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EADDRINUSE")
      fail(1, `port ${port} is taken: stop what uses it, or choose another with --port`);
    fail(1, `cannot listen on ${host}:${port} (${code}): is --host this machine's?`);
  }
  for (const listener of listeners)
    listener.on("error", (error) => log(`cannot accept: ${error.message}`));
  const all = listeners.map((listener) => {
    const { address, family, port } = listener.address() as AddressInfo;
    return `${family === "IPv6" ? `[${address}]` : address}:${port}`;
  });
  say(`listening on ${all.join(" and ")} (pid ${process.pid})`);
}

/**
 * Listens on a host; on both addresses of `localhost`, because a client may try only one. The second listener
 * passes its connections to the server. Rejects if that is not possible.
 */
async function open(
  server: Server,
  accepting: ServerOpts,
  host: string,
  port: number,
  attempts = 10,
): Promise<Server[]> {
  await bind(server, host === "localhost" ? "127.0.0.1" : host, port);
  if (host !== "localhost") return [server];
  const second = createServer(accepting, (socket) => void server.emit("connection", socket));
  try {
    await bind(second, "::1", (server.address() as AddressInfo).port);
    return [server, second];
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EADDRINUSE") return [server]; // there is no IPv6
    if (port !== 0 || attempts === 1) throw error;
    await new Promise((closed) => server.close(closed));
    return open(server, accepting, host, port, attempts - 1); // another port may be free on both
  }
}

async function bind(server: Server, host: string, port: number): Promise<void> {
  server.listen(port, host);
  await once(server, "listening"); // or "error", at which it rejects
}

/** What the clients are to do at the server's end: leave, or wait for the next server. */
type How = "finish" | "wait";

/** Obeys signals: SIGHUP reads again what there is to read. */
export function obeySignals(shutDown: (how: How) => Promise<void>, reload?: () => void): void {
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => void shutDown("finish"));
  process.on("SIGUSR2", () => void shutDown("wait"));
  // Under nohup(1), the end of the terminal is no reason to stop.
  if (!isIgnored(1)) process.on("SIGHUP", reload ?? (() => void shutDown("finish")));
}

const partingTimeout = 5000; // for the workers to say the last lines, and again to read theirs, ms

/** Everything that has to end. */
export interface Running {
  pool: Pool<WorkerProcess>;
  room: Room<Connection>;
  places: Places;
  adoption: Adoption;
}

/**
 * Ends everything within 2 s: accepts nobody, relays what is on its way, and tells everyone. If the clients
 * are to wait, their processes get all that waits for them here; that takes longer if it is much.
 */
export async function shutDown(running: Running, how: How): Promise<void> {
  const { pool, room, places, adoption } = running;
  if (pool.isClosed) {
    pool.kill();
    process.exit(130); // asked twice
  }
  adoption.close(); // while the address is ours
  for (const listener of listeners) listener.close();
  if (how === "wait") await adoption.settled();
  if (pool.isClosed) return; // another signal was quicker
  const all = [...places.connections];
  pool.close();
  for (const connection of all) connection.order({ type: how });
  if (how === "wait") {
    await atMost(partingTimeout, ...all.map((connection) => connection.silent));
    for (const connection of all) connection.close(2 * partingTimeout);
    const passed = all.map((connection) => connection.passed);
    await atMost(partingTimeout, room.link?.close("keep"), ...passed);
    log("going, clients wait for the next server");
  } else {
    await atMost(500, ...all.map((connection) => connection.silent));
    for (const connection of all) connection.sendAway("server is shutting down");
    await atMost(1000, room.link?.close("leave"), ...all.map((connection) => connection.life));
    pool.kill();
  }
  await atMost(100, endLog()); // the terminal may be stopped
  process.exit();
}
