/**
 * What a worker says and asks, in one order: the lines of its stdout, in blocks, and between them its
 * requests, each in its place.
 *
 * @module
 */
import type { Request } from "../shared/control.ts";

const newline = 0x0a;

/** Merges a stream of bytes and the requests that come beside it. */
export class Inlet {
  readonly #maxLine: number;
  readonly #requests: Request[] = [];
  readonly #chunks: Uint8Array[] = []; // that are not dealt with
  #room: PromiseWithResolvers<void> | undefined; // for the next chunk, if it has to wait
  #ended = false;
  #wake = () => {};

  /** @param maxLine the longest line, in bytes without its end; a longer one throws */
  constructor(maxLine: number) {
    this.#maxLine = maxLine;
  }

  /**
   * Takes a chunk of the stream. Gives a promise if the one before is not dealt with yet: the stream
   * must not be read on before it resolves.
   */
  push(chunk: Uint8Array): Promise<void> | undefined {
    this.#chunks.push(chunk);
    this.#wake();
    if (this.#chunks.length === 1) return undefined;
    this.#room ??= Promise.withResolvers();
    return this.#room.promise;
  }

  /** The stream has ended: a line without its end is dropped, and so are requests behind it. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Takes a request; gives how many there are that are not dealt with. */
  ask(request: Request): number {
    this.#requests.push(request);
    this.#wake();
    return this.#requests.length;
  }

  /** Blocks of whole lines, and requests. The next one is given when the last one is dealt with. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array | Request, void> {
    let given = 0; // bytes in the blocks so far
    let carry: Uint8Array = new Uint8Array(0); // a line that has begun
    for (;;) {
      for (; (this.#requests[0]?.at ?? Infinity) <= given; this.#requests.shift())
        yield this.#requests[0]!;
      const chunk = this.#chunks[0];
      if (chunk) {
        const end = chunk.lastIndexOf(newline) + 1;
        const rest = chunk.subarray(end);
        const block = end > 0 ? join(carry, chunk.subarray(0, end)) : undefined;
        carry = block ? rest : join(carry, rest);
        if (block) yield block;
        given += block?.length ?? 0;
        if (carry.length > this.#maxLine) throw new Error("sent a line without end");
        this.#chunks.shift();
        if (this.#chunks.length > 0) continue;
        this.#room?.resolve();
        this.#room = undefined;
      } else if (this.#ended) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

function join(first: Uint8Array, second: Uint8Array): Uint8Array {
  return first.length === 0 ? second : Buffer.concat([first, second]);
}
