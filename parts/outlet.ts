/**
 * Where lines wait for a client that is behind, so that nobody else has to wait for it.
 *
 * @module
 */

/** Takes as many bytes as it can at once, and gives how many; it calls `flush()` when it can take more. */
export type Write = (bytes: Uint8Array) => number;

const maxWrite = 262_144; // about what a socket's buffer takes at once, bytes

/** Writes blocks in order. What is not taken waits here, counted, until `flush()`. */
export class Outlet {
  #write: Write = () => 0;
  #waiting: Uint8Array[] = []; // oldest first; the first may be the rest of a block
  #lag = 0;
  #empty = Promise.withResolvers<void>();

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
    const taken = this.#lag > 0 ? 0 : this.#write(block);
    if (taken === block.length) return;
    if (this.#lag === 0) this.#empty = Promise.withResolvers();
    this.#waiting.push(taken > 0 ? block.subarray(taken) : block);
    this.#lag += block.length - taken;
  }

  /** Writes what waits, as much of it as is taken. */
  flush(): void {
    while (this.#lag > 0) {
      const bytes = this.#next();
      const taken = this.#write(bytes);
      this.#lag -= taken;
      if (taken < bytes.length) return void this.#waiting.unshift(bytes.subarray(taken));
    }
    this.#empty.resolve();
  }

  /** Joins blocks for one write, because a system call costs more than the copy. */
  #next(): Uint8Array {
    let [count, size] = [0, 0];
    while (count < this.#waiting.length && size < maxWrite) size += this.#waiting[count++]!.length;
    const blocks = this.#waiting.splice(0, count);
    return count === 1 ? blocks[0]! : Buffer.concat(blocks);
  }

  /** Resolves when nothing waits any more. */
  async emptied(): Promise<void> {
    if (this.#lag > 0) await this.#empty.promise;
  }
}
