/**
 * Who speaks another protocol than this chat's.
 *
 * @module
 */

// The first lines of SSH, mail, a proxy (HAProxy's PROXY protocol), HTTP and RTSP, and Redis (RESP).
const greetings = [
  /^SSH-\d/,
  /^(EHLO|HELO|LHLO) \S/,
  /^PROXY (TCP[46]|UNKNOWN)\b/,
  /^[A-Z]+ (\/|\*|\w+:)\S*( |$)/,
  /^[*$]\d+$/,
];

/**
 * Whether a client's first line is the beginning of another protocol, or no text at all: its sender is
 * nobody who wants to chat.
 */
export function isForeign(line: string): boolean {
  return line.includes("\ufffd") || greetings.some((greeting) => greeting.test(line));
}
