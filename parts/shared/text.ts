/**
 * What a line is and what a name is: cut, decoded and cleaned.
 *
 * @module
 */

/** A name's limit, in characters (Unicode code points; at most 4 bytes each). */
export const maxName = 32;

const reserved = "you"; // with it, a client shows its user's own lines

// Control characters but tab (C0, DEL, C1), line and paragraph separators, and the bidirectional
// embeddings, overrides and isolates (https://trojansource.codes).
const unsafe = /[\0-\x08\n-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;

/**
 * Makes one line safe for other people's terminals: removes escape sequences as a whole, then every
 * other control character but tab, and bidirectional overrides.
 */
export function cleanText(line: string): string {
  // Most lines are printable ASCII: as many bytes and columns as characters. Without a JIT compiler
  // this check is eight times faster than the regular expression.
  if (Bun.stringWidth(line) === line.length && Buffer.byteLength(line) === line.length) return line;
  // Unlike test(), search() ignores the lastIndex of a global expression.
  return line.search(unsafe) < 0 ? line : Bun.stripANSI(line).replace(unsafe, "");
}

/**
 * Makes a name out of what a client sent: no white space, no `:`, nothing invisible (control and format
 * characters, the blank Braille pattern), no leading `*` or combining mark, at most {@link maxName}
 * characters; `guest` if nothing is left, or what a client calls its user.
 */
export function cleanName(text: string): string {
  const name = text
    .replace(/[\s:\u2800\p{C}\p{Default_Ignorable_Code_Point}]/gu, "")
    .replace(/^[*\p{M}]+/u, "")
    .normalize("NFC"); // last: a removed character may have separated a letter from its accent
  const cut = [...name].slice(0, maxName).join("");
  return cut === "" || nameKey(cut) === reserved ? "guest" : cut;
}

/**
 * What names are compared by: equal for names that differ only in case, in width or in how a letter is
 * composed. Letters of different scripts that look alike remain different.
 */
export function nameKey(name: string): string {
  // Upper case first: it unfolds letters, such as ß, that have no upper case of their own.
  return name.normalize("NFKC").toUpperCase().toLowerCase().normalize("NFKC");
}

/** Says which rule for names a text breaks: why {@link cleanName} changes it. Empty if it breaks none. */
export function brokenRule(text: string): string {
  if (text.trim() === "") return "a name cannot be empty";
  if (/\s/.test(text.trim())) return "no spaces in a name";
  if (text.includes(":")) return "no ':' in a name";
  if (/^\s*\*/.test(text)) return "no '*' at the beginning of a name";
  if (nameKey(text.trim()) === reserved) return "this name is reserved";
  if (cleanName(text) === text.trim().normalize("NFC")) return "";
  const isLong = [...text.trim()].length > maxName;
  return isLong ? `a name has at most ${maxName} characters` : "only visible characters in a name";
}

const newline = 0x0a;
const carriageReturn = 0x0d;

/** Takes the next chunk of a stream (`null`: its end); gives the lines that it completes. */
export type Framer = (chunk: Uint8Array | null) => (string | null)[];

/**
 * Cuts a byte stream into lines, wherever its chunks begin and end.
 *
 * The lines come decoded and cleaned; one that is longer than the limit comes as `null`, once. A line
 * that has begun is held here: at most `maxLine + 1` bytes.
 *
 * @param maxLine the longest line, in bytes without its end (LF or CRLF)
 * @param skipping whether the stream begins in the middle of a line, which is dropped
 */
export function createFramer(maxLine: number, skipping = false): Framer {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let carry: Uint8Array = new Uint8Array(0);

  function decode(line: Uint8Array): string | null {
    const bytes = line.at(-1) === carriageReturn ? line.subarray(0, -1) : line;
    if (bytes.length > maxLine) return null;
    const text = cleanText(decoder.decode(bytes));
    // Each invalid byte has become three (U+FFFD), so the cleaned line is measured again.
    return text.length * 3 > maxLine && Buffer.byteLength(text) > maxLine ? null : text;
  }

  /** All lines of a chunk at once, if they are whole, short and of printable ASCII: most are. */
  function decodeAll(chunk: Uint8Array): string[] | undefined {
    const text = decoder.decode(chunk);
    const lines = text.split("\n");
    if (lines.pop() !== "" || lines.some((line) => line.length > maxLine)) return undefined;
    const isPrintable = Bun.stringWidth(text) + lines.length === text.length; // a newline has no width
    return isPrintable && Buffer.byteLength(text) === text.length ? lines : undefined;
  }

  return function frame(chunk) {
    const lines: (string | null)[] = [];
    if (chunk === null) {
      if (carry.length > 0) lines.push(decode(carry));
      return lines;
    }
    const all = carry.length === 0 && !skipping ? decodeAll(chunk) : undefined;
    if (all) return all;
    let start = 0;
    for (let end; (end = chunk.indexOf(newline, start)) >= 0; start = end + 1) {
      const line = chunk.subarray(start, end);
      if (!skipping) lines.push(decode(carry.length > 0 ? Buffer.concat([carry, line]) : line));
      carry = carry.subarray(0, 0);
      skipping = false;
    }
    const rest = chunk.subarray(start);
    if (skipping) return lines;
    carry = carry.length > 0 ? Buffer.concat([carry, rest]) : new Uint8Array(rest); // a copy
    if (carry.length > maxLine + 1) {
      lines.push(null);
      carry = carry.subarray(0, 0);
      skipping = true;
    }
    return lines;
  };
}
