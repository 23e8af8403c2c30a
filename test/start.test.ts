/** The start: what cannot work is refused then, in one line that says what to do. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  certificate,
  Client,
  patience,
  root,
  run,
  startServer,
  testWith,
  until,
  watchServer,
} from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;

test("bun --hot is refused: it cannot replace a running server", async () => {
  const { code, stdout, stderr } = await run([bun, "--hot", "server.ts", "--port", "0"]);
  expect([code, stdout]).toEqual([2, ""]);
  expect(stderr).toBe(
    "server.ts: --hot cannot replace a running server: use --watch, or restart it\n",
  );
});

test.each([[[]], [["plain"]]])(
  "a worker that is started by hand says so, and ends",
  async (args) => {
    const { code, stdout, stderr } = await run([bun, "worker.ts", ...args]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toBe("worker.ts: the server starts its workers itself: bun server.ts\n");
  },
);

test("a line that could not wait for anybody is refused: --max-line above --max-lag", async () => {
  const start = (line: number, lag: number) =>
    run([bun, "server.ts", "--port", "0", "--max-line", `${line}`, "--max-lag", `${lag}`]);
  for (const [line, lag] of [
    [20_000_000, 4_194_304],
    [4096, 4096],
    [4096, 100],
  ] as const) {
    const { code, stdout, stderr } = await start(line, lag);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^server\.ts: --max-lag has to be larger than --max-line[^\n]*\n$/);
  }
  await using _server = await startServer(["--max-line", "4096", "--max-lag", "5000"]);
});

for (const [files, spares] of [
  [20, 0],
  [30, 1],
  [300, 100],
] as const) {
  test(`${files} open files are too few for ${spares} spares and a client: said at the start`, async () => {
    const { code, stdout, stderr } = await run([
      "sh",
      "-c",
      `ulimit -n ${files}; exec "$0" server.ts --port 0 --spares ${spares}`,
      bun,
    ]);
    expect([code, stdout]).toEqual([1, ""]);
    const [, enough] = /^server\.ts: [^\n]*: ulimit -n (\d+)\n$/.exec(stderr) ?? [];
    expect(Number(enough)).toBeGreaterThan(files);
  });
}

test("with just as many open files as it asks for, the server has its spares and a client", async () => {
  const tooFew = await run(["sh", "-c", `ulimit -n 20; exec "$0" server.ts --spares 3`, bun]);
  const enough = /ulimit -n (\d+)/.exec(tooFew.stderr)![1]!;
  const child = Bun.spawn(
    ["sh", "-c", `ulimit -n ${enough}; exec "$0" server.ts --port 0 --spares 3`, bun],
    { cwd: root, stdio: ["pipe", "pipe", "pipe"] },
  );
  await using server = await watchServer(child);
  await server.log.line(/only 1 clients at once/);
  using _ann = await Client.connect(server, "ann");
  await until(() => server.workers().length === 4, "three spares", server.workers);
  using bob = await Client.connect(server);
  await bob.line("* server is full");
});

// --- Certificates --------------------------------------------------------------------------------

const folder = mkdtempSync(join(tmpdir(), "pipechat-start-"));
const pem = (name: string) => readFileSync(certificate(name), "utf8");
let made = 0;

/** Makes a file and gives its path. */
function file(content: string | Uint8Array): string {
  const path = join(folder, `file-${made++}`);
  writeFileSync(path, content);
  return path;
}

/** Makes a file with openssl(1), which has to write it to `-out`. */
function openssl(...args: string[]): string {
  const path = file("");
  const { success, stderr } = Bun.spawnSync(["openssl", ...args, "-out", path]);
  if (!success) throw new Error(`${stderr}`);
  return path;
}

const [cert, key] = [certificate("localhost.pem"), certificate("localhost.key")];
const pss = () => {
  const made = openssl("genpkey", "-algorithm", "RSA-PSS");
  return [openssl("req", "-x509", "-key", made, "-subj", "/CN=localhost"), made] as const;
};

testWith("openssl", "what can be wrong with a certificate")(
  "what is wrong with a certificate is said",
  async () => {
    for (const [files, reason] of [
      [[cert, openssl("pkey", "-in", key, "-aes128", "-passout", "pass:x")], /is encrypted: /],
      [[openssl("x509", "-in", cert, "-outform", "DER"), key], /is DER, not PEM: /],
      [[cert, openssl("pkey", "-in", key, "-outform", "DER")], /is DER, not PEM: /],
      [[file(pem("ca.pem") + pem("localhost.pem")), key], /the server's own goes first$/],
      [[cert, certificate("elsewhere.key")], /are no certificate and its key: it does not fit$/],
      [pss(), /RSA-PSS/],
      [[key, cert], /localhost\.key has no certificate in PEM$/],
      [[cert, file("")], /has no private key in PEM$/],
      [[file(pem("localhost.pem").slice(0, 400)), key], / do not work: |no certificate/],
      [[file(pem("localhost.pem") + pem("ca.pem").repeat(400)), key], /is too large for a client/],
    ] as const) {
      const args = ["--port", "0", "--tls-cert", files[0], "--tls-key", files[1]];
      const { code, stdout, stderr } = await run([bun, "server.ts", ...args]);
      expect([code, stdout], stderr).toEqual([1, ""]);
      expect(stderr).toMatch(/^server\.ts: [^\n]*\n$/);
      expect(stderr.trim()).toMatch(reason);
    }
  },
);

test("a byte order mark and a long chain are no mistake", async () => {
  const chain = file(`\uFEFF${pem("localhost.pem")}${pem("ca.pem").repeat(50)}`);
  const marked = file(`\uFEFF${pem("localhost.key")}`);
  await using server = await startServer(["--tls-cert", chain, "--tls-key", marked]);
  using ann = await Client.connect(server, "ann", pem("ca.pem"));
  using bob = await Client.connect(server, "bob", pem("ca.pem"));
  ann.send("hello\n");
  await bob.line("ann: hello");
});
