#!/usr/bin/env bun
/**
 * The article's second way on Bun: a thread for each connection, which owns the client's socket. What
 * a client says goes from its thread straight to all the others', over a `BroadcastChannel`.
 *
 * A channel knows no backpressure: what a thread has no time for yet waits in memory, without bound.
 */
import { dlopen, suffix } from "bun:ffi";
import { isMainThread, Worker, workerData } from "node:worker_threads";

/** Bun adopts an open descriptor; bun-types has the options but not this overload. */
declare module "bun" {
  function connect<Data = undefined>(options: FdSocketOptions<Data>): Promise<Socket<Data>>;
}

/** Accepts, and hands each socket's descriptor to a new thread. */
function listen(port: number): void {
  const libc = process.platform === "linux" ? "libc.so.6" : `libSystem.B.${suffix}`;
  const { dup } = dlopen(libc, { dup: { args: ["int"], returns: "int" } }).symbols;
  Bun.listen({
    hostname: "127.0.0.1",
    port,
    socket: {
      open(socket) {
        socket.setNoDelay(true);
        socket.pause(); // its bytes are the thread's
        // Two event loops cannot close one descriptor: the thread gets a second one for the socket.
        const { fd } = socket as typeof socket & { fd: number };
        const thread = new Worker(import.meta.path, { workerData: dup(fd) });
        thread.on("exit", () => socket.terminate());
      },
      data() {},
    },
  });
}

/** A thread: from its client's socket to the channel, and from the channel to the socket. */
async function serve(fd: number): Promise<void> {
  const channel = new BroadcastChannel("room");
  let name = ""; // empty before the client's first line
  let carry = Buffer.alloc(0); // a line that has begun
  const backlog: Uint8Array[] = []; // what the socket did not take yet

  const client = await Bun.connect({
    fd,
    socket: {
      data(_, chunk) {
        const bytes = Buffer.concat([carry, chunk]);
        const end = bytes.lastIndexOf(0x0a) + 1;
        carry = bytes.subarray(end);
        if (end === 0) return;
        const lines = bytes.toString("utf8", 0, end - 1).split("\n");
        name ||= lines.shift()!.trimEnd();
        const block = lines.map((line) => `${name}: ${line}\n`).join("");
        if (block) channel.postMessage(Buffer.from(block));
      },
      drain: flush,
      close: () => process.exit(), // of this thread
      error: () => process.exit(),
    },
  });

  channel.onmessage = ({ data }: { data: Uint8Array }) => {
    if (backlog.push(data) === 1) flush();
  };

  /** Writes what waits, as far as the kernel takes it. */
  function flush(): void {
    for (let block; (block = backlog[0]); backlog.shift()) {
      const taken = Math.max(0, client.write(block));
      if (taken < block.length) return void (backlog[0] = block.subarray(taken));
    }
  }
}

if (isMainThread) listen(Number(process.env.PORT));
else await serve(workerData as number);
