/** `--host localhost`: two addresses, of which a client may try only one. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { type AddressInfo, createConnection, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { text } from "node:stream/consumers";
import { run, patience, startServer, within } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const loopback = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
const hosts = ["127.0.0.1", "::1"].filter((host) =>
  loopback.some(({ address }) => address === host),
);

test("a server on localhost serves clients on both addresses, and frees both when it ends", async () => {
  let port = 0;
  for (let round = 0; round < 2; round++) {
    await using server = await startServer(["--host", "localhost", "--port", `${port}`]);
    port = server.port;
    const addresses = hosts.map((host) => `${host === "::1" ? "[::1]" : host}:${port}`);
    expect(server.log.all[0]).toBe(`listening on ${addresses.join(" and ")} (pid ${server.pid})`);
    const guests = hosts.map((host) => createConnection(port, host));
    for (const [n, guest] of guests.entries()) {
      guest.write(`guest${n}\n`);
      await server.worker(`guest${n}`);
    }
    const heard = guests.map((guest) => within(text(guest), "its end"));
    expect(await server.stop()).toBe(0);
    for (const text of heard) expect(await text).toEndWith("* server is shutting down\n");
  }
});

test("a port that somebody else has on one of the addresses is taken", async () => {
  for (const host of hosts) {
    await using other = createServer();
    await once(other.listen(0, host), "listening");
    const { port } = other.address() as AddressInfo;
    const command = [process.execPath, "server.ts", "--host", "localhost", "--port", `${port}`];
    const reason = `port ${port} is taken: stop what uses it, or choose another with --port`;
    expect(await run(command)).toEqual({ code: 1, stdout: "", stderr: `server.ts: ${reason}\n` });
  }
});
