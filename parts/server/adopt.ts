/**
 * The clients of a server that has died. Their workers keep them, and pass their sockets to the next server
 * on the same address, through a Unix socket in a folder that only this user can enter:
 *
 *     worker ──socket, then an Offer as a line of JSON──▶ new server
 *     worker ◀──"heard"; and "taken", when a worker of the new server serves the client── new server
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
import { type Meeting, type Offer, parseOffer } from "../shared/control.ts";
import { native } from "../shared/native.ts";
import { Connection } from "./connection.ts";
import { log } from "./log.ts";
import type { WorkerProcess } from "./process.ts";
import type { Room } from "./room.ts";
import { bytesWritten, close, SocketCopy, socketOf } from "./sockets.ts";

const quiet = 500; // all are back when nobody has come for so long, ms
const patience = 5000; // for a worker to pass its client's socket, ms

/** A worker that offers its client. */
type Visitor = Bun.Socket<Visit> & { readonly fd?: number };
interface Visit {
  client: number; // its socket; negative before it has come, and after it was adopted
  text: string; // what has come of the offer, a character for each byte
}

/** What a client brings that was adopted. */
export interface Adopted {
  /** Whether the beginning of one of its lines may be lost. */
  isTorn: boolean;
  /** A worker of this server has the client now, and the one that offered it may go. */
  settle(worker: WorkerProcess): void;
}

/** What it needs of the server. */
interface Host {
  room: Room<Connection>;
  maxLag: number;
  serve(connection: Connection, adopted: Adopted): Promise<void>;
  relay(block: Uint8Array, speaker: Connection): Promise<void> | undefined;
}

/** Adopts the clients that wait for this server. */
export class Adoption {
  /** Where this server's workers will find the next one; undefined if they are not to wait. */
  meeting: Meeting | undefined;
  readonly #complete = Promise.withResolvers<void>();
  /** Resolves when all are back who wait. */
  readonly complete = this.#complete.promise;
  readonly #host: Host;
  readonly #visitors = new Set<Visitor>(); // who have no answer yet
  #online = Promise.resolve(0); // people, when the last one was adopted
  #isComplete = false;
  #mayMiss = false; // somebody's line may be lost
  #quiet: Timer | undefined;
  #listener: Bun.UnixSocketListener<Visit> | undefined;

  constructor(host: Host) {
    this.#host = host;
  }

  /** Adopts whoever waits for a server on this one's address. */
  open(server: Server, canAdopt: boolean): void {
    if (!canAdopt || !native) return this.#wait(0);
    try {
      const path = pathFor(server);
      rmSync(path, { force: true }); // only we listen on that address: who left it is dead
      this.#listener = Bun.listen<Visit>({
        unix: path,
        socket: {
          open: (visitor) => void this.#open(visitor),
          data: (visitor, chunk) => this.#hear(visitor, chunk),
          close: (visitor) => this.#close(visitor),
          error: () => {},
        },
      });
      this.meeting = { path, server: this.#host.room.link?.id };
      this.#wait();
      setTimeout(() => this.close(), 30_000).unref(); // nobody waits any more
    } catch (error) {
      log(`if this server is killed, its clients are lost: ${(error as Error).message}`);
      this.#wait(0);
    }
  }

  /** Resolves when all who have come are served by workers of this server, or have gone. */
  async settled(): Promise<void> {
    while (this.#visitors.size > 0) await Bun.sleep(10);
  }

  /** Adopts nobody any more. */
  close(): void {
    if (this.#listener) rmSync(this.meeting!.path, { force: true });
    this.#listener?.stop();
    this.#listener = undefined; // soon the path may be the next server's
  }

  /** All are back when nobody has come for a while. */
  #wait(ms = quiet): void {
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(async () => {
      this.#isComplete = true;
      await this.#online;
      this.#complete.resolve();
    }, ms);
  }

  /** Waits for the client's socket. Bun must not read before: it would drop the descriptor. */
  async #open(visitor: Visitor): Promise<void> {
    visitor.pause();
    visitor.data = { client: -1, text: "" };
    this.#visitors.add(visitor);
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

  #close(visitor: Visitor): void {
    this.#visitors.delete(visitor);
    close(visitor.data.client);
  }

  #hear(visitor: Visitor, chunk: Buffer): void {
    this.#wait();
    const { data } = visitor;
    data.text += chunk.toString("latin1");
    if (data.text.length > 2 * this.#host.maxLag + 2 ** 20)
      return refuse(visitor, "it is too long");
    if (chunk.at(-1) !== 0x0a) return;
    const offer = parseOffer(`${Buffer.from(data.text, "latin1")}`);
    data.text = ""; // it may be long
    if (!offer) return refuse(visitor, "it cannot be understood");
    if (bytesWritten(data.client) === undefined) return refuse(visitor, "it is no TCP socket");
    const client = new SocketCopy(socketOf(data.client));
    data.client = -1;
    visitor.write("heard\n");
    void this.#adopt(visitor, client, offer);
  }

  async #adopt(visitor: Visitor, client: SocketCopy, offer: Offer): Promise<void> {
    const { room, maxLag, serve, relay } = this.#host;
    const { pid, isTorn, mayLack, unsaid } = offer;
    const { peer } = client;
    this.#mayMiss ||= mayLack;
    const twin = peer && room.members.values().find((member) => member.client.peer === peer);
    if (twin) {
      // The server before us died while it adopted: two workers have the client. What this one knows is lost.
      client.close();
      visitor.end("taken\n");
      this.#mayMiss = true;
      return twin.tellLosses("lines", true);
    }
    const connection = new Connection(client, maxLag);
    connection.move("named");
    connection.push(Buffer.from(offer.unshown, "base64"));
    const dismiss = () => void visitor.end("taken\n");
    const settle = (worker: WorkerProcess) => {
      dismiss(); // first of all: should we die before the worker has the rest, nothing is shown twice
      const { name, address } = connection;
      log(`worker ${worker.pid} (${address}): ${name} was adopted from worker ${pid}`);
      room.link?.setPid(name, worker.pid);
      if (unsaid) void relay(Buffer.from(unsaid), connection);
    };
    this.#online = room.adopt(connection, offer.name, offer.server);
    const isLate = this.#isComplete;
    if (isLate) await this.#online; // others may have got the name
    connection.life = serve(connection, { isTorn, settle }).finally(dismiss);
    await this.complete;
    connection.tellLosses(isTorn || mayLack ? "a line" : "", isLate || this.#mayMiss);
    connection.tell(`the server is back (${await this.#online} online)`);
  }
}

function refuse(visitor: Visitor, reason: string): void {
  log(`a client that was offered was not adopted: ${reason}`);
  if (visitor.end("refused\n") < 0) visitor.terminate(); // without an answer, it would come again
}

/** The path of the Unix socket that belongs to a server's address. Throws if there is no safe place for it. */
function pathFor(server: Server): string {
  const { address, port } = server.address() as AddressInfo;
  const runtime = process.env["XDG_RUNTIME_DIR"];
  const uid = process.getuid!();
  const folder = runtime ? join(runtime, "pipechat") : join(tmpdir(), `pipechat-${uid}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 }); // it may be there
  const stat = lstatSync(folder); // of a link, not of what it leads to
  if (!stat.isDirectory() || stat.uid !== uid || stat.mode & 0o077)
    throw new Error(`${folder} is not a folder that only you can enter`);
  return join(folder, `${address}:${port}`); // Bun bears a path that is longer than sun_path (unix(7))
}
