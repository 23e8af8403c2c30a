/**
 * What the server's lines mean to a client.
 *
 * @module
 */

/** How to know a line by what it means. */
export const lineThat = {
  /** Welcomes the client; the groups are its name and, as far as they are listed, the others. */
  welcomes: /^\* welcome (\S+) \((?:\d+ online: (.+?)(?:, and \d+ more)?\), \/help)?/,
  /** Welcomes it to a room in which nobody else is. */
  findsNobody: /^\* welcome \S+ \(1 online\)/,
  /** Shows that we are in: a welcome, or what somebody says. */
  letsUsIn: /^\* welcome \S+ \(|^[^\s:*][^\s:]*: /,
  asksForPassword: /^\* (wrong )?password(:$|, try again:$)/,
  wantsTLS: /^\* this server uses TLS, add --tls$/,
  /** Can be the first line of a chat server. */
  isChat: /^\* [^(]|^[^\s:]+: /,
};

/** Who is there, as far as the server's lines say. */
export class People {
  /** What we are called ourselves. */
  own: string;
  readonly #names = new Set<string>();

  constructor(own: string) {
    this.own = own;
  }

  /** Our name as a word, in upper or lower case. */
  get mention(): RegExp {
    return new RegExp(`(?<![\\p{L}\\p{N}_])${RegExp.escape(this.own)}(?![\\p{L}\\p{N}_])`, "giu");
  }

  /** Learns from a line of the server. */
  learn(line: string): void {
    const [, speaker] = /^(?:\* )?([^\s:*][^\s:]*)(?:: | joined \(| \(worker )/.exec(line) ?? [];
    const [, before, after] = /^\* (\S+) (?:left\b|is now (\S+)$)/.exec(line) ?? [];
    const [, welcomed, others] = lineThat.welcomes.exec(line) ?? [];
    if (others) this.#names.clear(); // some may have left while we were not connected
    if (before) this.#names.delete(before);
    for (const present of [speaker, after, ...(others?.split(", ") ?? [])])
      if (present) this.#names.add(present);
    const isOurs = before === this.own && after !== undefined;
    this.own = welcomed ?? (isOurs ? after : this.own);
  }

  /** What Tab may complete, at the beginning of a line or further on. */
  completions(isFirst: boolean): string[] {
    const names = [...this.#names].map((name) => name + (isFirst ? ": " : " "));
    return isFirst ? ["/nick ", "/who", "/help", "/quit", ...names] : names;
  }
}
