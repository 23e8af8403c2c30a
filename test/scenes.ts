/**
 * Situations that several tests begin with.
 *
 * @module
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  allHave,
  Client,
  descriptors,
  isAlive,
  numbered,
  root,
  type Server,
  startServer,
  state,
  until,
} from "./helpers.ts";

/** What is said after a fault, in lines of 200 bytes: more than one block. */
export const after = 2000;

/** More than the kernel holds between two people, in lines of 200 bytes: 4 MB. */
export const flood = 20_000;

export interface Room extends AsyncDisposable {
  server: Server;
  ann: Client;
  bob: Client;
  /** Says numbered lines as ann, and checks that bob has all of them since the beginning. */
  talk(lines: number): Promise<void>;
  /** Waits until the server is as it was with ann and bob alone: no process or descriptor more. */
  settled(): Promise<void>;
}

/** A server on which ann and bob chat while something goes wrong with others. */
export async function openRoom(args: string[] = []): Promise<Room> {
  const server = await startServer(["--rate", "0", ...args]);
  const ann = await Client.connect(server, "ann");
  const bob = await Client.connect(server, "bob");
  const spares = args.includes("--spares") ? Number(args[args.indexOf("--spares") + 1]) : 1;
  await until(
    () => server.workers().length === 2 + spares,
    "the spare",
    () => server.workers(),
  );
  const before = descriptors(server.pid);
  let said = 0;
  return {
    server,
    ann,
    bob,
    async talk(lines) {
      ann.send(numbered(lines, said));
      said += lines;
      await allHave([bob], "ann", said);
    },
    async settled() {
      const now = () => [server.workers().map(state), descriptors(server.pid)];
      const calm = () => {
        const workers = server.workers();
        if (workers.length !== 2 + spares || !workers.every(isAlive)) return false; // or not reaped
        return descriptors(server.pid) <= before;
      };
      await until(calm, `${2 + spares} living workers and ${before} descriptors`, now);
    },
    async [Symbol.asyncDispose]() {
      ann[Symbol.dispose]();
      bob[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

export const isPlain = process.env["PIPECHAT_PLAIN"] !== undefined; // without system calls, more may be lost

/** A copy of the server whose `worker.ts` a test can replace while it runs. */
export async function startWithWorker(
  source: string,
  ...args: string[]
): Promise<{ server: Server; setWorker(source: string): void }> {
  const folder = mkdtempSync(join(tmpdir(), "pipechat-"));
  for (const file of ["server.ts", "package.json", "parts"])
    cpSync(join(root, file), join(folder, file), { recursive: true });
  const setWorker = (source: string) => writeFileSync(join(folder, "worker.ts"), source);
  setWorker(source);
  const options = { script: join(folder, "server.ts") };
  const server = await startServer(["--spares", "0", "--rate", "0", ...args], options);
  const end = server[Symbol.asyncDispose].bind(server);
  server[Symbol.asyncDispose] = async () => {
    await end();
    rmSync(folder, { recursive: true });
  };
  return { server, setWorker };
}

export const goodWorker = readFileSync(join(root, "worker.ts"), "utf8");
