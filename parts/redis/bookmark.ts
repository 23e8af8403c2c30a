/**
 * How far the stream was read, and what is new in it.
 *
 * @module
 */
import { type Entry, lastWords } from "./store.ts";

/** The last entry that was read. */
export class Bookmark {
  readonly #numbers = new Map<string, number>(); // server -> the number of its last block

  /**
   * @param streamId Redis's ID of it; set it to read on from elsewhere
   * @param position its number among all entries
   */
  constructor(
    public streamId: string,
    private position: number,
  ) {}

  /** Whether a stream that ends there has lost what was read: reading on would skip what comes next. */
  isBeyond(end: string): boolean {
    const sortable = (id: string) => id.split("-").map((part) => part.padStart(20, "0"));
    return sortable(this.streamId).join() > sortable(end).join();
  }

  /**
   * Reads an entry. It is new unless its server has sent it again, not knowing that Redis had it. There
   * is a gap before it if the stream was trimmed, or if Redis has lost its end. Suppose that entry 10
   * was a's block 4, and that nothing of b was read yet. Then these follow each other:
   *
   *     entry 11: a's block 5   new
   *     entry 12: b's block 7   new: the first block that is read of a server may have any number
   *     entry 13: a's block 5   not new: it was sent again
   *     entry 15: b's block 8   new, behind a gap: entry 14 was trimmed
   *     entry 16: a's block 7   new, behind a gap: Redis has lost a's block 6
   *     entry 17: b's block 0   new: others have appended b's last words
   */
  read({ streamId, position, from, number }: Entry): { isNew: boolean; isGap: boolean } {
    const isNumbered = number !== lastWords;
    const last = this.#numbers.get(from) ?? number - 1;
    const isGap = position !== this.position + 1 || (isNumbered && number > last + 1);
    const isNew = !isNumbered || number > last;
    if (isNumbered && isNew) this.#numbers.set(from, number);
    [this.streamId, this.position] = [streamId, position];
    return { isNew, isGap };
  }
}
