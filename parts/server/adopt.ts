/**
 * The clients of a server that has died. Their workers keep them, and pass their sockets to the next server
 * on the same address, through a Unix socket in a folder that only this user can enter:
 *
 *     worker ──socket, then an Offer as a line of JSON──▶ new server
 *     worker ◀──"taken", when a worker of the new server serves the client── new server
 *
 * Nobody is heard, and nobody joins, before all who wait are back: so nobody misses a line, and nobody finds
 * its name taken.
 *
 * @module
 */
import { lstatSync, mkdirSync, rmSync } from "node:fs";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Heritage, isOffer, type Meeting, type Offer } from "../shared/control.ts";
import { native } from "../shared/native.ts";
import { Connection } from "./connection.ts";
import { log } from "./log.ts";
import type { WorkerProcess } from "./process.ts";
import type { Room } from "./room.ts";
import { bytesWritten, close, SocketCopy, socketOf } from "./sockets.ts";

const quiet = 500; // all are back when nobody has come for so long, ms
const openFor = 30_000; // after that, nobody waits any more, ms
const patience = 5000; // for a worker to pass its client's socket, ms
const maxPath = 107; // bytes in the path of a Unix socket

/** A worker that offers its client. */
interface Visit {
  /** The client's socket; negative before it has come, and after it was adopted. */
  client: number;
  /** What has come of the offer. */
  text: Buffer[];
  size: number;
}
type Visitor = Bun.Socket<Visit> & { readonly fd?: number };

/** A client that was adopted, and who has offered it: two, if the server before us died while it did the same. */
interface Adopted extends Offer {
  visitors: Visitor[];
}

/** What it needs of the server. */
interface Host {
  room: Room<Connection>;
  maxLag: number;
  serve(connection: Connection): Promise<void>;
  relay(block: Uint8Array, speaker: Connection): Promise<void> | undefined;
}

/** Adopts the clients that wait for this server. */
export class Adoption {
  /** Where this server's workers will find the next one; undefined if they are not to wait. */
  meeting: Meeting | undefined;
  /** Resolves when all are back who wait. */
  readonly complete: Promise<void>;
  readonly #host: Host;
  readonly #adopted = new Map<Connection, Adopted>();
  readonly #complete = Promise.withResolvers<void>();
  #online = Promise.resolve(0); // people, when the last one was adopted
  #isComplete = false;
  #quiet: Timer | undefined;
  #listener: Bun.UnixSocketListener<Visit> | undefined;

  constructor(host: Host) {
    this.#host = host;
    this.complete = this.#complete.promise;
  }

  /** Adopts whoever waits for a server on this one's address. */
  open(server: Server, canAdopt: boolean): void {
    if (!canAdopt || !native) return this.#skip();
    try {
      const path = pathFor(server);
      rmSync(path, { force: true }); // only we listen on that address: who left it is dead
      this.#listener = Bun.listen<Visit>({
        unix: path,
        socket: {
          open: (visitor) => void this.#open(visitor),
          data: (visitor, chunk) => this.#hear(visitor, chunk),
          close: ({ data }) => close(data.client),
          error: () => {},
        },
      });
      this.meeting = { path, server: this.#host.room.link?.id };
      this.#wait();
      setTimeout(() => this.close(), openFor).unref();
    } catch (error) {
      log(`if this server is killed, its clients are lost: ${(error as Error).message}`);
      this.#skip();
    }
  }

  /** Adopts nobody. */
  #skip(): void {
    this.#isComplete = true;
    this.#complete.resolve();
  }

  /** Adopts nobody any more. */
  close(): void {
    this.#listener?.stop();
    if (this.#listener) rmSync(this.meeting!.path, { force: true });
    this.#listener = undefined;
  }

  /** What the first process of a connection takes over; undefined if the connection is new. */
  heritage(connection: Connection): Heritage | undefined {
    const isTorn = this.#adopted.get(connection)?.isTorn;
    return isTorn === undefined ? undefined : { name: connection.name, isTorn, isLeaving: false };
  }

  /** A process begins to serve a connection. */
  settle(connection: Connection, worker: WorkerProcess): void {
    const adopted = this.#adopted.get(connection);
    // First of all: should we die between these two, nothing must be shown twice.
    if (adopted) dismiss(adopted);
    connection.give(worker);
    if (!adopted) return;
    const { address, name, pid } = connection;
    log(`worker ${pid} (${address}): ${name} was adopted from worker ${adopted.pid}`);
    this.#host.room.link?.setPid(name, pid);
    this.#relayUnsaid(connection, adopted);
  }

  #relayUnsaid(connection: Connection, adopted: Adopted): void {
    if (adopted.unsaid) void this.#host.relay(Buffer.from(adopted.unsaid), connection);
    adopted.unsaid = "";
  }

  /** All are back when nobody has come for a while. */
  #wait(): void {
    clearTimeout(this.#quiet);
    if (!this.#isComplete) this.#quiet = setTimeout(() => void this.#end(), quiet);
  }

  async #end(): Promise<void> {
    this.#isComplete = true;
    const online = await this.#online;
    const all = [...this.#adopted];
    const mayMiss = all.some(([, { mayLack }]) => mayLack);
    for (const [connection, adopted] of all) greet(connection, adopted, online, mayMiss);
    this.#complete.resolve();
  }

  /** Waits for the client's socket. Bun must not read before: it would drop the descriptor. */
  async #open(visitor: Visitor): Promise<void> {
    visitor.pause();
    visitor.data = { client: -1, text: [], size: 0 };
    this.#wait();
    for (let waited = 0; visitor.readyState > 0 && waited < patience; waited += 5) {
      const client = native!.accept_passed(visitor.fd!);
      if (client >= 0) {
        visitor.data.client = client;
        return void visitor.resume();
      }
      if (client === -2) break;
      await Bun.sleep(5);
    }
    refuse(visitor, "it has passed no socket");
  }

  #hear(visitor: Visitor, chunk: Buffer): void {
    this.#wait();
    const { data } = visitor;
    data.text.push(Buffer.from(chunk));
    data.size += chunk.length;
    if (data.size > 2 * this.#host.maxLag + 2 ** 20) return refuse(visitor, "it is too long");
    if (chunk.at(-1) !== 0x0a) return;
    const offer = parse(Buffer.concat(data.text.splice(0)));
    if (!offer) return refuse(visitor, "it cannot be understood");
    if (bytesWritten(data.client) === undefined) return refuse(visitor, "it is no TCP socket");
    void this.#adopt(visitor, offer);
  }

  async #adopt(visitor: Visitor, offer: Offer): Promise<void> {
    const { room, maxLag, serve } = this.#host;
    const client = new SocketCopy(socketOf(visitor.data.client));
    visitor.data.client = -1;
    const unshown = Buffer.from(offer.unshown, "base64");
    for (const [connection, adopted] of this.#adopted) {
      const { port } = connection.client;
      if (adopted.name !== offer.name || !port || port !== client.port) continue;
      client.close();
      adopted.visitors.push(visitor);
      adopted.unsaid += offer.unsaid;
      adopted.isTorn ||= offer.isTorn;
      adopted.mayLack ||= offer.mayLack;
      if (connection.pid === 0) return connection.push(unshown);
      // Too late: a process serves it, and newer lines were shown.
      dismiss(adopted);
      this.#relayUnsaid(connection, adopted);
      if (unshown.length > 0) connection.tell("lines of others may be missing here");
      return;
    }
    const connection = new Connection(client, maxLag);
    const adopted = { ...offer, visitors: [visitor] };
    connection.move("named");
    connection.push(unshown);
    this.#adopted.set(connection, adopted);
    const online = room.adopt(connection, offer.name, offer.server);
    if (this.#isComplete) greet(connection, adopted, await online, true);
    else this.#online = online;
    connection.life = serve(connection).finally(() => {
      dismiss(adopted);
      this.#adopted.delete(connection);
    });
  }
}

/** Tells an adopted client that a server is back, and what may be missing. */
function greet(connection: Connection, offer: Offer, online: number, mayMiss: boolean): void {
  if (offer.isTorn || offer.mayLack) connection.tell("a line of yours may be lost");
  if (mayMiss) connection.tell("lines of others may be missing here");
  connection.tell(`the server is back (${online} online)`);
}

/** Tells those who have offered a client that it is served. */
function dismiss({ visitors }: Adopted): void {
  for (const visitor of visitors.splice(0)) visitor.end("taken\n");
}

function refuse(visitor: Visitor, reason: string): void {
  log(`a client that was offered was not adopted: ${reason}`);
  visitor.end("refused\n"); // else it would come again
}

function parse(text: Buffer): Offer | undefined {
  try {
    const offer: unknown = JSON.parse(`${text}`);
    return isOffer(offer) ? offer : undefined;
  } catch {
    return undefined;
  }
}

/** The path of the Unix socket that belongs to a server's address. Throws if there is no safe place for it. */
function pathFor(server: Server): string {
  const { address, port } = server.address() as AddressInfo;
  const runtime = process.env["XDG_RUNTIME_DIR"];
  const uid = process.getuid!();
  const folder = runtime ? join(runtime, "pipechat") : join(tmpdir(), `pipechat-${uid}`);
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  const stat = lstatSync(folder); // of a link, not of what it leads to
  if (!stat.isDirectory() || stat.uid !== uid || stat.mode & 0o077)
    throw new Error(`${folder} is not a folder that only you can enter`);
  const path = join(folder, `${address}:${port}`);
  if (Buffer.byteLength(path) > maxPath) throw new Error(`${path} is too long for a Unix socket`);
  return path;
}
