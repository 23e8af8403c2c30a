/**
 * What `--hash-password` does; nothing else loads it.
 *
 * @module
 */
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { fail, print } from "../shared/command-line.ts";
import { cleanText } from "../shared/text.ts";

/** Asks for a password on stdin, without an echo if that is a terminal; prints its hash and exits. */
export async function printPasswordHash(): Promise<never> {
  const output = new Writable({ write: (_chunk, _encoding, done) => done() });
  const rl = createInterface({ input: process.stdin, output, terminal: process.stdin.isTTY });
  process.stderr.write("password: "); // readline echoes nothing from here on
  const { value = "" } = await rl[Symbol.asyncIterator]().next();
  process.stderr.write("\n");
  rl.close();
  const password = cleanText(value);
  if (password === "") fail(1, "the password is empty");
  // The least that OWASP recommends: each connection may cost this much, in KiB and passes.
  const cost = { algorithm: "argon2id", memoryCost: 19_456, timeCost: 2 } as const;
  return print(`${await Bun.password.hash(password, cost)}\n`);
}
