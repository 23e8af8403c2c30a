#!/usr/bin/env bun
/**
 * Fan-out latency: one client says a line of 80 bytes; how long until all N others have it?
 *
 *     bun bench/fanout.ts            about half a minute
 *     bun bench/fanout.ts --quick    about 5 s
 *
 * It is measured on the real server over real sockets, next to the same chat in one process: the
 * difference is the price of a process per connection. The clients live in this process and read
 * whatever comes, so with many of them a part of the time is theirs, the same for both servers.
 *
 * @module
 */
import { bench, lineplot, run, summary } from "mitata";
import { closeRoom, fill, openRoom, say } from "./load.ts";
import { contenders, type Start, startServer } from "./servers.ts";

const quick = process.argv.includes("--quick");
const receivers = quick ? [16] : [1, 2, 4, 8, 16, 32, 64, 128];

/** A server with a room that grows from one N to the next. */
async function open(server: "pipechat" | "evented") {
  const { stop, ...address } = await startServer(contenders[server]!.start(129) as Start);
  const room = openRoom({ ...address, form: "text" });
  return {
    async *fanOut(state: { get(name: "N"): number }) {
      await fill(room, state.get("N") + 1);
      yield () => say(room, 0);
    },
    async close() {
      closeRoom(room);
      await stop();
    },
  };
}

const [processes, oneProcess] = [await open("pipechat"), await open("evented")];

// mitata 1.0.34 cannot draw a line without colours.
const plot = process.env.NO_COLOR ? summary : lineplot;

plot(() => {
  summary(() => {
    bench("processes, N = $N", processes.fanOut).args("N", receivers);
    bench("one process, N = $N", oneProcess.fanOut).args("N", receivers).baseline();
  });
});

await run({ throw: true });
await Promise.all([processes.close(), oneProcess.close()]);
