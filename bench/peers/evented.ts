#!/usr/bin/env bun
/**
 * The article's third way on Bun: one process serves all connections from its event loop.
 *
 *     PORT=2000 bun bench/peers/evented.ts [--plain]
 *
 * With `--plain` it relays lines as they come, without the sender's name: no server can do less, so
 * it shows the limit of the load generator, which then sends the names itself.
 */
interface Client {
  name: string; // empty before its first line
  carry: Buffer; // a line that has begun
  backlog: Buffer[]; // what its socket did not take yet
}

const plain = process.argv.includes("--plain");
const clients = new Set<Bun.Socket<Client>>();
const paused = new Set<Bun.Socket<Client>>(); // senders, until nobody has a backlog any more
let behind = 0; // clients with a backlog

Bun.listen<Client>({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  socket: {
    open(socket) {
      socket.data = { name: "", carry: Buffer.alloc(0), backlog: [] };
      socket.setNoDelay(true);
      clients.add(socket);
    },
    data(socket, chunk) {
      const bytes = Buffer.concat([socket.data.carry, chunk]);
      const end = bytes.lastIndexOf(0x0a) + 1;
      socket.data.carry = bytes.subarray(end);
      if (end > 0) say(socket, bytes.subarray(0, end));
    },
    drain: flush,
    close(socket) {
      clients.delete(socket);
      paused.delete(socket);
      if (socket.data.backlog.length > 0) caughtUp();
    },
    error: (socket) => void socket.terminate(),
  },
});

/** Relays whole lines to everyone but their sender. */
function say(sender: Bun.Socket<Client>, block: Buffer): void {
  if (!sender.data.name) {
    const end = block.indexOf(0x0a);
    sender.data.name = block.toString("utf8", 0, end).trimEnd();
    block = block.subarray(end + 1);
    if (block.length === 0) return;
  }
  if (!plain) {
    const lines = block.toString().slice(0, -1).split("\n");
    block = Buffer.from(lines.map((line) => `${sender.data.name}: ${line}\n`).join(""));
  }
  for (const client of clients) {
    if (client === sender || client.data.backlog.push(block) > 1) continue;
    behind++;
    flush(client);
  }
  // Backlogs stop growing: who is heard while there is one is not read any more until there is none.
  if (behind === 0) return;
  sender.pause();
  paused.add(sender);
}

/** Writes what waits, as far as the kernel takes it: of a block it may take a part. */
function flush(client: Bun.Socket<Client>): void {
  const { backlog } = client.data;
  if (backlog.length === 0) return;
  for (let block; (block = backlog[0]); backlog.shift()) {
    const taken = Math.max(0, client.write(block));
    if (taken < block.length) return void (backlog[0] = block.subarray(taken));
  }
  caughtUp();
}

function caughtUp(): void {
  if (--behind > 0) return;
  for (const sender of paused) sender.resume();
  paused.clear();
}
