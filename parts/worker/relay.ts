/**
 * What moves bytes between a worker's client and the server: the C way or the plain one.
 *
 * @module
 */
import { Socket } from "node:net";
import type { Pace } from "../shared/pace.ts";
import { haste } from "../shared/testing.ts";
import type { Telnet } from "./telnet.ts";

/** Bytes that are moved at once. */
export const bufferSize = 65_536;

/** What a relay still holds when its server is gone. */
export interface Remains {
  /** The client's socket, a descriptor. */
  client: number;
  /** Whole lines of the client that the server has not taken. */
  unsaid: string;
  /** What the server has written and the client has not been sent; it may begin in the middle of a line. */
  unshown: Buffer;
  /** Whether the beginning of a line was taken from the client, whose end is still to come. */
  isTorn: boolean;
  /** Whether `unshown`, or what was sent before, ends in the middle of a line. */
  isMidLine: boolean;
  /** Whether lines for the client may have died with the server. */
  mayMiss: boolean;
  /** Whether lines of the client may have died with the server. */
  mayLack: boolean;
}

/**
 * How long a client that is gone is throttled, ms: what it has said by then is said, the rest is dropped. Else
 * anybody could take a place for hours, by lines that they do not even wait for.
 */
export const throttleTimeout = 10_000 / haste;

/** What happens at the client's end. */
export interface Ears {
  /** What goes before the client's lines; empty before it has joined. */
  name(): string;
  /**
   * The client has said something: a chunk of text, which is valid until this returns. No more is read while
   * the promise is pending.
   */
  hear(chunk: Uint8Array): Promise<void> | undefined;
  /** The client says nothing more. After a reset, a line without its end does not count. */
  end(wasReset: boolean): Promise<void> | undefined;
  /** Reports what is about to be taken and not said at once, or has been said now. */
  hold(what: "lines" | "torn", isHeld: boolean): void;
  /**
   * The server is gone. Gives whether another one has the client now; else it is disconnected, when it has
   * got what is left of `unshown`.
   */
  orphaned(remains: Remains): Promise<boolean>;
}

/** How much is taken from a client, and what text is in it. */
export interface Limits {
  /** The longest of the client's lines, bytes. */
  maxLine: number;
  pace: Pace;
  /** It is torn from the beginning if a dead worker has taken the beginning of a line. */
  telnet: Telnet;
}

/** What the client says goes up to the server; what the others say comes down. */
export interface Relay {
  /** Bytes said to the server so far. */
  readonly said: number;
  /** Moves bytes until the server has ended its lines and the client has all of them, or is gone. */
  run(client: Socket, ears: Ears, limits: Limits): Promise<void>;
  /** Takes nothing more from the client. */
  stopListening(): void;
  /**
   * Prepares for the end of the server: takes nothing more from the client, nor shows it anything, and reads
   * all that the server still writes. Resolves when everything is said that was taken from the client;
   * undefined if this relay cannot outlive its server.
   */
  detach(): Promise<void> | undefined;
  /** Says whole lines to the server. Pending while it does not take them. Never rejects. */
  say(lines: string): Promise<void> | undefined;
  /** Lets timers and promises run within 20 ms from now on. */
  hurry(): void;
}

/** Opens stdin and stdout: the C way if it can be had, unless the server asks for the plain one. */
export async function openRelay(isPlain: boolean): Promise<Relay> {
  // First: pages that nobody has touched cost nothing. After loading, it would get some that are touched: 0.2 MB.
  const memory = Buffer.allocUnsafeSlow(4 * bufferSize);
  await rehearse();
  const { native } = isPlain ? {} : await import("../shared/native.ts");
  if (!native) return new (await import("./plain-relay.ts")).PlainRelay();
  return new (await import("./native-relay.ts")).NativeRelay(native, memory);
}

/** Loads what Bun loads when it makes the first socket, before a client has to wait for it: 7 ms. */
async function rehearse(): Promise<void> {
  const socket = new Socket();
  socket.push("line");
  socket.push(null);
  for await (const _ of socket.iterator({ destroyOnReturn: false }));
  socket.destroy();
}
