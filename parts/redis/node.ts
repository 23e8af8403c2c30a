/**
 * A Redis, or a node of a Redis Cluster: its address, and what its errors mean.
 *
 * @module
 */
import { timing } from "./timing.ts";

/** Where a room is kept. */
export interface Node {
  url: string;
  /** Whether the room is only being moved there: then each command needs ASKING before it. */
  isImporting?: boolean;
}

type RedisError = Error & { code?: string };

/** The URL of another node of a cluster. */
export function urlOf(known: string, host: string, port: string | number): string {
  const url = new URL(known);
  if (host) url.hostname = host.includes(":") ? `[${host}]` : host; // else it is the same
  url.port = String(port);
  return url.href;
}

/** The node that a cluster's node names when it is asked for a room that is, or goes, elsewhere. */
export function redirection(url: string, { message }: Error): Node | undefined {
  const [, kind, host, port] = /^(MOVED|ASK) \d+ (\S*):(\d+)$/.exec(message) ?? [];
  return port ? { url: urlOf(url, host!, port), isImporting: kind === "ASK" } : undefined;
}

/** Whether Redis has answered, but refused a command: it may accept it in a moment. */
export function isRefusal(error: RedisError | undefined): boolean {
  return error?.code === "ERR_REDIS_SERVER_ERROR";
}

/** Explains an error in one line, without the password that is in the URL. */
export function explain(url: string, { code = "", message }: RedisError): string {
  const { host, pathname } = new URL(url);
  const redis = `Redis at ${host || pathname}`;
  // Bun takes whatever Redis refuses at the beginning for a wrong password.
  const isFull = message.includes("max number of clients");
  if (code === "ERR_REDIS_AUTHENTICATION_FAILED" && !isFull)
    return `${redis} does not accept the password, or wants one: check --redis`;
  if (/^ERR_REDIS_(CONNECTION|IDLE)_TIMEOUT/.test(code))
    return `${redis} takes more than ${timing.maxRoundTrip / 1000} s to answer: check the way to it, or check --redis`;
  if (code.startsWith("ERR_REDIS_CONNECTION"))
    return `cannot reach ${redis}: start it, or check --redis`;
  return `cannot use ${redis}: ${message.split(" script: ")[0]}`;
}
