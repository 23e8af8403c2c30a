/**
 * What a person would see: a small terminal that understands what `client.ts` and readline send.
 *
 * @module
 */
import { root, until } from "./helpers.ts";

const height = 24;

/** A screen of characters; a wide one takes its cell and an empty one behind it. */
export class Screen {
  #rows: string[][] = Array.from({ length: height }, () => []);
  #continued = new WeakSet<string[]>(); // rows that began where the one above was full
  #row = 0;
  #column = 0; // may be one beyond the last: the next character wraps
  #unread = "";

  constructor(public columns: number) {}

  /** The screen as text, without empty lines below. */
  get text(): string {
    const textOf = (row: string[]) => Array.from(row, (cell) => cell ?? " ").join("");
    const rows = this.#rows.map((row) => textOf(row).trimEnd());
    return rows.join("\n").trimEnd();
  }

  get cursor(): { row: number; column: number } {
    return { row: this.#row, column: this.#column };
  }

  /** Another width: full rows flow into the next ones, as in tmux, VTE, kitty and most others. */
  resize(columns: number): void {
    const [rows, row, column] = [this.#rows, this.#row, this.#column];
    this.columns = columns;
    this.#rows = Array.from({ length: height }, () => []);
    this.#row = this.#column = 0;
    let cursor: [string[], number] = [this.#rows[0]!, 0];
    const end = rows.findLastIndex((cells, y) => y === row || cells.length > 0);
    for (const [y, cells] of rows.slice(0, end + 1).entries()) {
      if (y > 0 && !this.#continued.has(cells)) {
        this.#down();
        this.#column = 0;
      }
      for (let x = 0; x < Math.max(cells.length, y === row ? column + 1 : 0); x++) {
        if (y === row && x === column) cursor = [this.#rows[this.#row]!, this.#column];
        if (x < cells.length && cells[x] !== "") this.#put(cells[x] ?? " ");
      }
    }
    this.#row = this.#rows.indexOf(cursor[0]);
    this.#column = cursor[1];
  }

  write(text: string): void {
    this.#unread += text;
    const token = /\x1b\[([?\d;]*)([A-Za-z])|[\r\n\t\x07]|[^\x00-\x1f\x7f]|\x1b(?![[])./suy;
    let end = 0;
    for (let match; (match = token.exec(this.#unread)); end = token.lastIndex)
      this.#do(match[0], match[1] ?? "", match[2]);
    this.#unread = this.#unread.slice(end); // a sequence that is not complete yet
  }

  #do(token: string, numbers: string, command: string | undefined): void {
    const n = Number(numbers.split(";")[0]) || 1;
    const last = this.columns - 1;
    if (token === "\r") this.#column = 0;
    else if (token === "\n") this.#down();
    else if (token === "\t") this.#column = Math.min(last, (this.#column | 7) + 1);
    else if (command === "A") this.#row = Math.max(0, this.#row - n);
    else if (command === "C") this.#column = Math.min(last, this.#column + n);
    else if (command === "G") this.#column = n - 1;
    else if (command === "J") {
      this.#rows[this.#row]!.length = Math.min(this.#rows[this.#row]!.length, this.#column);
      for (let row = this.#row + 1; row < height; row++) this.#rows[row] = [];
    } else if (command === undefined && !/^[\x00-\x1f]/.test(token)) this.#put(token);
  }

  #put(character: string): void {
    const width = Bun.stringWidth(character);
    if (this.#column + width > this.columns) {
      this.#down();
      this.#column = 0;
      this.#continued.add(this.#rows[this.#row]!);
    }
    const row = this.#rows[this.#row]!;
    row[this.#column] = character;
    if (width === 2) row[this.#column + 1] = "";
    this.#column += width;
  }

  #down(): void {
    if (this.#row < height - 1) this.#row++;
    else this.#rows = [...this.#rows.slice(1), []];
  }
}

/** A text without its white space: what does not depend on where lines are broken. */
export function squeeze(text: string): string {
  return text.replace(/\s/g, "");
}

/** A program in a terminal of its own, with its screen and all that it sent. */
export class Session implements Disposable {
  readonly process: Bun.Subprocess;
  raw = "";
  readonly screen: Screen;

  constructor(cmd: string[], columns = 80, env: Record<string, string> = {}) {
    this.screen = new Screen(columns);
    const decoder = new TextDecoder();
    this.process = Bun.spawn(cmd, {
      cwd: root,
      env: { ...process.env, TERM: "xterm-256color", NO_COLOR: "", ...env },
      terminal: {
        cols: columns,
        rows: height,
        data: (_, chunk) => {
          const text = decoder.decode(chunk, { stream: true });
          this.raw += text;
          this.screen.write(text);
        },
      },
    });
  }

  type(text: string): void {
    this.process.terminal!.write(text);
  }

  /** Waits until `check` holds; fails with what is on the screen. */
  async until(check: () => boolean, what: string): Promise<void> {
    await until(check, what, () => this.screen.text);
  }

  /** Waits until the screen shows something. */
  async shows(wanted: string | RegExp): Promise<void> {
    const pattern = typeof wanted === "string" ? RegExp(RegExp.escape(wanted)) : wanted;
    await this.until(() => pattern.test(this.screen.text), `${wanted} on the screen`);
  }

  /** Waits until the screen ends with a text, wherever its lines are broken. */
  async ends(text: string): Promise<void> {
    const found = () => squeeze(this.screen.text).endsWith(squeeze(text));
    await this.until(found, `${text} at the end of the screen`);
  }

  resize(columns: number): void {
    this.screen.resize(columns);
    this.process.terminal!.resize(columns, height);
  }

  [Symbol.dispose](): void {
    this.process.kill("SIGKILL");
  }
}
