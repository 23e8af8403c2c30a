/**
 * What hostile clients send: other protocols, lines of any length, and whatever terminals and parsers fear.
 *
 * @module
 */
import type { randomFrom } from "./helpers.ts";

const texts = [
  "| |*|**ann|* ann|:|::|a:b|ann|ann:| ann|ann |witness|ANN|ann2|ａｎｎ|ﬀ|a\u0301\u0300\u0302|\u0301ann",
  "ann\u200b|\u202eann|\u2066x|\u2800|\u3000|\ufeffann|a\0b|\x1b[31mred|\x07|\x7f|a\tb|joined|worker",
  "server|5|welcome|try|(|x(1|you|is|now|left|__proto__|constructor|/nick|//x|/help|-rf|guest|guest2",
  "* ann left|ann: 7 forged|\r* server is shutting down|x\rann: 8 forged|x\u2028* forged|// * x",
  "\x1b[2J\x1b[H* forged|\x1b]0;title\x07|\u202etxet\u2066|\0\0\0|a\u0085b\u009b31m|/|//|/nope|/who x",
  `%s%n|$(reboot)|'; --|\\n|\ud800|${"😀".repeat(40)}|${"é".repeat(33)}|${"x".repeat(4096)}`,
  "x".repeat(100_000),
].flatMap((some) => some.split("|"));

/** Chooses a text, as a name or a line; bytes of any kind; or a whole write, by the limit of a line. */
export function rubbishBy({ chance, upTo, pick }: ReturnType<typeof randomFrom>, maxLine: number) {
  const text = () => pick(texts);
  const bytes = (length: number) =>
    Uint8Array.from({ length }, () => (chance(0.05) ? 10 : upTo(255)));
  const writes: (() => string | Uint8Array)[] = [
    () => bytes(upTo(5000)),
    () => "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    () => Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...bytes(200)), // a TLS hello
    () => Uint8Array.of(0xff, 0xfd, 1, 0xff, 0xfb, 3, 0xff, 0xfa, 31, 0, 80, 0xff, 0xf0, 10), // telnet
    () => Uint8Array.of(0xe2, 0x82, 10, 0xf0, 0x9f, 0x98, 10, 0xed, 0xa0, 0x80, 10, 0xc0, 0xaf, 10),
    () => "x".repeat(chance(0.5) ? 1_000_000 : upTo(2 * maxLine)), // no end
    () => `${"x".repeat(maxLine - 1 + upTo(2))}\n`,
    () => `${"é".repeat(maxLine / 2 - 1 + upTo(2))}\r\n`,
    () => Buffer.concat([Buffer.alloc(maxLine / 3 - 2 + upTo(4), 0xfe), Buffer.from("\n")]), // thrice as long
    () => `${"y".repeat(maxLine)}\n`.repeat(Math.ceil(500_000 / maxLine)),
    () => pick(["\n", "\r\n\r\r\n", "\0"]).repeat(upTo(30_000)),
    () => pick(["/who\n", "/help\n"]).repeat(upTo(300)),
    () => `${text()}\n`.repeat(chance(0.5) ? 1 : upTo(50)),
    () => Array.from({ length: chance(0.5) ? 1 : upTo(60) }, () => `/nick ${text()}\n`).join(""),
    () => `/${"9j/4AAQ".repeat(upTo(300))}\n`,
  ];
  return { text, bytes, write: () => pick(writes)() };
}
