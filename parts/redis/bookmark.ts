/**
 * How far the stream was read, and what is new in it.
 *
 * @module
 */
import { type Entry, lastWords } from "./store.ts";

/** An entry's ID is a time, ms, and its number among all entries. */
const parse = (streamId: string) => streamId.split("-").map(Number) as [number, number];

/** The last entry that was read. */
export class Bookmark {
  readonly #numbers = new Map<string, number>(); // server -> the number of its last block
  #position: number;

  constructor(public streamId: string) {
    this.#position = parse(streamId)[1];
  }

  /** Where the stream ends now. If Redis has lost what was read, reading goes on from there. */
  endsAt(end: string): void {
    const [[time, position], [endTime, endPosition]] = [parse(this.streamId), parse(end)];
    if (endTime < time || (endTime === time && endPosition < position)) this.streamId = end;
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
  read({ streamId, from, number }: Entry): { isNew: boolean; isGap: boolean } {
    const next = this.#position + 1;
    [this.streamId, this.#position] = [streamId, parse(streamId)[1]];
    const isGap = this.#position !== next;
    if (Number.isNaN(number)) return { isNew: false, isGap: false }; // no server has written it
    if (number === lastWords) return { isNew: true, isGap };
    const last = this.#numbers.get(from);
    const expected = last === undefined ? number : last + 1;
    if (number >= expected) this.#numbers.set(from, number);
    return { isNew: number >= expected, isGap: isGap || number > expected };
  }
}
