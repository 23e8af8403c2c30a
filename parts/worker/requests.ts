/**
 * The server, as a worker sees it over IPC: what it is asked and reported, and what it orders.
 *
 * @module
 */
import type { Heritage, Holds, Meeting, Message, Order, Question } from "../shared/control.ts";
import type { Relay } from "./relay.ts";

export class Server {
  /** What the server calls our client; empty before that has joined. */
  name = "";
  /** Whether the client has left, or was ordered to. */
  isLeaving = false;
  /** Whether it has died with a question of ours, or before we could ask. */
  hasFailed = false;
  #meeting: Meeting | undefined;
  readonly #relay: Relay;
  #holds: Holds = { type: "holds", lines: false, torn: false };
  #answer = Promise.withResolvers<void>(); // to the question that waits

  /** Ends the process if no server has started it. */
  constructor(relay: Relay) {
    if (!process.send) {
      process.stderr.write("worker.ts: the server starts its workers itself: bun server.ts\n");
      process.exit(1);
    }
    this.#relay = relay;
    process.on("disconnect", () => this.#answer.resolve());
    process.on("message", (order: Order) => {
      if (order.type === "serve") this.#meeting = order.meeting;
      if (order.type === "wait") this.#detach();
      if (order.type === "name") this.name = order.name;
      if (order.type === "done") this.#answer.resolve();
      if (order.type === "finish") this.leave();
    });
  }

  /** Takes over from a worker that has died. */
  inherit({ name = "", isTorn = false, isLeaving = false }: Partial<Heritage> = {}): void {
    this.name = name;
    this.#holds.torn = isTorn;
    this.isLeaving = isLeaving;
    if (isLeaving) this.#relay.stopListening();
  }

  /** Where our client waits for another server when this one is gone; undefined if it does not wait. */
  get meeting(): Meeting | undefined {
    return this.name && !this.isLeaving ? this.#meeting : undefined;
  }

  /** Sends a message that has no answer. */
  report(message: Message): void {
    if (process.connected) process.send!(message);
  }

  /** Reports what would be lost with this process, if that has changed. */
  hold(what: "lines" | "torn", isHeld: boolean): void {
    if (this.#holds[what] === isHeld) return;
    this.#holds = { ...this.#holds, [what]: isHeld };
    this.report(this.#holds);
  }

  /** Asks something and waits for the answer: what the client sent later does not overtake it. */
  async ask(question: Question): Promise<void> {
    this.#answer = Promise.withResolvers();
    this.report({ ...question, at: this.#relay.said });
    if (process.connected) await this.#answer.promise;
    this.hasFailed ||= !process.connected;
  }

  /** Tells our own client something, in order with what the others say. */
  tell(text: string): Promise<void> {
    return this.ask({ type: "tell", text });
  }

  /** Tells our own client why it is not served, and the log as well: that is its end. */
  refuse(text: string): Promise<void> {
    return this.ask({ type: "refuse", text });
  }

  /** Answers Ctrl-C in telnet(1), which shows nothing until then; what was sent before is dealt with first. */
  async mark(before: Promise<void> | undefined): Promise<void> {
    await before;
    if (!this.isLeaving) await this.ask({ type: "mark", text: "/quit leaves" });
  }

  /** Reports that the client says nothing more: the server tells the room, and ends our stdin. */
  leave(): void {
    if (this.isLeaving) return;
    this.isLeaving = true;
    this.#relay.stopListening();
    this.report({ type: "leave", at: this.#relay.said });
  }

  /** The server goes, and means to come back: our client says nothing more to it, and waits. */
  #detach(): void {
    const detached = this.meeting && this.#relay.detach();
    if (!detached) return this.leave();
    void detached.then(() => this.report({ type: "leave", at: this.#relay.said }));
  }
}
