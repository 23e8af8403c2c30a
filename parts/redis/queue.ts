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

/** A block of lines, and the keys of the names that are freed behind it. */
export interface Batch {
  /** 1, 2, 3 … */
  number: number;
  block: string;
  freed: string[];
}

/** What waits to be appended, in order and bounded. */
export class AppendQueue {
  readonly #batches: (Batch & { size: number; isSent: boolean })[] = [];
  #queued = 0; // bytes in them
  #missed = 0; // lines that found it full
  #made = 0; // batches

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
    return this.#batches.every(({ block }) => block === "");
  }

  /** Adds lines. From when they are too many, lines are only counted, until all that waits is appended. */
  push(block: Uint8Array): void {
    const text = Buffer.from(block).toString();
    if (this.#missed === 0 && this.#queued + block.length <= maxQueued) return this.#add(text);
    if (this.#missed === 0)
      this.inform("too much waits for the link: other servers miss what is said from now");
    this.#missed += text.split("\n").length - 1;
  }

  /** Adds a name to free, behind what was said before. */
  free(key: string): void {
    this.#add("", key);
  }

  #add(text: string, ...freed: string[]): void {
    const size = Buffer.byteLength(text);
    let batch = this.#batches.at(-1);
    if (!batch || batch.isSent || batch.size + size > maxBatch) {
      batch = { number: ++this.#made, block: "", freed: [], size: 0, isSent: false };
      this.#batches.push(batch);
    }
    batch.block += text;
    batch.freed.push(...freed);
    batch.size += size;
    this.#queued += size;
  }

  /** The batch to append, the same until `acknowledge()`; none if nothing waits. */
  next(): Batch | undefined {
    const [batch] = this.#batches;
    if (batch) batch.isSent = true;
    return batch;
  }

  /** Redis has the batch. Tells everyone how many lines are missing here, where no more wait before them. */
  acknowledge(): void {
    this.#queued -= this.#batches.shift()!.size;
    if (this.#missed === 0 || this.#batches.length > 0) return;
    this.inform(`other servers have missed ${this.#missed} lines`);
    this.#add(`* ${this.#missed} lines from ${this.label} are missing here\n`);
    this.#missed = 0;
  }
}
