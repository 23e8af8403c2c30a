/**
 * What goes over IPC between the server and a worker: the socket, once, then control messages in both
 * directions. What people say does not: it goes through the worker's stdin and stdout.
 *
 * @module
 */
import { cleanName, maxName } from "./text.ts";

/** How a client is served: limits (bytes, lines a second), and how it proves who it is. */
export interface Terms {
  maxLine: number;
  rate: number;
  /** PEM texts. */
  tls?: { cert: string; key: string };
  /** A hash of the password, as `Bun.password` makes it. */
  password?: string;
}

/** What an heir takes over from a worker that has died. */
export interface Heritage {
  /** What the client is called. */
  name: string;
  /** The dead worker may have taken the beginning of a line: its rest is no line. */
  isTorn: boolean;
  /** The client has left: it only gets what waits for it. */
  isLeaving: boolean;
}

/** Where workers whose server is gone find the next one. */
export interface Meeting {
  /** A Unix socket. */
  path: string;
  /** What the other servers of a shared room call the one that is gone. */
  server?: string | undefined;
}

/**
 * What the server orders: serve the client whose socket comes along; its name is this from now on; what was
 * asked last is dealt with; come to an end; we go, and the client is to wait for the next server.
 */
export type Order =
  | ({ type: "serve"; heritage?: Heritage | undefined; meeting?: Meeting | undefined } & Terms)
  | { type: "name"; name: string }
  | { type: "done" | "finish" | "wait" };

/** What a worker says to the next server when it passes that its client's socket. */
export interface Offer extends Omit<Heritage, "isLeaving"> {
  pid: number;
  /** Whole lines of the client that the last server has not taken. */
  unsaid: string;
  /** What the last server has written and the client has not been sent, in base64. */
  unshown: string;
  /** Whether lines of the client may have died with the last server. */
  mayLack: boolean;
  /** What the other servers of a shared room call the last one. */
  server?: string | undefined;
}

/**
 * What a worker may ask. `name` joins or renames; `tell` is a line for its own client only; `mark` is one
 * behind the answer to telnet's timing mark; `warn` is one for the log, too; `refuse` is the same as its last
 * one.
 */
export type Question =
  | { type: "who" }
  | { type: "leave" }
  | { type: "name"; name: string }
  | { type: "tell" | "mark" | "warn" | "refuse"; text: string };

/**
 * A question with its place among the lines. IPC and stdout are not ordered against each other, so it
 * carries `at`, the number of bytes that the worker has written to stdout before it, and the server
 * answers it once it has relayed that many.
 */
export type Request = Question & { at: number };

/**
 * Everything that comes from a worker: that it is `ready`, once; that it has its client's socket, once;
 * what would be lost with it, when that changes: whole lines, or the beginning of one; and requests.
 */
export type Message = { type: "ready" } | { type: "serving" } | Holds | Request;

/** What a worker has taken from its client and not said yet. */
export interface Holds {
  type: "holds";
  lines: boolean;
  torn: boolean;
}

/** Whether a message is valid, and a name in it clean: the server does not trust its workers. */
export function isMessage(message: unknown): message is Message {
  const { type, at, name, text, lines, torn } = (message ?? {}) as Record<string, unknown>;
  if (type === "ready" || type === "serving") return true;
  if (type === "holds") return typeof lines === "boolean" && typeof torn === "boolean";
  if (!Number.isSafeInteger(at)) return false;
  if (type === "name")
    return typeof name === "string" && name.length <= 2 * maxName && cleanName(name) === name;
  if (type === "tell" || type === "mark" || type === "warn" || type === "refuse")
    return typeof text === "string" && text.length < 1000;
  return type === "who" || type === "leave";
}

/** Reads an offer; undefined if it is not valid, or the name in it not clean. */
export function parseOffer(text: string): Offer | undefined {
  let offer: Partial<Offer> | null;
  try {
    offer = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { pid, name, isTorn, unsaid, unshown, mayLack, server } = offer ?? {};
  const isValid =
    Number.isSafeInteger(pid) &&
    typeof name === "string" &&
    cleanName(name) === name &&
    typeof isTorn === "boolean" &&
    typeof mayLack === "boolean" &&
    typeof unsaid === "string" &&
    !/[^\n]$/.test(unsaid) &&
    typeof unshown === "string" &&
    (server === undefined || typeof server === "string");
  return isValid ? (offer as Offer) : undefined;
}
