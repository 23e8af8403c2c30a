#!/usr/bin/env bun
/**
 * Two of pipechat's servers that share a room over a Redis of their own: `bun bench/peers/linked.ts`
 * names both ports, and gives them its arguments. Whoever starts it kills its process group.
 *
 * @module
 */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../test/helpers.ts";

/** Starts a program, and waits for what it says when it is ready. */
async function start(cmd: string[], ready: RegExp): Promise<string> {
  const { stdout } = Bun.spawn(cmd, { cwd: tmpdir(), stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  const reader = stdout.getReader();
  while (!ready.test(said)) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`${cmd[0]} does not start: ${said}`);
    said += Buffer.from(value).toString();
  }
  // Read on, or a full pipe would stop it.
  void (async () => {
    while (!(await reader.read()).done);
  })();
  return ready.exec(said)![1]!;
}

const port = String(freePort());
const inMemory = ["--save", "", "--appendonly", "no"];
const redis = ["redis-server", "--bind", "127.0.0.1", "--port", port, ...inMemory];
await start(redis, /(Ready) to accept connections/);
const options = ["--port", "0", "--max-clients", "2000", ...process.argv.slice(2)];
const server = [process.execPath, join(import.meta.dir, "..", "..", "server.ts"), ...options];
const link = ["--redis", `redis://127.0.0.1:${port}`];
const listening = /listening on (\S+)/;
const both = [
  await start([...server, ...link], listening),
  await start([...server, ...link], listening),
];
process.stdout.write(`listening on ${both.join(" and ")}\n`);
setInterval(() => {}, 2 ** 30); // until it is killed
