/**
 * A client whose server is gone: its socket is offered to the next one, again and again, until one takes it.
 *
 * @module
 */
import { rm, stat } from "node:fs/promises";
import type { Offer } from "../shared/control.ts";
import { native } from "../shared/native.ts";
import type { Remains } from "./relay.ts";
import type { Server } from "./requests.ts";

const patience = 10_000; // for a server to come, ms
const pause = 200; // between two attempts, ms

/**
 * Lets a client wait for the next server, ten seconds at most. Once a server listens, the client waits as
 * long as that lives, and begins anew if it dies as well.
 *
 * @param remains what is sent to the client meanwhile goes out of `unshown`
 * @returns whether a server has the client now
 */
export async function waitForServer(server: Server, remains: Remains): Promise<boolean> {
  const { meeting, name } = server;
  if (!meeting || !native) return false;
  const { client, isTorn, unsaid } = remains;
  const mayLack = remains.mayLack || server.hasFailed;
  const [receiver, sent] = [Int32Array.of(client), new Int32Array(1)];
  const show = (text: string) =>
    void (remains.unshown = Buffer.concat([remains.unshown, Buffer.from(text)]));
  const missing = "* lines of others may be missing here\n";
  const notice = `* the server is gone, waiting for another (${patience / 1000} s)\n`;
  show((remains.isMidLine ? "\n" : "") + (remains.mayMiss ? missing : "") + notice);
  const describe = (): Offer => {
    const unshown = remains.unshown.toString("base64");
    return { pid: process.pid, name, isTorn, unsaid, unshown, mayLack, server: meeting.server };
  };
  const made = async () => (await stat(meeting.path).catch(() => undefined))?.ctimeMs;
  let old = await made(); // what a dead server may have left
  // Pauses count, not the time that passes: where a thousand wait, a pause is longer, and the server late, too.
  for (let waited = 0; waited < patience; waited += pause) {
    native.broadcast(receiver, 1, remains.unshown, remains.unshown.length, sent);
    remains.unshown = remains.unshown.subarray(sent[0]);
    await Bun.sleep(pause);
    const isAnswered = await visit(meeting.path, client, describe).catch(() => null);
    if (isAnswered) return true;
    if (isAnswered === null) continue; // nobody listens
    old = await made(); // that server may have left one, too
    if (isAnswered === undefined) continue; // it died before it had heard us
    show(missing); // it may have had lines for the client
    waited = 0;
  }
  // Another one may be the next server's, which has just come, and has the others to take.
  if ((await made()) === old) await rm(meeting.path, { force: true }).catch(() => {});
  return false;
}

/**
 * Offers a client to the server that listens at a path; gives whether that has answered, or died after it had
 * heard the offer; undefined if it died before. Rejects if none listens.
 */
async function visit(
  path: string,
  client: number,
  describe: () => Offer,
): Promise<boolean | undefined> {
  const { promise, resolve } = Promise.withResolvers<boolean | undefined>();
  let rest: Buffer;
  let isAnswered: false | undefined;
  const write = (socket: Bun.Socket) =>
    void (rest = rest.subarray(Math.max(0, socket.write(rest))));
  const open = (socket: Bun.Socket & { fd?: number }) => {
    if (!native!.pass(socket.fd!, client)) return socket.terminate();
    rest = Buffer.from(`${JSON.stringify(describe())}\n`);
    write(socket);
  };
  const data = (_: Bun.Socket, chunk: Buffer) => {
    if (`${chunk}` === "heard\n") isAnswered = false;
    else resolve(true);
  };
  const close = () => resolve(isAnswered);
  await Bun.connect({ unix: path, socket: { open, drain: write, data, close, error: close } });
  return promise;
}
