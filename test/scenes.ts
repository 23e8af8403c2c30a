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
  long,
  numbered,
  root,
  type Server,
  startServer,
  state,
  until,
} from "./helpers.ts";

/** What is said after a fault, in long lines: more than one block. */
export const after = 200;

/** More than the kernel holds between two people, in long lines: 6 MB. */
export const flood = 3000;

/** Two people who chat on a server while something goes wrong with others. */
export interface Room extends Disposable {
  ann: Client;
  bob: Client;
  /** Says numbered long lines as ann, and checks that bob has all of them since the beginning. */
  talk(lines: number): Promise<void>;
  /** Waits until the server is as it was with ann and bob alone: no process or descriptor more. */
  settled(): Promise<void>;
}

/** Lets ann and bob join a server on which nobody else is, and waits for its spares. */
export async function openRoom(server: Server, spares = 1): Promise<Room> {
  const ann = await Client.connect(server, "ann");
  const bob = await Client.connect(server, "bob");
  await server.hasWorkers(2 + spares);
  await until(() => server.log.all.some((line) => /bob joined/.test(line)), "the log");
  const before = descriptors(server.pid);
  let said = 0;
  return {
    ann,
    bob,
    async talk(lines) {
      ann.send(numbered(lines, said, long));
      said += lines;
      await allHave([bob], "ann", said, long);
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
    [Symbol.dispose]() {
      ann[Symbol.dispose]();
      bob[Symbol.dispose]();
    },
  };
}

export const isPlain = process.env["PIPECHAT_PLAIN"] !== undefined; // without system calls, more may be lost

/** A copy of the server whose `worker.ts` a test can replace while it runs; it has no spares. */
export async function startWithWorker(
  source: string,
  ...args: string[]
): Promise<Server & { setWorker(source: string): void }> {
  const folder = mkdtempSync(join(tmpdir(), "pipechat-"));
  for (const file of ["server.ts", "package.json", "parts"])
    cpSync(join(root, file), join(folder, file), { recursive: true });
  const setWorker = (source: string) => writeFileSync(join(folder, "worker.ts"), source);
  setWorker(source);
  const options = { script: join(folder, "server.ts") };
  const server = await startServer(["--spares", "0", "--rate", "0", ...args], options);
  const end = server[Symbol.asyncDispose].bind(server);
  const disposeAll = async () => {
    await end();
    rmSync(folder, { recursive: true });
  };
  return Object.assign(server, { setWorker, [Symbol.asyncDispose]: disposeAll });
}

export const goodWorker = readFileSync(join(root, "worker.ts"), "utf8");
