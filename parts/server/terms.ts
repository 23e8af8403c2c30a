/**
 * The terms on which clients are served: limits, certificate and password; and how to make its hash.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { createSecureContext } from "node:tls";
import { fail, print } from "../shared/command-line.ts";
import type { Terms } from "../shared/control.ts";
import type { Options } from "./options.ts";
import { cleanText } from "../shared/text.ts";

/** Reads the files that the options name. Throws an error that says what is wrong with them. */
export function readTerms({ tlsCert, tlsKey, passwordFile, maxLine, rate }: Options): Terms {
  const terms: Terms = { maxLine, rate };
  if (!tlsCert !== !tlsKey) throw new Error("--tls-cert and --tls-key go together");
  if (tlsCert && tlsKey) {
    const [cert, key] = [readFileSync(tlsCert, "utf8"), readFileSync(tlsKey, "utf8")];
    try {
      createSecureContext((terms.tls = { cert, key }));
    } catch {
      throw new Error(`${tlsCert} and ${tlsKey} are no certificate and its key in PEM`);
    }
  }
  if (passwordFile) terms.password = readFileSync(passwordFile, "utf8").trim();
  if (terms.password !== undefined && !isHash(terms.password))
    throw new Error(`${passwordFile} does not hold what --hash-password prints`);
  return terms;
}

function isHash(text: string): boolean {
  try {
    Bun.password.verifySync("any", text); // of an empty one it says false without a look
    return text.startsWith("$argon2id$");
  } catch {
    return false;
  }
}

/** The same at the start, where a mistake is the end; and a warning if all can be read on the way. */
export function readTermsOrEnd(options: Options): Terms {
  const isOpen = !options.tlsCert && !/^(127\.|::1$|localhost$)/.test(options.host);
  if (isOpen && options.passwordFile && !options.insecurePassword)
    fail(2, "without TLS a password can be read on the way: --tls-cert, or --insecure-password");
  if (isOpen)
    process.stderr.write(
      "server.ts: warning: not encrypted: anyone on the way can read it; use --tls-cert and --tls-key\n",
    );
  try {
    return readTerms(options);
  } catch (error) {
    return fail(1, (error as Error).message);
  }
}

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
