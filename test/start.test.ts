/** The start: what cannot work is refused then, in one line that says what to do. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { native } from "../parts/shared/native.ts";
import { certificate, Client, patience, root, run, startServer } from "./helpers.ts";
import { temporaryFolder, testWith } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;
const folder = temporaryFolder();

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
  const limits = ["--max-line", "4096", "--max-lag", "4096"];
  const { code, stdout, stderr } = await run([bun, "server.ts", ...limits]);
  expect([code, stdout]).toEqual([2, ""]);
  expect(stderr).toMatch(/^server\.ts: --max-lag has to be larger than --max-line[^\n]*\n$/);
});

test("a mistake in an option, or a port that is taken, is one clear line", async () => {
  expect(await run([bun, "server.ts", "--rate", "fast"])).toEqual({
    code: 2,
    stdout: "",
    stderr:
      "server.ts: --rate takes a whole number from 0 to 1073741824, not 'fast' (see --help)\n",
  });
  await using server = await startServer();
  expect(await run([bun, "server.ts", "--port", String(server.port)])).toEqual({
    code: 1,
    stdout: "",
    stderr: `server.ts: port ${server.port} is taken: stop what uses it, or choose another with --port\n`,
  });
});

test("the server needs no shell, and works from any folder", async () => {
  await using server = await startServer([], { cwd: tmpdir(), env: { PATH: "/nowhere" } });
  using _ann = await Client.connect(server, "ann");
});

// Hides what a C compiler needs, in a mount namespace of the command's own.
const hide = `for d in /usr/include /usr/lib/gcc; do [ ! -d $d ] || mount -t tmpfs none $d; done
  for f in /usr/lib*/libc.so /usr/lib/*/libc.so; do [ ! -f $f ] || mount --bind /dev/null $f; done
  exec "$@"`;
const bare = ["unshare", "-m", "sh", "-ec", hide, "sh"];
const canHide = native && Bun.which("unshare") && Bun.spawnSync([...bare, "true"]).success;

(canHide ? test : () => {})(
  "the C is compiled without the files of a compiler (where root runs this)",
  async () => {
    const code = `console.log(typeof (await import("./parts/shared/native.ts")).native?.relay)`;
    const { stdout, stderr } = await run([...bare, bun, "-e", code]);
    expect([stdout, stderr]).toEqual(["function\n", ""]);
  },
);

test("a server without its worker.ts says so at once", async () => {
  for (const part of ["server.ts", "package.json", "parts"])
    cpSync(join(root, part), join(folder, part), { recursive: true });
  const { code, stdout, stderr } = await run([bun, join(folder, "server.ts"), "--port", "0"]);
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toMatch(
    /^server\.ts: there is no \S+worker\.ts: run it with bun, from its folder\n$/,
  );
});

test("with just as many open files as it asks for, the server has its spares and a client", async () => {
  const tooFew = await run(["sh", "-c", `ulimit -n 20; exec "$0" server.ts --spares 3`, bun]);
  const enough = /ulimit -n (\d+)/.exec(tooFew.stderr)![1]!;
  expect(Number(enough)).toBeGreaterThan(20);
  const before = ["sh", "-c", `ulimit -n ${enough}; exec "$@"`, "sh"];
  await using server = await startServer(["--spares", "3"], { before });
  await server.log.line(/only 1 clients at once/);
  using _ann = await Client.connect(server, "ann");
  await server.hasWorkers(4);
  using bob = await Client.connect(server);
  await bob.line("* server is full");
});

// --- Certificates --------------------------------------------------------------------------------

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
      [[file(pem("ca.pem") + pem("localhost.pem")), key], /the server's own goes first$/],
      [[cert, certificate("elsewhere.key")], /are no certificate and its key: it does not fit$/],
      [pss(), /RSA-PSS/],
      [[key, cert], /localhost\.key has no certificate in PEM$/],
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
