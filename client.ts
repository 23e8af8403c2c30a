#!/usr/bin/env bun
/**
 * pipechat's terminal client: prints what the room says, sends what you type.
 *
 *     bun client.ts [HOST[:PORT]] [NAME]
 *
 * It works in a pipe, too: `echo hello | bun client.ts localhost:2000 bot`.
 *
 * @module
 */
import { connect } from "node:net";
import { userInfo } from "node:os";
import { parseArgs } from "node:util";
import { cleanText } from "./worker.ts";

const usage = `usage: bun client.ts [HOST[:PORT]] [NAME]

  HOST:PORT  where the server is (127.0.0.1:2000)
  NAME       what to be called (your login name)
  --help     print this
`;

function fail(code: number, reason: string): never {
  process.stderr.write(`client.ts: ${reason}\n`);
  process.exit(code);
}

/** Understands HOST, HOST:PORT, :PORT, ADDRESS of either family, and [ADDRESS]:PORT. */
export function parseAddress(text: string): { host: string; port: number } {
  const [, host = "", port = "2000"] =
    /^(\[[^\]]+\]|[^:]*|[^:]*:[^:]*:.*?)(?::(\d+))?$/.exec(text) ?? [];
  return { host: host.replace(/^\[|\]$/g, "") || "127.0.0.1", port: Number(port) };
}

function main(): void {
  const { values, positionals } = parseArgs({
    options: { help: { type: "boolean" } },
    allowPositionals: true,
  });
  if (values.help) return void process.stdout.write(usage);
  const { host, port } = parseAddress(positionals[0] ?? "");
  const name = positionals[1] ?? userInfo().username;

  const socket = connect({ host, port, allowHalfOpen: true });
  socket.on("error", (error) => fail(1, `no chat at ${host}:${port}: ${error.message}`));
  socket.write(`${name}\n`);
  process.stdin.pipe(socket);
  let partial = "";
  socket.setEncoding("utf8").on("data", (text: unknown) => {
    const lines = (partial + text).split("\n");
    partial = lines.pop()!;
    for (const line of lines) process.stdout.write(`${cleanText(line)}\n`);
  });
  socket.on("end", () => process.exit());
}

if (import.meta.main) main();
