/**
 * A client whose server is gone: its socket is offered to the next one, again and again, until one takes it.
 *
 * @module
 */
import { unlinkSync } from "node:fs";
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
  const mayLack = remains.mayLack || server.hasFailed;
  const missing = "* lines of others may be missing here\n";
  const notice =
    (remains.isMidLine ? "\n" : "") +
    (remains.mayMiss ? missing : "") +
    `* the server is gone, waiting for another (${patience / 1000} s)\n`;
  remains.unshown = Buffer.concat([remains.unshown, Buffer.from(notice)]);
  const describe = (): Offer => {
    const unshown = remains.unshown.toString("base64");
    return { pid: process.pid, name, isTorn, unsaid, unshown, mayLack, server: meeting.server };
  };
  const [receiver, sent] = [Int32Array.of(client), new Int32Array(1)];
  for (let end = performance.now() + patience; performance.now() < end; await Bun.sleep(pause)) {
    native.broadcast(receiver, 1, remains.unshown, remains.unshown.length, sent);
    remains.unshown = remains.unshown.subarray(sent[0]);
    const outcome = await visit(meeting.path, client, describe);
    if (outcome === "answered") return true;
    if (outcome === "absent") continue;
    // That server may have had lines for the client.
    remains.unshown = Buffer.concat([remains.unshown, Buffer.from(missing)]);
    end = performance.now() + patience;
  }
  try {
    unlinkSync(meeting.path); // a dead server may have left it, and none is there
  } catch {
    // Another worker has done it.
  }
  return false;
}

/** Offers a client to the server that listens at a path, and waits for its answer, or its death. */
async function visit(
  path: string,
  client: number,
  describe: () => Offer,
): Promise<"absent" | "answered" | "left"> {
  const { promise: outcome, resolve } = Promise.withResolvers<"answered" | "left">();
  let text: Buffer;
  const write = (socket: Bun.Socket) => {
    text = text.subarray(Math.max(0, socket.write(text)));
  };
  const open = (socket: Bun.Socket & { fd?: number }) => {
    if (!native?.pass(socket.fd!, client)) return socket.terminate();
    text = Buffer.from(`${JSON.stringify(describe())}\n`);
    write(socket);
  };
  const data = () => resolve("answered");
  const close = () => resolve("left");
  try {
    await Bun.connect({ unix: path, socket: { open, data, drain: write, close, error: close } });
  } catch {
    return "absent";
  }
  return await outcome;
}
