/**
 * A terminal in which lines appear above the one that is being typed. Node's readline edits that line;
 * here is all that keeps it and the lines above it apart.
 *
 * @module
 */
import { once } from "node:events";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { cleanText } from "../shared/text.ts";
import { after } from "../shared/timers.ts";

/** Makes text less bright. util.styleText would also obey CI and TERM, which are not the user's wish. */
export const dim = (text: string): string => `\x1b[2m${text}\x1b[22m`;
export const bold = (text: string): string => `\x1b[1m${text}\x1b[22m`;

// Of the 256 terminal colours, some of each hue with a contrast of 3.6 or more on black and on white.
const palette = [160, 166, 130, 64, 28, 30, 32, 67, 61, 99, 134, 163, 132, 161];

/**
 * Makes a server's line ready for the screen: a name in its own colour, a notice dim, and a mention of
 * the user bold; with `ring`, which may be the bell.
 */
export function render(line: string, mention?: RegExp, ring = ""): string {
  const [, name, text] = /^([^\s:*][^\s:]*): (.*)$/.exec(line) ?? [];
  if (name === undefined) return dim(line);
  const said = mention ? text!.replace(mention, bold(`${ring}$&`)) : text;
  return `\x1b[38;5;${palette[Bun.hash.crc32(name) % palette.length]}m${name}:\x1b[39m ${said}`;
}

/** Indents the further rows of a line, so that none of them looks like the beginning of another line. */
function wrap(clock: string, line: string, columns: number): string {
  const indent = clock.length + 2;
  const text = dim(clock) + line.replaceAll("\t", "    "); // a tab's width would depend on its column
  if (Bun.stringWidth(text) <= columns) return text;
  const rows = Bun.wrapAnsi(text, columns - indent, { hard: true, trim: false });
  return rows.replaceAll("\n", `\n${" ".repeat(indent)}`);
}

// Whether the terminal marks what is pasted.
const [marked, unmarked] = ["\x1b[?2004h", "\x1b[?2004l"];

/** What happens in the terminal. */
export interface TerminalEvents {
  /** A line was typed; gives what stands in its place, or nothing. */
  line(line: string): string | undefined;
  /** Words that may stand where a word is typed, at the beginning of the line or further on. */
  complete(isFirst: boolean): string[];
  /** The user has typed Ctrl-C or Ctrl-D, or `close()` was called. */
  close(): void;
}

/**
 * The terminal that stdin and stdout are. Its screen:
 *
 *     12:03 bob: hello             what was printed
 *     12:03 you: hi
 *     > a draft that fills more    ◀ the prompt. print() erases from here on, writes its lines,
 *     than one row█                  and lets readline draw prompt and draft again below them
 *
 * To find the prompt's row, both count the rows that the draft takes above the cursor (█). Behind a row
 * that is full, the cursor of a terminal stays at its end until the next character, where readline
 * counts it in the next row already: a space in front of each movement takes it there.
 */
export class Terminal {
  readonly #on: TerminalEvents;
  readonly #noColor: boolean;
  readonly #output = process.stdout;
  readonly #rl;
  /** Who gets the next line, a secret that is not shown. */
  #asker: ((secret: string) => void) | undefined;
  /** What was pasted so far, while a paste arrives. */
  #pasted: string | undefined;
  #isClosed = false;

  constructor({ noColor }: { noColor: boolean }, on: TerminalEvents) {
    this.#on = on;
    this.#noColor = noColor;
    const { stdin: input } = process;
    const completer = (line: string) => this.#complete(line);
    this.#rl = createInterface({ input, output: this.#screen(), terminal: true, completer });
    this.#collectPastes();
    this.#rl.on("history", (history) => this.#asker && history.shift());
    // In its history, and here, a draft of several lines has the last one first.
    this.#rl.on("line", (line) => this.#enter(line.split("\r").reverse().join("\n")));
    this.#rl.on("close", () => this.#end());
    this.#rl.on("SIGTSTP", () => this.#suspend()); // Ctrl-Z
    process.on("SIGCONT", () => this.#resume());
    this.#output.on("resize", () => this.print([])); // most terminals have wrapped the line anew
    input.on("data", (keys) => keys.length > 1 && this.print([])); // readline loses count in a paste
  }

  /** Prints lines, which may have colours, above the draft, whose prompt is `rows` above the cursor. */
  print(lines: string[], { rows }: { rows: number } = this.#rl.getCursorPos()): void {
    const clock = this.#output.columns < 60 ? "" : `${new Date().toTimeString().slice(0, 5)} `;
    const text = lines.map((line) => `${wrap(clock, line, this.#output.columns)}\n`).join("");
    const toPrompt = ` ${"\x1b[A".repeat(rows)}\r\x1b[J`;
    this.#output.write(toPrompt + (this.#noColor ? Bun.stripANSI(text) : text));
    // The number of rows that readline goes up before it redraws: not documented, in Node and in Bun.
    Object.assign(this.#rl, { prevRows: 0 });
    if (!this.#isClosed) this.#rl.prompt(true);
  }

  /** Resolves when the terminal has taken what was printed: it may be slow, or stopped (Ctrl-S). */
  async printed(): Promise<void> {
    if (this.#output.writableNeedDrain) await once(this.#output, "drain");
  }

  /** Gives the next line, neither shown nor remembered, to `answer`; without it, shows lines again. */
  ask(answer?: (secret: string) => void): void {
    this.#asker = answer;
  }

  /** Gives the terminal back as it was. */
  close(): void {
    try {
      this.#rl.close();
    } catch {
      process.exit(1); // readline cannot reset a terminal that is gone
    }
  }

  /** Where readline draws. It hides a secret: then nothing is drawn, and no row is ever full. */
  #screen(): Writable {
    const screen = new Writable({
      write: (text, _, done) => {
        if (!this.#asker) this.#output.write(`${text}`.replace("\r", " \r"));
        done();
      },
    });
    const columns = () => (this.#asker ? Infinity : this.#output.columns);
    return Object.defineProperty(screen, "columns", { get: columns });
  }

  /** Keeps from readline what is pasted. How readline gets its keys is not documented, in Node and in Bun. */
  #collectPastes(): void {
    type Press = (text: string | undefined, key: { name?: string }) => void;
    const readline = this.#rl as unknown as { _ttyWrite: Press };
    const press = readline._ttyWrite.bind(readline);
    readline._ttyWrite = (text, key) => {
      if (key.name === "paste-start") this.#pasted = "";
      else if (this.#pasted === undefined) press(text, key);
      else if (key.name === "paste-end") this.#insert(this.#pasted);
      else this.#pasted += text ?? "";
    };
    this.#output.write(marked);
  }

  /** Inserts what was pasted into the draft, as text: a line that would be a command gets one more `/`. */
  #insert(pasted: string): void {
    this.#pasted = undefined;
    const { line, cursor } = this.#rl;
    const { rows } = this.#rl.getCursorPos();
    const before = line.slice(0, cursor);
    const lines = pasted
      .replace(/[\r\n]+$/, "")
      .split(/\r\n?|\n/)
      .map(cleanText);
    const isBegun = !/(^|\n)$/.test(before); // the first of them continues a line
    const text = lines.map((line, n) => (n === 0 && isBegun ? line : line.replace(/^\//, "//")));
    this.#setLine(before + (this.#asker ? lines[0] : text.join("\n")), line.slice(cursor));
    this.print([], { rows });
  }

  #complete(line: string): [string[], string] {
    const word = /\S*$/.exec(line)![0];
    const words = word === "" ? [] : this.#on.complete(word === line);
    return [words.filter((candidate) => candidate.startsWith(word)), word];
  }

  /** Replaces what was typed, however many rows it took, by what the client makes of it. */
  #enter(line: string): void {
    if (this.#asker) {
      this.#asker(line);
      this.#asker = undefined;
      return this.print([]);
    }
    this.#setLine(line); // for getCursorPos(): readline has cleared it
    const end = this.#rl.getCursorPos();
    this.#setLine("");
    const shown = line.split("\n").flatMap((line) => this.#on.line(line) ?? []);
    this.print(shown, { rows: end.rows + 1 });
  }

  /** Stops the whole foreground process group, as the terminal itself would: a shell waits for all of it. */
  #suspend(): void {
    this.#output.write(unmarked);
    process.stdin.setRawMode(false);
    // Where no shell could continue the group, as in `ssh -t`, the kernel does not stop it.
    const unstopped = after(50, () => this.#resume(this.#rl.getCursorPos()));
    process.once("SIGCONT", () => unstopped[Symbol.dispose]());
    process.kill(0, "SIGTSTP");
  }

  /** Whoever had the terminal meanwhile has left it in another mode, and something else above the prompt. */
  #resume(prompt = { rows: 0 }): void {
    if (this.#isClosed) return;
    process.stdin.setRawMode(false); // or the next call would believe that nothing has to be done
    process.stdin.setRawMode(true);
    this.#output.write(marked);
    this.print([], prompt);
  }

  /** Replaces the draft, by what is before and behind the cursor. */
  #setLine(before: string, after = ""): void {
    Object.assign(this.#rl, { line: before + after, cursor: before.length });
  }

  #end(): void {
    this.#isClosed = true;
    this.#output.write(unmarked);
    this.print([]); // clears the line being typed
    this.#setLine("");
    this.#on.close();
  }
}
