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
  /** Refuses what was sent; the group is how many bytes a line may have. */
  limitsLines: /^\* not sent: longer than (\d+) bytes$/,
  asksForPassword: /^\* (wrong )?password(:$|, try again:$)/,
  wantsTLS: /^\* this server uses TLS, add --tls$/,
  /** Can be the first line of a chat server. */
  isChat: /^\* [^(]|^[^\s:]+: /,
};

const maxNames = 1000; // that Tab knows: a server may claim any number of people

/** Who is there, and what they may send, as far as the server's lines say. */
export class People {
  /** What we are called ourselves. */
  own: string;
  /** How many bytes a line may have: until the server says so, what is usual. */
  longest = 4096;
  readonly #names = new Set<string>();

  constructor(own: string) {
    this.own = own;
  }

  /** Our name as a word, in upper or lower case. */
  get mention(): RegExp {
    return new RegExp(`(?<![\\p{L}\\p{N}_])${RegExp.escape(this.own)}(?![\\p{L}\\p{N}_])`, "giu");
  }

  /** Learns from a line of the server. Returns whether it says anything new. */
  learn(line: string): boolean {
    const [, speaker] = /^(?:\* )?([^\s:*][^\s:]*)(?:: | joined \(| \(worker )/.exec(line) ?? [];
    const [, before, after] = /^\* (\S+) (?:left\b|is now (\S+)$)/.exec(line) ?? [];
    const [, welcomed, others] = lineThat.welcomes.exec(line) ?? [];
    const [, given] = /^\* .+, you are (\S+)$/.exec(line) ?? []; // another name than we wanted
    if (others) this.#names.clear(); // some may have left while we were not connected
    if (before) this.#names.delete(before);
    for (const name of [speaker, after, ...(others?.split(", ") ?? [])]) if (name) this.#add(name);
    const isNew = after === undefined || after !== this.own;
    const renamed = before === this.own ? after : undefined;
    this.own = welcomed ?? given ?? renamed ?? this.own;
    this.longest = Number(lineThat.limitsLines.exec(line)?.[1] ?? this.longest);
    return isNew;
  }

  #add(name: string): void {
    this.#names.delete(name); // and is the last again
    this.#names.add(name);
    const [oldest] = this.#names;
    if (this.#names.size > maxNames) this.#names.delete(oldest!);
  }

  /** What Tab may complete, at the beginning of a line or further on. */
  completions(isFirst: boolean): string[] {
    const names = [...this.#names].map((name) => name + (isFirst ? ": " : " "));
    return isFirst ? ["/nick ", "/who", "/help", "/quit", ...names] : names;
  }
}
