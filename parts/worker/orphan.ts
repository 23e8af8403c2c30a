/**
 * A client whose server is gone: its socket is offered to the next one, again and again, until one takes it.
 *
 * @module
 */
import { rm } from "node:fs/promises";
import type { Offer } from "../shared/control.ts";
import { native } from "../shared/native.ts";
import type { Remains } from "./relay.ts";
import type { Server } from "./requests.ts";

const patience = 10_000; // for a server to come, ms
const pause = 200; // between two attempts, ms: a thousand workers must leave time for the server to start

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
  const [receiver, sent] = [Int32Array.of(client), new Int32Array(1)];
  const show = (text: string) =>
    void (remains.unshown = Buffer.concat([remains.unshown, Buffer.from(text)]));
  const missing = "* lines of others may be missing here\n";
  const notice = `* the server is gone, waiting for another (${patience / 1000} s)\n`;
  show((remains.isMidLine ? "\n" : "") + (remains.mayMiss ? missing : "") + notice);
  for (let end = performance.now() + patience; performance.now() < end; await Bun.sleep(pause)) {
    native.broadcast(receiver, 1, remains.unshown, remains.unshown.length, sent);
    remains.unshown = remains.unshown.subarray(sent[0]);
    const unshown = remains.unshown.toString("base64");
    const mayLack = remains.mayLack || server.hasFailed;
    const about = { pid: process.pid, name, isTorn, unsaid, unshown, mayLack };
    const offer = { ...about, server: meeting.server };
    const isAnswered = await visit(meeting.path, client, offer).catch(() => undefined);
    if (isAnswered) return true;
    if (isAnswered === undefined) continue; // nobody listens
    show(missing); // that server may have had lines for the client
    end = performance.now() + patience;
  }
  await rm(meeting.path, { force: true }).catch(() => {}); // of a dead server: none is there
  return false;
}

/**
 * Offers a client to the server that listens at a path; gives whether that has answered before its end.
 * Rejects if none listens.
 */
async function visit(path: string, client: number, offer: Offer): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  let rest = Buffer.from(`${JSON.stringify(offer)}\n`);
  const write = (socket: Bun.Socket) =>
    void (rest = rest.subarray(Math.max(0, socket.write(rest))));
  const open = (socket: Bun.Socket & { fd?: number }) =>
    native!.pass(socket.fd!, client) ? write(socket) : socket.terminate();
  const [data, close] = [() => resolve(true), () => resolve(false)];
  await Bun.connect({ unix: path, socket: { open, drain: write, data, close, error: close } });
  return promise;
}
