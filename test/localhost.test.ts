/** `--host localhost`: two addresses, of which a client may try only one. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { createConnection } from "node:net";
import { networkInterfaces } from "node:os";
import { run, patience, startServer, within } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const loopback = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
const hosts = ["127.0.0.1", "::1"].filter((host) =>
  loopback.some(({ address }) => address === host),
);

/** Sends a name; gives all that comes until the end. */
function visit(host: string, port: number, name: string) {
  const socket = createConnection(port, host);
  const joined = Promise.withResolvers<void>();
  let heard = "";
  socket.on("data", (chunk) => {
    heard += chunk.toString();
    if (heard.includes("* welcome ")) joined.resolve();
  });
  const ended = new Promise<string>((resolve, reject) => {
    socket.on("end", () => resolve(heard)).on("error", reject);
  });
  socket.write(`${name}\n`);
  return { joined: within(Promise.race([joined.promise, ended]), `${name}'s welcome`), ended };
}

test("a server on localhost serves clients on both addresses, and frees both when it ends", async () => {
  let port = 0;
  for (let round = 0; round < 2; round++) {
    await using server = await startServer(["--host", "localhost", "--port", `${port}`]);
    port = server.port;
    const addresses = hosts.map((host) => `${host === "::1" ? "[::1]" : host}:${port}`);
    expect(server.log.all[0]).toBe(`listening on ${addresses.join(" and ")} (pid ${server.pid})`);
    const guests = hosts.map((host, n) => visit(host, port, `guest${n}`));
    for (const { joined } of guests) await joined;
    expect(await server.stop()).toBe(0);
    for (const { ended } of guests) expect(await ended).toEndWith("* server is shutting down\n");
  }
});

test("a port that somebody else has on one of the addresses is taken", async () => {
  for (const host of hosts) {
    await using server = await startServer(["--host", host]);
    const command = [process.execPath, "server.ts", "--host", "localhost"];
    const { code, stderr } = await run([...command, "--port", `${server.port}`]);
    expect([code, stderr]).toEqual([
      1,
      `server.ts: port ${server.port} is taken: stop what uses it, or choose another with --port\n`,
    ]);
  }
});
