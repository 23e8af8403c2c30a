/**
 * What telnet (RFC 854) sends beside text, and how it ends lines.
 *
 * @module
 */

const [IAC, CR, LF] = [0xff, 0x0d, 0x0a];
// The end of a line; or a command, which is IAC and: a verb and an option (251 to 254), a subnegotiation
// (250) up to IAC SE (240), or one byte. None goes beyond its line: a broken one takes no other line along.
const special =
  /\r[\n\0]?|\xff(?:[\xfb-\xfe][^\r\n]?|\xfa[^\r\n]*?(?:\xff\xf0|$)|[\xf0-\xf9\xff]?)/gm;
const unfinished = /^\xff(?:[\xfb-\xfe]|\xfa(?![^]*\xff\xf0$)[^]*)?$/;
const doTimingMark = "\xff\xfd\x06";

/**
 * Makes text of what a client sends, wherever its chunks begin and end: without telnet's commands, and with LF
 * for CR LF, CR NUL and CR. UTF-8 has no IAC, so this does no harm to clients that are not telnet.
 *
 * What the client offers and demands is not answered: an option stays off until both sides agree.
 */
export class Telnet {
  /** Whether the last chunk had commands: they count as a line, so that nobody can send them too fast. */
  hasCommands = false;
  #begun = ""; // a command; or CR, which has ended its line, so that LF or NUL behind it does not
  #isMidLine: boolean;
  #isMarked = false; // and nobody has been told

  /** @param isMidLine whether the stream begins in the middle of a line */
  constructor(isMidLine: boolean) {
    this.#isMidLine = isMidLine;
  }

  /** Whether a command has begun whose end is still to come. */
  get isMidCommand(): boolean {
    return this.#begun.startsWith("\xff");
  }

  /** Whether a line or a command has begun whose end is still to come. */
  get isTorn(): boolean {
    return this.#isMidLine || this.isMidCommand;
  }

  /** Whether the client has asked for a timing mark (RFC 860) since this was called last. */
  takeMark(): boolean {
    const isMarked = this.#isMarked;
    this.#isMarked = false;
    return isMarked;
  }

  /** Takes the next chunk, which is not special if it has neither CR nor IAC; gives its text. */
  read(chunk: Buffer, isSpecial = chunk.includes(CR) || chunk.includes(IAC)): Buffer {
    this.hasCommands = false;
    const text = isSpecial || this.#begun ? this.#filter(chunk) : chunk;
    if (text.length > 0) this.#isMidLine = text[text.length - 1] !== LF;
    return text;
  }

  #filter(chunk: Buffer): Buffer {
    const begun = this.#begun;
    const bytes = begun + chunk.toString("latin1");
    this.#begun = "";
    const text = bytes.replace(special, (match: string, at: number) => {
      const isLast = at + match.length === bytes.length;
      if (match.startsWith("\r")) {
        if (isLast && match === "\r") this.#begun = match;
        return at < begun.length ? "" : "\n";
      }
      if (isLast && unfinished.test(match)) {
        this.#begun = match.slice(0, 2) + (/.\xff$/.test(match) ? "\xff" : ""); // it may be long
        return "";
      }
      this.hasCommands = true;
      if (match === doTimingMark) this.#isMarked = true;
      return "";
    });
    return Buffer.from(text, "latin1");
  }
}
