/**
 * What the server's lines mean to a client.
 *
 * @module
 */

/** The name under which the server welcomes its client; undefined if the line is no welcome. */
export function welcomedName(line: string): string | undefined {
  return /^\* welcome (\S+) \(/.exec(line)?.[1];
}

/** Whether the server welcomes its client. */
export function isWelcome(line: string): boolean {
  return welcomedName(line) !== undefined;
}

/** Whether it welcomes its client to a room in which nobody else is. */
export function isAlone(line = ""): boolean {
  return /^\* welcome \S+ \(1 online\)/.test(line);
}

/** Whether a line shows that we are in: our welcome, or what somebody says. */
export function showsThatWeAreIn(line: string): boolean {
  return isWelcome(line) || /^[^\s:*][^\s:]*: /.test(line);
}

/** Whether the server asks for a password. */
export function asksPassword(line: string): boolean {
  return /^\* (wrong )?password(:$|, try again:$)/.test(line);
}

/** Whether the server says that it wants TLS. */
export function wantsTLS(line: string): boolean {
  return line === "* this server uses TLS, add --tls";
}

/** Whether a chat server can have said this as its first line. */
export function isChat(line: string): boolean {
  return /^\* [^(]|^[^\s:]+: /.test(line);
}

/** Who is there, as far as the server's lines tell. */
export class People {
  /** What we are called ourselves. */
  own: string;
  readonly #names = new Set<string>();

  constructor(own: string) {
    this.own = own;
  }

  /** Learns from a line of the server. */
  learn(line: string): void {
    const [, speaker] = /^(?:\* )?([^\s:*][^\s:]*)(?:: | joined \(| \(worker )/.exec(line) ?? [];
    const [, before, after] = /^\* (\S+) (?:left\b|is now (\S+)$)/.exec(line) ?? [];
    if (before) this.#names.delete(before);
    for (const present of [speaker, after]) if (present) this.#names.add(present);
    const isOurs = before === this.own && after !== undefined;
    this.own = welcomedName(line) ?? (isOurs ? after : this.own);
  }

  /** What Tab may complete, at the beginning of a line or further on. */
  completions(isFirst: boolean): string[] {
    const names = [...this.#names].map((name) => name + (isFirst ? ": " : " "));
    return isFirst ? ["/nick ", "/who", "/help", "/quit", ...names] : names;
  }
}
