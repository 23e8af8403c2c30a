/**
 * A terminal in which lines appear above the one that is being typed. Node's readline edits that line;
 * here is all that keeps it and the lines above it apart.
 *
 * @module
 */
import { createInterface } from "node:readline";
import { Writable } from "node:stream";

/** Makes text less bright. util.styleText would also obey CI and TERM, which are not the user's wish. */
export const dim = (text: string): string => `\x1b[2m${text}\x1b[22m`;
export const bold = (text: string): string => `\x1b[1m${text}\x1b[22m`;

// Of the 256 terminal colours, some of each hue with a contrast of 3.6 or more on black and on white.
const palette = [160, 166, 130, 64, 28, 30, 32, 67, 61, 99, 134, 163, 132, 161];

/** Makes a server's line ready for the screen: a name in its own colour, a notice dim. */
export function render(line: string): string {
  const [, name, text] = /^([^\s:*][^\s:]*): (.*)$/.exec(line) ?? [];
  if (name === undefined) return dim(line);
  return `\x1b[38;5;${palette[Bun.hash.crc32(name) % palette.length]}m${name}:\x1b[39m ${text}`;
}

/** What happens in the terminal. */
export interface TerminalEvents {
  /** A line was typed; gives what stands in its place, or nothing. */
  line(line: string): string | undefined;
  /** Words that may stand where a word is typed, at the beginning of the line or further on. */
  complete(isFirst: boolean): string[];
  /** The user has typed Ctrl-C or Ctrl-D, or `close()` was called. */
  close(): void;
}

/** The terminal that stdin and stdout are. */
export class Terminal {
  readonly #on: TerminalEvents;
  readonly #colour: boolean;
  readonly #output = process.stdout;
  readonly #rl;
  #secret: ((line: string) => void) | undefined; // takes the next line, which is not shown
  #isClosed = false;

  constructor(on: TerminalEvents, { colour }: { colour: boolean }) {
    this.#on = on;
    this.#colour = colour;
    const { stdin: input } = process;
    this.#rl = createInterface({
      input,
      output: this.#screen(),
      terminal: true,
      completer: (line: string) => this.#complete(line),
    });
    this.#rl.on("history", (history) => this.#secret && history.shift());
    this.#rl.on("line", (line) => this.#enter(line));
    this.#rl.on("close", () => this.#end());
    this.#rl.on("SIGTSTP", () => this.#suspend()); // Ctrl-Z
    process.on("SIGCONT", () => this.#resume());
    this.#output.on("resize", () => this.print([])); // most terminals have wrapped the line anew
    input.on("data", (keys) => keys.length > 1 && this.print([])); // readline loses count in a paste
  }

  /** Puts lines, which may have colours, where the typed line begins, and that line again below. */
  print(lines: string[], { rows }: { rows: number } = this.#rl.getCursorPos()): void {
    const clock = this.#output.columns < 60 ? "" : dim(`${new Date().toTimeString().slice(0, 5)} `);
    const text = lines.map((line) => `${clock}${line}\n`).join("");
    // The space takes the cursor from the end of a full row to the next one, where readline expects it.
    const above = ` ${"\x1b[A".repeat(rows)}\r\x1b[J`;
    this.#output.write(above + (this.#colour ? text : Bun.stripANSI(text)));
    // The number of rows that readline goes up before it redraws: not documented, in Node and in Bun.
    Object.assign(this.#rl, { prevRows: 0 });
    if (!this.#isClosed) this.#rl.prompt(true);
  }

  /** Takes the next line as a secret: it is neither shown nor remembered. */
  ask(answer: (secret: string) => void): void {
    this.#secret = answer;
  }

  /** Shows again what is typed: nobody waits for a secret any more. */
  stopAsking(): void {
    this.#secret = undefined;
  }

  /** Gives the terminal back as it was. */
  close(): void {
    this.#rl.close();
  }

  /** Between readline and the terminal, so that a secret can be hidden. */
  #screen(): Writable {
    const screen = new Writable({
      write: (text, _, done) => {
        // The space is the one of print(), for the rows that readline itself fills.
        if (!this.#secret) this.#output.write(`${text}`.replace("\r", " \r"));
        done();
      },
    });
    const columns = () => (this.#secret ? Infinity : this.#output.columns);
    return Object.defineProperty(screen, "columns", { get: columns });
  }

  #complete(line: string): [string[], string] {
    const word = /\S*$/.exec(line)![0];
    const words = word === "" ? [] : this.#on.complete(word === line);
    return [words.filter((candidate) => candidate.startsWith(word)), word];
  }

  /** Replaces what was typed, however many rows it took, by what the client makes of it. */
  #enter(line: string): void {
    const answer = this.#secret;
    if (answer) {
      this.#secret = undefined;
      answer(line);
      return this.print([]);
    }
    this.#setLine(line); // for getCursorPos(): readline has cleared it
    const end = this.#rl.getCursorPos();
    this.#setLine("");
    const shown = this.#on.line(line);
    this.print(shown === undefined ? [] : [shown], { ...end, rows: end.rows + 1 });
  }

  /** Stops the whole foreground process group, as the terminal itself would: a shell waits for all of it. */
  #suspend(): void {
    process.stdin.setRawMode(false);
    process.kill(0, "SIGTSTP");
  }

  /** Whoever had the terminal meanwhile has left it in another mode, and something else above the prompt. */
  #resume(): void {
    if (this.#isClosed) return;
    process.stdin.setRawMode(false); // or the next call would believe that nothing has to be done
    process.stdin.setRawMode(true);
    this.print([], { rows: 0 });
  }

  #setLine(line: string): void {
    Object.assign(this.#rl, { line, cursor: line.length });
  }

  #end(): void {
    this.#isClosed = true;
    this.print([]); // clears the line being typed
    this.#setLine("");
    this.#on.close();
  }
}
