#!/usr/bin/env bun
/**
 * Fan-out latency: one client says a line of 80 bytes; how long until all N others have it?
 *
 * It is measured on the real server over real sockets, next to the same chat in one process: the
 * difference is the price of a process per connection. The clients live in this process and read
 * whatever comes, so with many of them a part of the time is theirs, the same for both servers.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { bench, lineplot, run, summary } from "mitata";
import { closeRoom, fill, openRoom, say } from "./clients.ts";
import { contenders, type Start, startServer } from "./servers.ts";

const usage = `usage: bun bench/fanout.ts [options]
  --quick     16 receivers only: about 5 s; else half a minute
  -h, --help  print this

How long a line of 80 bytes takes until all of 1 to 128 receivers have it, with
a process for each connection, and with one for all.
`;

function readOptions(): { quick: boolean } {
  try {
    const { values } = parseArgs({
      options: {
        quick: { type: "boolean", default: false },
        help: { type: "boolean", short: "h" },
      },
    });
    if (!values.help) return values;
  } catch (error) {
    const [message] = (error as Error).message.split(". ");
    process.stderr.write(`fanout.ts: ${message} (see --help)\n`);
    process.exit(2);
  }
  process.stdout.write(usage);
  process.exit();
}

const receivers = readOptions().quick ? [16] : [1, 2, 4, 8, 16, 32, 64, 128];

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

// mitata 1.0.34 cannot draw a line without colours, nor through one point.
const colors = process.stdout.isTTY === true && !process.env.NO_COLOR;
const plot = colors && receivers.length > 1 ? lineplot : summary;

plot(() => {
  summary(() => {
    bench("processes, N = $N", processes.fanOut).args("N", receivers);
    bench("one process, N = $N", oneProcess.fanOut).args("N", receivers).baseline();
  });
});

// With names of 20 columns, the plot has room on a terminal of 80.
await run({ throw: true, colors, format: { mitata: { name: 20 } } });
await Promise.all([processes.close(), oneProcess.close()]);
