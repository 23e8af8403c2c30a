/**
 * The server's certificate, and what can be wrong with it.
 *
 * @module
 */
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { duplexPair } from "node:stream";
import { connect, TLSSocket } from "node:tls";

/** A chain of certificates, the server's own first, and its key. PEM texts. */
export interface Pair {
  cert: string;
  key: string;
}

const handshakeTimeout = 5000; // takes a few milliseconds, both ends in this process, ms

/** Reads a certificate and its key, and tries them. Throws an error that says which is wrong, and why. */
export async function readPair(certFile: string, keyFile: string): Promise<Pair> {
  const cert = readPEM(certFile, "CERTIFICATE", "certificate");
  const key = readPEM(keyFile, "PRIVATE KEY", "private key");
  if (key.includes("ENCRYPTED"))
    throw new Error(`${keyFile} is encrypted: decrypt it with openssl pkey`);
  try {
    await shakeHands({ cert, key });
  } catch (error) {
    throw new Error(explain(error as Error & { code?: string }, certFile, keyFile, cert));
  }
  return { cert, key };
}

function readPEM(file: string, label: string, what: string): string {
  const bytes = readFileSync(file);
  const text = bytes.toString().replace(/^\uFEFF/, ""); // a byte order mark, which OpenSSL does not skip
  if (new RegExp(`^-----BEGIN ([A-Z\\d]+ )*${label}-----`, "m").test(text)) return text;
  const isDER = bytes[0] === 0x30; // a SEQUENCE in ASN.1
  throw new Error(
    `${file} ${isDER ? "is DER, not PEM: convert it with openssl" : `has no ${what} in PEM`}`,
  );
}

/** Connects a client to a server with this pair. Only so it shows whether a client could connect. */
async function shakeHands(pair: Pair): Promise<void> {
  const [ours, theirs] = duplexPair();
  const signal = AbortSignal.timeout(handshakeTimeout);
  const server = new TLSSocket(ours, { isServer: true, minVersion: "TLSv1.2", ...pair });
  const failed = once(server, "error", { signal }).then(([error]) => Promise.reject(error));
  const client = connect({ socket: theirs, rejectUnauthorized: false });
  try {
    await Promise.race([once(client, "secureConnect", { signal }), failed]);
  } finally {
    failed.catch(() => {});
    for (const end of [client, server]) end.on("error", () => {}).destroy();
  }
}

function explain(
  { code, message }: Error & { code?: string },
  certFile: string,
  keyFile: string,
  cert: string,
): string {
  if (code === "ERR_OSSL_X509_KEY_VALUES_MISMATCH") {
    const { subject, ca } = new X509Certificate(cert);
    const hint = ca
      ? `the chain begins with ${subject}, the server's own goes first`
      : "it does not fit";
    return `${certFile} and ${keyFile} are no certificate and its key: ${hint}`;
  }
  if (code === "ERR_OSSL_EVP_UNSUPPORTED_ALGORITHM")
    return `${keyFile} is a kind of key that does not work here (RSA-PSS, for example): use ECDSA P-256 or RSA`;
  if (code === "ERR_SSL_EXCESSIVE_MESSAGE_SIZE")
    return `${certFile} is too large for a client: leave out what is not of the server's own chain`;
  const reason = message.split(":").at(-1)!.replaceAll("_", " ").toLowerCase();
  return `${certFile} and ${keyFile} do not work: ${reason}`;
}
