/**
 * What this server appends to the stream that it shares with others: what waits, and what is in doubt.
 *
 * Nothing is lost or appended twice when Redis goes away and comes back. What is being appended keeps
 * its number and is sent again until Redis has answered; readers skip a number that they have seen.
 *
 * @module
 */
import type { Entry } from "./store.ts";

const maxBlock = 65_536; // bytes that are appended together; a single block may be more
const maxQueued = 8 * 2 ** 20; // bytes that wait

/** An entry, and the names that are freed behind it. */
export interface Parcel extends Entry {
  freed: string[];
}

/** Lines to append; or a name to free, behind the lines that were said under it. */
interface Item {
  block: Uint8Array;
  freed?: string;
}

/** What waits to be appended, in order and bounded. */
export class Outbox {
  readonly #label: string;
  readonly #inform: (text: string) => void;
  #queue: Item[] = [];
  #queued = 0; // bytes in the queue
  #missed = 0; // lines that found it full
  #made = 0; // parcels: the number of the last
  #inDoubt: Parcel | undefined; // the one that Redis has not answered for

  /**
   * @param label what our server is called by the others
   * @param inform tells the clients here that others miss their lines
   */
  constructor(label: string, inform: (text: string) => void) {
    this.#label = label;
    this.#inform = inform;
  }

  /** Whether so much waits that a flood should slow down. */
  get isBehind(): boolean {
    return this.#queued > maxQueued / 2;
  }

  /** Whether something that was said is not appended yet, as far as we know. */
  get isEmpty(): boolean {
    return this.#queued === 0 && !this.#inDoubt?.block;
  }

  /** Lets lines wait. Takes any number; those that are too many are counted. */
  push(block: Uint8Array): void {
    if (this.#missed > 0 && this.#queued < maxQueued / 2) this.#pushMissed();
    if (this.#missed > 0 || this.#queued + block.length > maxQueued) {
      if (this.#missed === 0)
        this.#inform("too much waits for the link: other servers miss what is said from now");
      for (let at = -1; (at = block.indexOf(0x0a, at + 1)) >= 0;) this.#missed++;
      return;
    }
    this.#queue.push({ block });
    this.#queued += block.length;
  }

  /** Lets a name wait to be freed, behind what was said before. */
  free(name: string): void {
    this.#queue.push({ block: new Uint8Array(0), freed: name });
  }

  /**
   * The parcel to append: the one in doubt, or one that is made of what waits. It stays the one in
   * doubt until `done()`.
   */
  next(): Parcel | undefined {
    return (this.#inDoubt ??= this.#make());
  }

  /** The same; an empty one if nothing waits. */
  nextOrEmpty(): Parcel {
    return this.next() ?? (this.#inDoubt = { number: ++this.#made, block: "", freed: [] });
  }

  /** Redis has the parcel. */
  done(): void {
    this.#inDoubt = undefined;
  }

  #make(): Parcel | undefined {
    if (this.#queue.length === 0 && this.#missed > 0) this.#pushMissed();
    if (this.#queue.length === 0) return undefined;
    let [size, count] = [0, 0];
    do size += this.#queue[count++]!.block.length;
    while (count < this.#queue.length && size + this.#queue[count]!.block.length <= maxBlock);
    const items = this.#queue.splice(0, count);
    this.#queued -= size;
    return {
      number: ++this.#made,
      block: Buffer.concat(items.map((item) => item.block)).toString(),
      freed: items.flatMap((item) => item.freed ?? []),
    };
  }

  /** Tells everyone how many lines found the queue full; the other servers where they are missing. */
  #pushMissed(): void {
    const missed = this.#missed;
    this.#missed = 0;
    this.#inform(`other servers have missed ${missed} lines`);
    this.push(Buffer.from(`* ${missed} lines from ${this.#label} are missing here\n`));
  }
}
