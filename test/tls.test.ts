/** Beyond this machine: TLS in the worker, a password, fair shares. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect as connectTLS } from "node:tls";
import { allHave, certificate, Client, disconnect, ended, long, numbered } from "./helpers.ts";
import {
  passwordFile,
  patience,
  run,
  sharedServer,
  startServer,
  temporaryFolder,
} from "./helpers.ts";
import { testWith, until, within } from "./helpers.ts";
import { Session } from "./screen.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;
const folder = temporaryFolder();
const file = (name: string) => join(folder, name);
const ca = certificate("ca.pem");
const [cert, key] = [file("cert.pem"), file("key.pem")]; // those that the servers read

function use(name: string): void {
  copyFileSync(certificate(`${name}.pem`), cert);
  copyFileSync(certificate(`${name}.key`), key);
}

const withTLS = ["--tls-cert", cert, "--tls-key", key, "--rate", "0"];
use("localhost");
const server = await sharedServer(...withTLS);

function enter(name?: string, to = server): Promise<Client> {
  return Client.connect(to, name, readFileSync(ca, "utf8"));
}

const client = [bun, "client.ts", `localhost:${server.port}`];

test("two people chat over TLS, as they do without", async () => {
  using ann = await enter("ann");
  using bob = await enter("bob");
  ann.send("hello\n");
  await bob.line("ann: hello");
  const bot = await run([...client, "bot", "--tls", "--ca", ca], { stdin: "hi\n/who\n" });
  await ann.line("bot: hi");
  expect([bot.code, bot.stderr]).toEqual([0, ""]);
  expect(bot.stdout).toContain("* 3 online:\n");
  await ann.line("* bot left");
});

testWith("openssl", "TLS with openssl s_client")(
  "openssl s_client chats, and may not renegotiate",
  async () => {
    using ann = await enter("ann");
    const command = `openssl s_client -connect localhost:${server.port} -CAfile ${ca} -tls1_2`;
    const foreign = Bun.spawn([...command.split(" "), "-verify_return_error"], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    foreign.stdin.write("foreign\n");
    await ann.line(/^\* foreign joined/);
    foreign.stdin.write("hello\n");
    await ann.line("foreign: hello");
    foreign.stdin.write("R\n"); // a renegotiation, as s_client understands it
    await ann.line("* foreign left");
    foreign.kill();
    await foreign.exited;
  },
);

test("nothing older than TLS 1.2 is spoken", async () => {
  const old = connectTLS({
    host: "localhost",
    port: server.port,
    ca: readFileSync(ca, "utf8"),
    minVersion: "TLSv1",
    maxVersion: "TLSv1.1",
  });
  const error = await within(
    new Promise<Error>((resolve) => old.on("error", resolve)),
    "a refusal",
  );
  expect(error.message).toMatch(/version|alert|protocol/i);
  old.destroy();
});

test("a certificate that is not valid is one clear line and exit code 1", async () => {
  for (const [name, args, reason] of [
    ["elsewhere", ["--ca", ca], /altnames|host/i],
    ["expired", ["--ca", ca], /expired/],
    ["localhost", [], /authority that is not trusted here; name one with --ca FILE/],
  ] as const) {
    use(name);
    process.kill(server.pid, "SIGHUP");
    await server.log.line("certificate and password read again");
    server.log.all.length = 0;
    const { code, stdout, stderr } = await run([...client, "ann", "--tls", ...args]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(reason);
    expect(stderr).toMatch(/^client\.ts: localhost:\d+: [^\n]*\n$/);
  }
});

test("plain text to a TLS port, and TLS to a plain port: one line, and others do not notice", async () => {
  using ann = await enter("ann");
  const plain = await run([...client, "bob"], { stdin: "hi\n" });
  expect([plain.code, plain.stdout]).toEqual([1, ""]);
  expect(plain.stderr).toMatch(/^client\.ts: [^\n]*: this server uses TLS, add --tls\n$/);
  await server.log.line("127.0.0.1 was refused: this server uses TLS, add --tls");
  await using other = await startServer();
  const encrypted = await run(
    [bun, "client.ts", `localhost:${other.port}`, "bob", "--tls", "--ca", ca],
    { stdin: "hi\n" },
  );
  expect(encrypted.code).toBe(1);
  expect(encrypted.stderr).toMatch(
    /^client\.ts: [^\n]*: this server does not use TLS, leave out --tls\n$/,
  );
  await other.log.line("127.0.0.1 was refused: this server does not use TLS");
  expect(ann.heard).toEqual([]);
});

test("a handshake that does not come is let go after --join-timeout, and its place is free", async () => {
  await using server = await startServer([...withTLS, "--join-timeout=2", "--max-clients=2"]);
  using silent = await Client.connect(server);
  using half = await Client.connect(server);
  half.send(Buffer.from("160301", "hex")); // the beginning of one
  using third = await Client.connect(server);
  await third.ended();
  await Promise.all([silent.ended(), half.ended()]);
  await server.hasWorkers(1);
  using _ann = await enter("ann", server);
});

test("over TLS, 6 MB and a close all arrive, and a slow reader loses nothing", async () => {
  using bob = await enter("bob");
  bob.pause();
  using eve = await enter("eve");
  using ann = await enter("ann");
  ann.send(numbered(3000, 0, long));
  await ann.end();
  await allHave([eve], "ann", 3000, long);
  bob.resume();
  await allHave([bob], "ann", 3000, long);
  await bob.line("* ann left");
});

test("a killed TLS worker takes one client with it", async () => {
  using ann = await enter("ann");
  using bob = await enter("bob");
  using eve = await enter("eve");
  ann.send(numbered(5_000));
  await bob.line(/^ann: 99 /);
  const pid = await server.worker("eve");
  process.kill(pid, "SIGKILL");
  await bob.line(`* eve left (worker ${pid} killed by SIGKILL)`);
  await eve.ended();
  await allHave([bob], "ann", 5_000);
  await ended([pid]);
});

test("SIGHUP brings the new certificate to new connections, and a bad one changes nothing", async () => {
  using ann = await enter("ann");
  const subject = async () => {
    const socket = connectTLS({ host: "localhost", port: server.port, rejectUnauthorized: false });
    await within(new Promise((resolve) => socket.on("secureConnect", resolve)), "a handshake");
    const { CN } = socket.getPeerCertificate().subject;
    socket.destroy();
    return CN;
  };
  expect(await subject()).toBe("localhost");
  writeFileSync(cert, "no certificate");
  process.kill(server.pid, "SIGHUP");
  await server.log.line(/^not read again: .*cert\.pem/);
  expect(await subject()).toBe("localhost");
  use("elsewhere");
  process.kill(server.pid, "SIGHUP");
  await server.log.line("certificate and password read again");
  expect(await subject()).toBe("elsewhere.example");
  use("localhost");
  process.kill(server.pid, "SIGHUP");
  await server.log.count("certificate and password read again", 2);
  ann.send("/who\n");
  await ann.line("* 1 online:");
});

const password = "correct horse";
const hash = await passwordFile(password);
const made = await run([bun, "server.ts", "--hash-password"], { stdin: `${password}\n` });
writeFileSync(file("made"), made.stdout);
const guarded = await sharedServer("--password-file", hash);

test("--hash-password makes an argon2id hash, and shows no password in a terminal", async () => {
  expect(made.stdout).toMatch(/^\$argon2id\$[^\n]*\n$/);
  using session = new Session([bun, "server.ts", "--hash-password"]);
  await session.shows("password:");
  session.type("hidden words\r");
  await session.shows("$argon2id$");
  expect(await session.process.exited).toBe(0);
  expect(session.raw).not.toContain("hidden");
});

test("who says nothing is asked for the name, over TLS and with a password, too", async () => {
  await using server = await startServer([...withTLS, "--password-file", file("made")]);
  using ann = await enter(undefined, server);
  await ann.line("* your name?");
  ann.send("ann\n");
  await ann.line("* password:");
  ann.send(`${password}\n`);
  await ann.line(/^\* welcome ann /);
});

test("without the password nobody is anybody: no name, no member, no word", async () => {
  using ann = await Client.connect(guarded);
  ann.send("ann\n");
  await ann.line("* password:");
  ann.send(`${password}\n`);
  await ann.line(/^\* welcome ann /);
  using eve = await Client.connect(guarded);
  eve.send("ann\n");
  await eve.line("* password:");
  ann.send("secret\n/who\n");
  await ann.line("* 1 online:");
  eve.send("guess\n");
  await eve.line("* wrong password, try again:");
  eve.send("/who\n");
  await eve.lines.until(() => eve.lines.all.length === 3, "the second answer");
  eve.send("once more\n");
  await eve.line("* wrong password, goodbye");
  await eve.ended();
  expect(eve.lines.all).toEqual([
    "* password:",
    "* wrong password, try again:",
    "* wrong password, try again:",
    "* wrong password, goodbye",
  ]);
  expect(ann.heard.some((line) => /joined|left/.test(line))).toBe(false);
  await guarded.log.count(/^127\.0\.0\.1 was (told|refused): wrong password/, 3);
  expect(guarded.log.all.join()).not.toContain("guess");
});

test("who does not answer the question for the password is let go", async () => {
  await using server = await startServer(["--password-file", hash, "--join-timeout", "4"]);
  using eve = await Client.connect(server);
  eve.send("eve\n");
  await eve.line("* password:");
  await eve.line("* no name within 4 s, goodbye");
  await eve.ended();
});

test("client.ts asks for the password without showing it, and remembers it for a reconnection", async () => {
  using session = new Session([bun, "client.ts", `:${guarded.port}`, "ann"]);
  await session.shows("* password:");
  const before = session.raw.length;
  session.type("wrong one ".repeat(20)); // which takes no rows, for it is not shown
  await until(() => session.raw.length > before, "its redrawing");
  session.type("\r");
  await session.shows(/connecting.*\n.*\* password:\n.*\* wrong password, try again:/);
  session.type(`\x1b[200~${password}\n\x1b[201~\r`); // pasted
  await session.shows("* welcome ann");
  session.type("\x1b[A"); // Up: it is not in the history
  session.type("visible\r");
  await session.shows("you: visible");
  await disconnect(guarded, "ann");
  await session.shows(/not connected[^]*welcome ann/);
  expect(session.raw).not.toMatch(/correct|horse|wrong one/);
});

test("client.ts in a pipe takes the password from its environment, or says that it needs it", async () => {
  const client = [bun, "client.ts", `:${guarded.port}`, "bot"];
  const lacking = await run(client, { stdin: "hi\n" });
  expect([lacking.code, lacking.stderr]).toEqual([
    1,
    "client.ts: the server wants a password: PIPECHAT_PASSWORD is not set\n",
  ]);
  const wrong = await run(["env", "PIPECHAT_PASSWORD=x", ...client], { stdin: "hi\n" });
  expect([wrong.code, wrong.stderr]).toEqual([
    1,
    "client.ts: the server wants a password: PIPECHAT_PASSWORD is wrong\n",
  ]);
  const right = await run(["env", `PIPECHAT_PASSWORD=${password}`, ...client], {
    stdin: "/who\n",
  });
  expect(right.code).toBe(0);
  expect(right.stdout).toContain("* 1 online:\n");
  expect(right.stdout + right.stderr).not.toContain(password);
});

test("--max-per-address counts, and gives places back", async () => {
  await using server = await startServer(["--max-per-address", "2"]);
  const ann = await Client.connect(server, "ann");
  using _bob = await Client.connect(server, "bob");
  using eve = await Client.connect(server);
  await eve.line("* too many connections from your address");
  await eve.ended();
  ann[Symbol.dispose]();
  using _again = await Client.whenFree(server, "ann");
});

test("what does not fit together is refused in one line", async () => {
  use("localhost");
  for (const [args, code, reason] of [
    [["--tls-cert", cert], 1, "--tls-cert and --tls-key go together"],
    [["--tls-cert", file("none.pem"), "--tls-key", key], 1, "no such file"],
    [["--password-file", cert], 1, "does not hold what --hash-password prints"],
    [["--room", "attic"], 2, "--room goes with --redis (see --help)"],
    [
      ["--host", "0.0.0.0", "--password-file", hash],
      2,
      "without TLS a password can be read on the way",
    ],
  ] as const) {
    const result = await run([bun, "server.ts", "--port", "0", ...args]);
    expect([result.code, result.stdout]).toEqual([code, ""]);
    expect(result.stderr).toContain(reason);
    expect(result.stderr).toMatch(/^server\.ts: [^\n]*\n$/);
  }
});

test("opening to a network without TLS is one warning, and a password there takes a word more", async () => {
  const start = (...args: string[]) =>
    startServer(["--host", "0.0.0.0", "--password-file", hash, ...args]);
  await using server = await start("--insecure-password");
  await server.errors.line(/^server\.ts: warning: not encrypted: /);
  expect(server.errors.all.splice(0).length).toBe(1);
  await using _encrypted = await start(...withTLS); // which may warn of nothing
});
