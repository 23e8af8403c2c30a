/**
 * What a worker says and asks, in one order: the lines of its stdout, in blocks, and between them its
 * requests, each in its place.
 *
 * @module
 */
import type { Request } from "../shared/control.ts";

const newline = 0x0a;

/** A block of whole lines, or a request. */
export type Said = Uint8Array | Request;

/** Deals with a block or a request; the next one waits while the promise is pending. */
export type Hear = (said: Said) => Promise<void> | undefined | void;

/** A line is longer than any worker may say. */
export class EndlessLine extends Error {}

/**
 * Merges a stream of bytes and the requests that come beside it. As long as nothing has to wait, a block is
 * dealt with in the call that brought it.
 */
export class Inlet {
  readonly #maxLine: number;
  readonly #requests: Request[] = []; // the first is being dealt with, or waits for its place
  #hear: Hear | undefined; // undefined before `read()`
  /** `busy`: something is being dealt with, and the rest waits. `failed`: whatever comes is dropped. */
  #state: "idle" | "busy" | "failed" = "idle";
  #chunks: Uint8Array[] = []; // not dealt with
  #carry: Uint8Array = new Uint8Array(0); // a line that has begun
  #position = 0; // bytes in the blocks so far
  readonly #read = Promise.withResolvers<void>();
  #hasEnded = false;
  #taken: PromiseWithResolvers<void> | undefined; // all chunks are dealt with, for whoever waits for that

  /** @param maxLine the longest line, in bytes without its end; a longer one is an error */
  constructor(maxLine: number) {
    this.#maxLine = maxLine;
  }

  /**
   * Takes a chunk of the stream. Gives a promise if it is not dealt with yet: the stream must not be read on
   * before that resolves.
   */
  push(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#state === "failed") return undefined;
    this.#chunks.push(chunk);
    this.#run();
    if (this.#chunks.length === 0) return undefined;
    return (this.#taken ??= Promise.withResolvers()).promise;
  }

  /** Takes a request; gives how many there are that are not dealt with. */
  ask(request: Request): number {
    if (this.#state === "failed") return 0;
    this.#requests.push(request);
    this.#run();
    return this.#requests.length;
  }

  /** The stream has ended: a line without its end is dropped, and so are requests behind it. */
  end(): void {
    this.#hasEnded = true;
    this.#run();
  }

  /**
   * Passes on everything in order. Resolves when the stream has ended and all is dealt with. Rejects at a
   * line that is too long, and when `hear` throws or rejects: then nothing more is passed on.
   */
  read(hear: Hear): Promise<void> {
    this.#hear = hear;
    this.#run();
    return this.#read.promise;
  }

  #run(): void {
    try {
      while (this.#hear && this.#state === "idle") {
        const said = this.#next();
        if (said === undefined) break;
        const dealt = this.#hear(said);
        if (dealt) void this.#wait(said, dealt);
        else this.#done(said);
      }
    } catch (error) {
      this.#fail(error);
    }
    if (this.#chunks.length > 0 || this.#state === "busy") return;
    this.#taken?.resolve();
    this.#taken = undefined;
    if (this.#hasEnded && this.#hear) this.#read.resolve();
  }

  async #wait(said: Said, dealt: Promise<void>): Promise<void> {
    this.#state = "busy";
    try {
      await dealt;
      this.#state = "idle";
      this.#done(said);
    } catch (error) {
      this.#fail(error);
    }
    this.#run();
  }

  #done(said: Said): void {
    if (said === this.#requests[0]) this.#requests.shift();
  }

  #fail(error: unknown): void {
    this.#state = "failed";
    this.#chunks = [];
    this.#read.reject(error);
  }

  /** The request whose place has come, or the next block; undefined if there is nothing whole. */
  #next(): Said | undefined {
    if ((this.#requests[0]?.at ?? Infinity) <= this.#position) return this.#requests[0];
    for (;;) {
      if (this.#carry.length > this.#maxLine) throw new EndlessLine();
      const chunk = this.#chunks.shift();
      if (!chunk) return undefined;
      const end = chunk.lastIndexOf(newline) + 1;
      const rest = chunk.subarray(end);
      const block = end > 0 ? join(this.#carry, chunk.subarray(0, end)) : undefined;
      this.#carry = block ? rest : join(this.#carry, rest);
      this.#position += block?.length ?? 0;
      if (block) return block;
    }
  }
}

function join(first: Uint8Array, second: Uint8Array): Uint8Array {
  return first.length === 0 ? second : Buffer.concat([first, second]);
}
