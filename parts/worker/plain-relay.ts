/**
 * The plain way between a worker's client and the server: streams, on every system and over TLS.
 *
 * Where bytes wait: what the client says waits in its socket, which is read only when the last chunk is
 * dealt with and the server has taken it. What the others say waits in stdin, which is read only while
 * the client's socket takes it; one chunk at most waits in that socket's buffer.
 *
 * @module
 */
import type { Socket } from "node:net";
import { type Ears, throttleTimeout, type Limits, type Relay } from "./relay.ts";

const newline = 0x0a;
const closeTimeout = 500; // for the client to close its end, which it should do first, ms

export class PlainRelay implements Relay {
  said = 0;
  readonly #stdout = Bun.stdout.writer();
  #isListening = true;

  async run(client: Socket, ears: Ears, limits: Limits): Promise<void> {
    client.allowHalfOpen = true; // a client that has said everything may want to read on
    const { promise: closed, resolve: close } = Promise.withResolvers<void>();
    const { stdin } = process;
    stdin.on("data", (chunk: Buffer) => {
      if (client.destroyed || client.write(chunk)) return;
      stdin.pause();
      client.once("drain", () => stdin.resume());
    });
    client.on("close", () => stdin.resume()); // what is on its way to it goes nowhere
    stdin.on("end", () => {
      if (client.destroyed) return close();
      client.once("close", close);
      client.end(() => setTimeout(close, closeTimeout)); // the kernel has all of it
    });
    void this.#listen(client, ears, limits);
    await closed;
  }

  async #listen(client: Socket, ears: Ears, { pace, telnet }: Limits): Promise<void> {
    let wasReset = false;
    let throttled = 0; // since the client is gone, ms
    client.on("error", () => (wasReset = true));
    try {
      // Left to itself, the iterator destroys the socket when the client has ended its half of it.
      for await (const chunk of client.iterator({
        destroyOnReturn: false,
      }) as AsyncIterable<Buffer>) {
        if (!this.#isListening) continue;
        let rest = telnet.read(chunk);
        ears.hold("torn", telnet.isTorn);
        pace.spend(Number(telnet.hasCommands));
        do {
          ears.hold("lines", pace.lines === 0);
          if (client.destroyed) throttled += pace.wait;
          if (throttled > throttleTimeout) break;
          if (pace.lines === 0) await Bun.sleep(pace.wait);
          const [end, lines] = endOfLines(rest, pace.lines);
          pace.spend(lines);
          await ears.hear(rest.subarray(0, end));
          rest = rest.subarray(end);
        } while (rest.length > 0 && this.#isListening);
        ears.hold("lines", false);
      }
      // The error of a reset is gone, if a write has got it: then only the peer's address is missing.
      wasReset ||= client.remoteAddress === undefined;
    } catch {
      wasReset = true;
    }
    await ears.end(wasReset);
  }

  stopListening(): void {
    this.#isListening = false;
  }

  detach(): undefined {} // nobody knows what its buffers hold

  hurry(): void {} // timers run anyway

  async say(lines: string): Promise<void> {
    this.said += Buffer.byteLength(lines);
    try {
      await this.#stdout.write(lines);
      await this.#stdout.flush();
    } catch {
      // The server is dead.
    }
  }
}

/** Where so many lines end at the latest, or all there is; and how many lines that are. */
function endOfLines(chunk: Uint8Array, most: number): [end: number, lines: number] {
  let [end, lines] = [0, 0];
  for (let next; lines < most && (next = chunk.indexOf(newline, end)) >= 0; lines++) end = next + 1;
  return [lines < most ? chunk.length : end, lines];
}
