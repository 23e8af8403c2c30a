/** Beyond this machine: TLS in the worker, and a password. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect as connectTLS } from "node:tls";
import { allHave, certificate, Client, ended, numbered, long, passwordFile } from "./helpers.ts";
import { patience, run, sharedServer, startServer, temporaryFolder } from "./helpers.ts";
import { testWith, within } from "./helpers.ts";
import { flood } from "./scenes.ts";
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
const password = "correct horse";
const hash = await passwordFile(password);
const guarded = await sharedServer("--password-file", hash);

function enter(name?: string, to = server): Promise<Client> {
  return Client.connect(to, name, readFileSync(ca, "utf8"));
}

/** Runs client.ts with `hi` to say, and an environment; expects that it ends with one line. */
async function fails(port: number, reason: string, options: string[], env = "NO_COLOR=1") {
  const command = ["env", env, bun, "client.ts", `localhost:${port}`, "bot", ...options];
  const { code, stdout, stderr } = await run(command, { stdin: "hi\n" });
  expect([code, stdout.replace(/^\* .*password.*\n/gm, "")]).toEqual([1, ""]);
  expect(stderr).toMatch(
    new RegExp(`^client\\.ts: (localhost:${port}: .*)?${RegExp.escape(reason)}\\n$`),
  );
}

const trusting = ["--tls", "--ca", ca];

test("client.ts, and any other, chats over TLS, but not by a version older than 1.2", async () => {
  using ann = await enter("ann");
  using bob = await enter("bob");
  ann.send("hello\n");
  await bob.line("ann: hello");
  const client = [bun, "client.ts", `localhost:${server.port}`, "bot", ...trusting];
  const bot = await run(client, { stdin: "hi\n/who\n" });
  await ann.line("bot: hi");
  expect([bot.code, bot.stderr]).toEqual([0, ""]);
  expect(bot.stdout).toContain("* 3 online:\n");
  const trust = { host: "localhost", port: server.port, ca: readFileSync(ca, "utf8") };
  const old = connectTLS({ ...trust, minVersion: "TLSv1", maxVersion: "TLSv1.1" });
  const refused = new Promise<Error>((resolve) => old.on("error", resolve));
  expect((await within(refused, "a refusal")).message).toMatch(/version|alert|protocol/i);
});

testWith("openssl", "TLS with s_client")("s_client chats, and may not renegotiate", async () => {
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
});

test("plain text to a TLS port, and TLS to a plain port: one line, and others do not notice", async () => {
  using ann = await enter("ann");
  await fails(server.port, "this server uses TLS, add --tls", []);
  await server.log.line("127.0.0.1 was refused: this server uses TLS, add --tls");
  await fails(guarded.port, "this server does not use TLS, leave out --tls", trusting);
  await guarded.log.line("127.0.0.1 was refused: this server does not use TLS");
  expect(ann.heard).toEqual([]);
});

test("over TLS, 6 MB and a close arrive, though one reads slowly, and another's process is killed", async () => {
  using bob = await enter("bob");
  bob.pause();
  using eve = await enter("eve");
  using zoe = await enter("zoe");
  using ann = await enter("ann");
  ann.send(numbered(flood, 0, long));
  await eve.line(/^ann: 99 /);
  const pid = await server.worker("zoe");
  process.kill(pid, "SIGKILL");
  await zoe.ended(); // its keys have died with the process
  await ann.end();
  await allHave([eve], "ann", flood, long);
  bob.resume();
  await allHave([bob], "ann", flood, long);
  await bob.line(`* zoe left (worker ${pid} killed by SIGKILL)`);
  await bob.line("* ann left");
  await ended([pid]);
});

test("SIGHUP brings a new certificate to new connections; a bad one changes nothing, or is refused", async () => {
  using ann = await enter("ann");
  const readAgain = async (logged: string | RegExp) => {
    server.log.all.length = 0;
    process.kill(server.pid, "SIGHUP");
    await server.log.line(logged);
  };
  writeFileSync(cert, "no certificate");
  await readAgain(/^not read again: .*cert\.pem/);
  (await enter("bob"))[Symbol.dispose]();
  for (const [name, options, reason] of [
    ["elsewhere", trusting, "its certificate is not for localhost, but for elsewhere.example"],
    ["expired", trusting, "its certificate has expired"],
    ["localhost", ["--tls"], "an authority that is not trusted here; name one with --ca FILE"],
  ] as [string, string[], string][]) {
    use(name);
    await readAgain("certificate and password read again");
    await fails(server.port, reason, options);
  }
  ann.send("/who\n");
  await ann.line("* 1 online:");
});

test("--hash-password makes an argon2id hash, and shows no password in a terminal", async () => {
  using session = new Session([bun, "server.ts", "--hash-password"]);
  await session.shows("password:");
  session.type(`${password}\r`);
  await session.shows("$argon2id$");
  expect(await session.process.exited).toBe(0);
  expect(session.raw).not.toContain(password);
  const [made] = /\$argon2id\$\S+/.exec(session.raw)!;
  expect(await Bun.password.verify(password, made)).toBe(true);
});

test("without the password nobody is anybody: no name, no member, no word", async () => {
  using ann = await Client.connect(guarded);
  ann.send("ann\r"); // as telnet may end lines: LF or NUL behind that is no answer
  await ann.line("* password:");
  ann.send("\n");
  ann.send(`${password}\r`);
  await ann.line(/^\* welcome ann /);
  expect(ann.lines.all.length).toBe(2);
  using eve = await Client.connect(guarded);
  eve.send("ann\n");
  await eve.line("* password:");
  ann.send("secret\n/who\n");
  await ann.line("* 1 online:");
  eve.send("guess\r");
  await eve.line("* wrong password, try again:");
  eve.send("\0/who\nonce more\n");
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

test("who is silent is asked for the name, and let go: in the handshake, or before the password", async () => {
  // Open to a network, which with TLS is nothing to warn of.
  const guard = ["--password-file", hash, "--host", "0.0.0.0"];
  const limits = ["--join-timeout=8", "--max-clients=3"];
  await using server = await startServer([...withTLS, ...guard, ...limits]);
  using silent = await Client.connect(server);
  using half = await Client.connect(server);
  half.send(Buffer.from("160301", "hex")); // the beginning of a handshake
  using eve = await enter(undefined, server);
  await eve.line("* your name?");
  eve.send("eve\n");
  await eve.line("* password:");
  using fourth = await Client.connect(server);
  await fourth.ended();
  await eve.line("* no name within 8 s, goodbye");
  await Promise.all([silent, half, eve].map((client) => client.ended()));
  await server.hasWorkers(1);
  using ann = await enter(undefined, server); // there is a place again
  ann.send("ann\n");
  await ann.line("* password:");
  ann.send(`${password}\n`);
  await ann.line(/^\* welcome ann /);
});

test("client.ts in a pipe takes the password from its environment, or says that it needs it", async () => {
  const wanted = "the server wants a password: PIPECHAT_PASSWORD is";
  await fails(guarded.port, `${wanted} not set`, [], "-uPIPECHAT_PASSWORD");
  await fails(guarded.port, `${wanted} wrong`, [], "PIPECHAT_PASSWORD=x");
  const bot = [bun, "client.ts", `:${guarded.port}`, "bot"];
  const right = ["env", `PIPECHAT_PASSWORD=${password}`, ...bot];
  const { code, stdout, stderr } = await run(right, { stdin: "/who\n" });
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout).toContain("* 1 online:\n");
  expect(stdout).not.toContain(password);
});
