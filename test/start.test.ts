/** The start: what cannot work is refused then, in one line that says what to do. */
import { expect, test } from "bun:test";
import { once } from "node:events";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, createConnection, createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { readPair } from "../parts/server/certificate.ts";
import { native } from "../parts/shared/native.ts";
import { certificate, Client, passwordFile, root, run } from "./helpers.ts";
import { startServer, temporaryFolder, within } from "./helpers.ts";

const bun = process.execPath;
const folder = temporaryFolder();
const hash = await passwordFile("secret");
const [cert, key] = [certificate("localhost.pem"), certificate("localhost.key")];

test("what cannot work is refused in one line", async () => {
  for (const part of ["server.ts", "package.json", "parts"])
    cpSync(join(root, part), join(folder, part), { recursive: true });
  for (const [command, code, reason] of [
    ["--hot server.ts", 2, "--hot cannot replace a running server: use --watch, or restart it\n"],
    ["worker.ts", 1, "the server starts its workers itself: bun server.ts\n"],
    [`${folder}/server.ts`, 1, `there is no ${folder}/worker.ts: run it with bun, from its`],
    ["server.ts --max-line 4096 --max-lag 4096", 2, "--max-lag has to be larger than --max-line"],
    ["server.ts --room attic", 2, "--room goes with --redis (see --help)\n"],
    [`server.ts --tls-cert ${cert}`, 1, "--tls-cert and --tls-key go together\n"],
    [`server.ts --tls-cert none.pem --tls-key ${key}`, 1, "ENOENT: no such file"],
    [`server.ts --password-file ${cert}`, 1, `${cert} does not hold what --hash-password prints\n`],
    [`server.ts --host 0.0.0.0 --password-file ${hash}`, 2, "without TLS a password can be read"],
  ] as const) {
    const result = await run([bun, ...command.split(" "), "--port", "0"]);
    expect([result.code, result.stdout], command).toEqual([code, ""]);
    expect(result.stderr).toMatch(/^(server|worker)\.ts: [^\n]*\n$/);
    expect(result.stderr.slice("server.ts: ".length)).toStartWith(reason);
  }
});

test("the server needs no shell, works from any folder, and warns if a network can read along", async () => {
  const open = ["--host", "0.0.0.0", "--password-file", hash, "--insecure-password"];
  await using server = await startServer(open, { cwd: tmpdir(), env: { PATH: "/nowhere" } });
  using ann = await Client.connect(server);
  ann.send("ann\n");
  await ann.line("* password:");
  await server.errors.line(/^server\.ts: warning: not encrypted: /);
  expect(server.errors.all.splice(0).length).toBe(1);
});

// Hides what a C compiler needs, in a mount namespace of the command's own.
const hide = `for d in /usr/include /usr/lib/gcc; do [ ! -d $d ] || mount -t tmpfs none $d; done
  for f in /usr/lib*/libc.so /usr/lib/*/libc.so; do [ ! -f $f ] || mount --bind /dev/null $f; done
  exec "$@"`;
const bare = ["unshare", "-m", "sh", "-ec", hide, "sh"];
const canHide = native && Bun.which("unshare") && Bun.spawnSync([...bare, "true"]).success;
const testBare = canHide ? test : () => {};

testBare("the C is compiled without the files of a compiler (where root runs this)", async () => {
  const code = `console.log(typeof (await import("./parts/shared/native.ts")).native?.relay)`;
  const { stdout, stderr } = await run([...bare, bun, "-e", code]);
  expect([stdout, stderr]).toEqual(["function\n", ""]);
});

// --- `--host localhost`: two addresses, of which a client may try only one -----------------------

const loopback = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
const hosts = ["127.0.0.1", "::1"].filter((host) =>
  loopback.some(({ address }) => address === host),
);

test("a server on localhost serves clients on both addresses, and frees both when it ends", async () => {
  let port = 0;
  for (let round = 0; round < 2; round++) {
    const env = { XDG_RUNTIME_DIR: folder };
    await using server = await startServer(["--host", "localhost", "--port", `${port}`], { env });
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
    const command = [bun, "server.ts", "--host", "localhost", "--port", `${port}`];
    const reason = `port ${port} is taken: stop what uses it, or choose another with --port`;
    expect(await run(command)).toEqual({ code: 1, stdout: "", stderr: `server.ts: ${reason}\n` });
  }
});

// --- Certificates --------------------------------------------------------------------------------

const pem = (name: string) => readFileSync(certificate(name), "utf8");
const own = pem("localhost.pem");
let made = 0;

/** Makes a file and gives its path. */
function file(content: string): string {
  const path = join(folder, `file-${made++}`);
  writeFileSync(path, content);
  return path;
}

test("what is wrong with a certificate is said", async () => {
  for (const [cert_, key_, reason] of [
    [cert, certificate("encrypted.key"), " is encrypted: "],
    [certificate("der.pem"), key, " is DER, not PEM: "],
    [file(pem("ca.pem") + own), key, "the server's own goes first"],
    [cert, certificate("elsewhere.key"), " are no certificate and its key: it does not fit"],
    [certificate("pss.pem"), certificate("pss.key"), "RSA-PSS"],
    [key, cert, "localhost.key has no certificate in PEM"],
    [file(own.slice(0, 400)), key, " do not work: "],
    [file(own + pem("ca.pem").repeat(400)), key, " is too large for a client"],
  ] as const)
    await expect(readPair(cert_, key_)).rejects.toThrow(reason);
});

test("a byte order mark and a long chain are no mistake", async () => {
  const chain = own + pem("ca.pem").repeat(50);
  const pair = await readPair(file(`\uFEFF${chain}`), file(`\uFEFF${pem("localhost.key")}`));
  expect(pair).toEqual({ cert: chain, key: pem("localhost.key") });
});
