/**
 * The terms on which clients are served: limits, certificate and password.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { fail } from "../shared/command-line.ts";
import type { Terms } from "../shared/control.ts";
import { readPair } from "./certificate.ts";
import { log } from "./log.ts";
import type { Options } from "./options.ts";

/** Reads the files that the options name. Rejects with an error that says what is wrong with them. */
async function readTerms(options: Options): Promise<Terms> {
  const { tlsCert, tlsKey, passwordFile, maxLine, rate } = options;
  const terms: Terms = { maxLine, rate };
  if (!tlsCert !== !tlsKey) throw new Error("--tls-cert and --tls-key go together");
  if (tlsCert && tlsKey) terms.tls = await readPair(tlsCert, tlsKey);
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
export async function readTermsOrEnd(options: Options): Promise<Terms> {
  const isOpen = !options.tlsCert && !/^(127\.|::1$|localhost$)/.test(options.host);
  if (isOpen && options.passwordFile && !options.insecurePassword)
    fail(2, "without TLS a password can be read on the way: --tls-cert, or --insecure-password");
  if (isOpen)
    process.stderr.write(
      "server.ts: warning: not encrypted: anyone on the way can read it; use --tls-cert and --tls-key\n",
    );
  try {
    return await readTerms(options);
  } catch (error) {
    return fail(1, (error as Error).message);
  }
}

/** Reads certificate and password again; with a mistake in them, they stay as they were. */
export async function readTermsAgain(options: Options, old: Terms): Promise<Terms> {
  try {
    const terms = await readTerms(options);
    log("certificate and password read again");
    return terms;
  } catch (error) {
    log(`not read again: ${(error as Error).message}`);
    return old;
  }
}
