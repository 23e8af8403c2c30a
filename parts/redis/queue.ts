/**
 * What this server has yet to append to the stream.
 *
 * Nothing is lost or appended twice when Redis goes away and comes back: a batch keeps its number and is
 * sent again until Redis has acknowledged it, and readers skip a number that they have read.
 *
 * @module
 */

const maxBatch = 65_536; // bytes that are appended together; a single block may be more
const maxQueued = 8 * 2 ** 20; // bytes that wait

/** A block of lines, and the names that are freed behind it. */
export interface Batch {
  /** 1, 2, 3 … */
  number: number;
  block: string;
  freed: string[];
}

/** What waits to be appended, in order and bounded. */
export class AppendQueue {
  #items: { block: Uint8Array; freed?: string }[] = [];
  #queued = 0; // bytes in them
  #missed = 0; // lines that found it full
  #made = 0; // batches
  #inFlight: Batch | undefined; // the one that Redis has not acknowledged

  /**
   * @param label what our server is called by the others
   * @param inform tells the clients here that others miss their lines
   */
  constructor(
    private readonly label: string,
    private readonly inform: (text: string) => void,
  ) {}

  /** Whether so much waits that a flood should slow down. */
  get isBehind(): boolean {
    return this.#queued > maxQueued / 2;
  }

  /** Whether all that was said is appended, as far as we know. */
  get isEmpty(): boolean {
    return this.#queued === 0 && !this.#inFlight?.block;
  }

  /** Adds lines. Takes any number; those that are too many are counted. */
  push(block: Uint8Array): void {
    if (this.#missed > 0 && this.#queued < maxQueued / 2) this.#pushMissed();
    if (this.#missed > 0 || this.#queued + block.length > maxQueued) {
      if (this.#missed === 0)
        this.inform("too much waits for the link: other servers miss what is said from now");
      for (let at = -1; (at = block.indexOf(0x0a, at + 1)) >= 0;) this.#missed++;
      return;
    }
    this.#items.push({ block });
    this.#queued += block.length;
  }

  /** Adds a name to free, behind what was said before. */
  free(name: string): void {
    this.#items.push({ block: new Uint8Array(0), freed: name });
  }

  /** The batch to append, the same until `acknowledge()`; none if nothing waits. */
  next(): Batch | undefined {
    if (this.#inFlight) return this.#inFlight;
    if (this.#items.length === 0 && this.#missed > 0) this.#pushMissed();
    if (this.#items.length === 0) return undefined;
    let [size, count] = [0, 0];
    do size += this.#items[count++]!.block.length;
    while (count < this.#items.length && size + this.#items[count]!.block.length <= maxBatch);
    const items = this.#items.splice(0, count);
    this.#queued -= size;
    const block = Buffer.concat(items.map((item) => item.block)).toString();
    const freed = items.flatMap((item) => item.freed ?? []);
    return (this.#inFlight = { number: ++this.#made, block, freed });
  }

  /** Redis has the batch. */
  acknowledge(): void {
    this.#inFlight = undefined;
  }

  /** Tells everyone how many lines found the queue full; the other servers where they are missing. */
  #pushMissed(): void {
    const missed = this.#missed;
    this.#missed = 0;
    this.inform(`other servers have missed ${missed} lines`);
    this.push(Buffer.from(`* ${missed} lines from ${this.label} are missing here\n`));
  }
}
