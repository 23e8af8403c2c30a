/**
 * The terms on which clients are served: limits, certificate and password.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { fail } from "../shared/command-line.ts";
import type { Terms } from "../shared/control.ts";
import type { Options } from "./options.ts";

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
