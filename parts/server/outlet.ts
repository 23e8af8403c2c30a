/**
 * Where lines wait for a client that is behind, so that nobody else has to wait for it.
 *
 * @module
 */

/** Takes as many bytes as it can at once, and gives how many; it calls `flush()` when it can take more. */
export type Write = (bytes: Uint8Array) => number;

const nothing = new Uint8Array(0);
const maxWrite = 262_144; // about what a socket's buffer takes at once, bytes

/**
 * Writes blocks in order. What is not taken waits here, counted, until `flush()`.
 *
 * What was taken last is kept, too: a process that dies may not have passed it on, and `rewind()` lets
 * it go out once more. The blocks are shared with everyone else's outlets, so this costs little memory.
 */
export class Outlet {
  readonly #keep: number;
  #write: Write = () => 0;
  #waiting: Uint8Array[] = []; // oldest first; the first may be the rest of a block
  #lag = 0;
  #written = 0; // bytes taken since the beginning
  #kept: Uint8Array[] = []; // the last of them, oldest first
  #oldest = 0; // index of the oldest that is kept; shift() would move all the others
  #keptBytes = 0;
  #empty = Promise.withResolvers<void>();

  /** @param keep bytes to keep of what was taken, at least */
  constructor(keep = 0) {
    this.#keep = keep;
  }

  /** Bytes that wait. */
  get lag(): number {
    return this.#lag;
  }

  /** Sets where the bytes go from now on; what waits goes there first. */
  pour(write: Write): void {
    this.#write = write;
    this.flush();
  }

  /** Writes a block, or lets it wait. */
  push(block: Uint8Array): void {
    const taken = this.#lag > 0 ? 0 : this.#try(block);
    if (taken === block.length) return;
    if (this.#lag === 0) this.#empty = Promise.withResolvers();
    this.#waiting.push(taken > 0 ? block.subarray(taken) : block);
    this.#lag += block.length - taken;
  }

  /** Writes what waits, as much of it as is taken. */
  flush(): void {
    while (this.#lag > 0) {
      const bytes = this.#next();
      const taken = this.#try(bytes);
      this.#lag -= taken;
      if (taken < bytes.length) return void this.#waiting.unshift(bytes.subarray(taken));
    }
    this.#empty.resolve();
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
    if (this.#lag === 0) this.#empty = Promise.withResolvers();
    this.#lag += missing;
    this.#written = position;
    this.#kept = [kept.subarray(0, kept.length - missing)];
    this.#oldest = 0;
    this.#keptBytes -= missing;
    return true;
  }

  /** Resolves when nothing waits any more. */
  async emptied(): Promise<void> {
    if (this.#lag > 0) await this.#empty.promise;
  }

  #try(bytes: Uint8Array): number {
    const taken = this.#write(bytes);
    if (taken > 0 && this.#keep > 0) this.#remember(bytes, taken);
    return taken;
  }

  #remember(bytes: Uint8Array, taken: number): void {
    this.#kept.push(taken < bytes.length ? bytes.subarray(0, taken) : bytes);
    this.#written += taken;
    this.#keptBytes += taken;
    while (this.#keptBytes - this.#kept[this.#oldest]!.length >= this.#keep) {
      this.#keptBytes -= this.#kept[this.#oldest]!.length;
      this.#kept[this.#oldest++] = nothing; // so that it can be collected
    }
    if (this.#oldest < 1024) return;
    this.#kept.splice(0, this.#oldest);
    this.#oldest = 0;
  }

  /** Joins blocks for one write, because a system call costs more than the copy. */
  #next(): Uint8Array {
    let [count, size] = [0, 0];
    while (count < this.#waiting.length && size < maxWrite) size += this.#waiting[count++]!.length;
    const blocks = this.#waiting.splice(0, count);
    return count === 1 ? blocks[0]! : Buffer.concat(blocks);
  }
}
