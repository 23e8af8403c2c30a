#!/usr/bin/env node
/**
 * pipechat's shape on Node: `child_process` starts a process for each connection and passes it the
 * socket over IPC, and whole lines go up and down through its stdout and stdin.
 */
import { fork } from "node:child_process";
import { createServer, Socket } from "node:net";
import { fileURLToPath } from "node:url";

/** Gives the whole lines of a stream, as blocks. */
async function* blocks(stream) {
  let carry = Buffer.alloc(0);
  for await (const chunk of stream) {
    const bytes = Buffer.concat([carry, chunk]);
    const end = bytes.lastIndexOf(0x0a) + 1;
    carry = bytes.subarray(end);
    if (end > 0) yield bytes.subarray(0, end);
  }
}

/** Waits until a stream takes more, or never will. */
function room(stream) {
  return new Promise((resolve) => {
    const done = () => resolve(stream.off("drain", done).off("close", done));
    stream.setMaxListeners(0).on("drain", done).on("close", done);
  });
}

const workers = new Set();

async function accept(socket) {
  const worker = fork(fileURLToPath(import.meta.url), ["worker"], {
    stdio: ["pipe", "pipe", "inherit", "ipc"],
  });
  workers.add(worker);
  worker.stdin.on("error", () => {}); // it has ended, and so will its stdout
  worker.send("serve", socket);
  for await (const block of blocks(worker.stdout)) {
    const others = [...workers].filter((other) => other !== worker);
    const full = others.filter(({ stdin }) => !stdin.write(block) && stdin.writable);
    // What waits is in the stream's buffer, and its sender is not read until there is room.
    await Promise.all(full.map(({ stdin }) => room(stdin)));
  }
  workers.delete(worker);
}

async function serve(socket) {
  let name = "";
  socket.on("error", () => process.exit());
  process.on("disconnect", () => process.exit());
  process.stdin.pipe(socket);
  // process.stdout would block on a full pipe, and then nobody would read stdin.
  const stdout = new Socket({ fd: 1, readable: false });
  for await (const block of blocks(socket)) {
    const lines = block.toString().slice(0, -1).split("\n");
    name ||= lines.shift().trimEnd();
    const text = lines.map((line) => `${name}: ${line}\n`).join("");
    if (text && !stdout.write(text)) await room(stdout);
  }
  stdout.end(() => process.exit());
}

if (process.argv[2] === "worker") {
  process.once("message", (_, socket) => serve(socket));
} else {
  const server = createServer({ pauseOnConnect: true, noDelay: true }, accept);
  server.listen(Number(process.env.PORT), "127.0.0.1", 1024);
}
