/**
 * A Redis, or a node of a Redis Cluster: its address, and what its errors mean.
 *
 * @module
 */
import { timing } from "./timing.ts";

type RedisError = Error & { code?: string };

/** The URL of another node of a cluster. */
export function urlOf(known: string, host: string, port: string | number): string {
  const url = new URL(known);
  if (host) url.hostname = host.includes(":") ? `[${host}]` : host; // else it is the same
  url.port = String(port);
  return url.href;
}

/** The URL of the node that a cluster's node names when it is asked for a room that is elsewhere. */
export function redirection(url: string, { message }: Error): string | undefined {
  const [, host, port] = /^MOVED \d+ (\S*):(\d+)$/.exec(message) ?? [];
  return port && urlOf(url, host!, port);
}

/** Whether Redis has not answered in time: to try again at once would take as long. */
export function isTimeout({ code = "" }: RedisError): boolean {
  return /^ERR_REDIS_(CONNECTION|IDLE)_TIMEOUT/.test(code);
}

/** Explains an error in one line, without the password that is in the URL. */
export function explain(url: string, error: RedisError): string {
  const { code = "", message } = error;
  const { host, pathname } = new URL(url);
  const redis = `Redis at ${host || pathname}`;
  // Bun takes whatever Redis refuses at the beginning for a wrong password.
  const isFull = message.includes("max number of clients");
  if (code === "ERR_REDIS_AUTHENTICATION_FAILED" && !isFull)
    return `${redis} does not accept the password, or wants one: check --redis`;
  if (isTimeout(error))
    return `${redis} takes more than ${timing.maxRoundTrip / 1000} s to answer: check the way to it, or check --redis`;
  if (code.startsWith("ERR_REDIS_CONNECTION"))
    return `cannot reach ${redis}: start it, or check --redis`;
  return `cannot use ${redis}: ${message.split(" script: ")[0]}`;
}
