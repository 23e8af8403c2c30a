/**
 * Where lines wait for a client that is behind, so that nobody else has to wait for it.
 *
 * @module
 */

/** Writes as many bytes as it can at once, and gives how many; whoever owns it flushes when it can more. */
export type Write = (bytes: Uint8Array) => number;

const newline = 0x0a;
const nothing = new Uint8Array(0);
const lineEnd = Uint8Array.of(newline);
const maxJoined = 16_384; // up to so many bytes, a system call costs more than a copy

/**
 * Writes blocks in order. What is not written waits here, counted, until `flush()`.
 *
 * What was written last is kept, too: a process that dies may not have passed it on, and `rewind()` lets
 * it go out once more. The blocks are shared with everyone else's outlets, so this costs little memory.
 */
export class Outlet {
  readonly #write: Write;
  readonly #keep: number;
  #waiting: Uint8Array[] = []; // oldest first; the first may be the rest of a block
  #lag = 0;
  #written = 0; // bytes since the beginning
  #kept: Uint8Array[] = []; // the last of them, oldest first
  #oldest = 0; // index of the oldest that is kept; shift() would move all the others
  #keptBytes = 0;

  /** @param keep bytes to keep of what was written, at least */
  constructor(write: Write, keep = 0) {
    this.#write = write;
    this.#keep = keep;
  }

  /** Bytes that wait. */
  get lag(): number {
    return this.#lag;
  }

  /** Whether the last byte that was written is not the end of a line. */
  get isMidLine(): boolean {
    return (this.#kept.at(-1)?.at(-1) ?? newline) !== newline;
  }

  /**
   * Writes a block, or lets it wait.
   *
   * @param written how many of its first bytes were written already, where nothing waits
   */
  push(block: Uint8Array, written = 0): void {
    if (written > 0) this.#remember(block, written);
    if (written === block.length) return;
    const rest = written > 0 ? block.subarray(written) : block;
    const taken = this.#lag > 0 ? 0 : this.#try(rest);
    if (taken === rest.length) return;
    this.#waiting.push(taken > 0 ? rest.subarray(taken) : rest);
    this.#lag += rest.length - taken;
  }

  /** Writes what waits, as much of it as is taken. */
  flush(): void {
    while (this.#lag > 0) {
      const bytes = this.#next();
      const taken = this.#try(bytes);
      this.#lag -= taken;
      if (taken < bytes.length) return void this.#waiting.unshift(bytes.subarray(taken));
    }
  }

  /**
   * Lets everything behind a place in the stream go out again, before what waits. Gives false, and does
   * nothing, if it is not kept any more.
   *
   * @param position bytes since the beginning that have arrived
   */
  rewind(position: number): boolean {
    const missing = this.#written - position;
    if (missing < 0 || missing > this.#keptBytes) return false;
    if (missing === 0) return true;
    const kept = Buffer.concat(this.#kept.slice(this.#oldest));
    this.#waiting.unshift(kept.subarray(kept.length - missing));
    this.#lag += missing;
    this.#written = position;
    this.#kept = [kept.subarray(0, kept.length - missing)];
    this.#oldest = 0;
    this.#keptBytes -= missing;
    return true;
  }

  /**
   * Begins a new line, because nobody knows where the last one was cut. The rest of a line that was begun is
   * dropped: its beginning may be lost, and then it is no line.
   */
  beginLine(): void {
    const rest = this.isMidLine ? this.#waiting.shift() : undefined;
    const line = rest ? rest.subarray(rest.indexOf(newline)) : lineEnd;
    this.#waiting.unshift(line);
    this.#lag += line.length - (rest?.length ?? 0);
  }

  #try(bytes: Uint8Array): number {
    const taken = this.#write(bytes);
    if (taken > 0) this.#remember(bytes, taken);
    return taken;
  }

  #remember(bytes: Uint8Array, written: number): void {
    if (this.#keep === 0) return;
    this.#kept.push(written < bytes.length ? bytes.subarray(0, written) : bytes);
    this.#written += written;
    this.#keptBytes += written;
    while (this.#keptBytes - this.#kept[this.#oldest]!.length >= this.#keep) {
      this.#keptBytes -= this.#kept[this.#oldest]!.length;
      this.#kept[this.#oldest++] = nothing; // so that it can be collected
    }
    if (this.#oldest < 1024) return;
    this.#kept.splice(0, this.#oldest);
    this.#oldest = 0;
  }

  /** Takes a block that is large, or joins small ones for one write. */
  #next(): Uint8Array {
    let [count, size] = [0, 0];
    while (count < this.#waiting.length && size < maxJoined) size += this.#waiting[count++]!.length;
    const blocks = this.#waiting.splice(0, count);
    return count === 1 ? blocks[0]! : Buffer.concat(blocks);
  }
}
