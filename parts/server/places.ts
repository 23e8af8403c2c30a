/**
 * How many clients there may be, in all and from one network.
 *
 * @module
 */
import { isIPv6 } from "node:net";
import type { Connection } from "./connection.ts";
import { Refusal } from "./refusal.ts";

/** The connections that have a place, from accept to their end. */
export class Places {
  readonly connections = new Set<Connection>();
  readonly #most: number;
  readonly #mostPerNetwork: number;

  /** @param mostPerNetwork 0 is no limit */
  constructor(most: number, mostPerNetwork: number) {
    this.#most = most;
    this.#mostPerNetwork = mostPerNetwork;
  }

  /**
   * Takes a place for a connection, until it is disposed of. Throws a Refusal if there is none, unless the client
   * had its place on a server that has died.
   */
  take(connection: Connection): Disposable {
    const network = networkOf(connection.address);
    const neighbours = this.connections.values().filter((c) => networkOf(c.address) === network);
    const isNew = connection.isBefore("named");
    if (isNew && this.connections.size >= this.#most) throw new Refusal("server is full");
    if (isNew && this.#mostPerNetwork > 0 && [...neighbours].length >= this.#mostPerNetwork)
      throw new Refusal("too many connections from your address");
    this.connections.add(connection);
    return { [Symbol.dispose]: () => void this.connections.delete(connection) };
  }
}

/**
 * Whose an IP address is: an IPv4 address is one customer's, and so are the 2^64 of an IPv6 network.
 * `::ffff:1.2.3.4` is the IPv4 address in it.
 */
export function networkOf(address: string): string {
  const four = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (four || !isIPv6(address)) return four ?? address;
  const [head = "", tail] = address.replace(/%.*/, "").split("::");
  const [first, last] = [head, tail ?? ""].map((part) => (part ? part.split(":") : []));
  const zeros = Array<string>(8 - first!.length - last!.length).fill("0");
  const groups = tail === undefined ? first! : [...first!, ...zeros, ...last!];
  return `${groups
    .slice(0, 4)
    .map((group) => parseInt(group, 16).toString(16))
    .join(":")}::/64`;
}
