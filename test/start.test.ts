/** The start: what cannot work is refused then, in one line that says what to do. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { Client, patience, root, run, startServer, until, watchServer } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;

test("bun --hot is refused: it cannot replace a running server", async () => {
  const { code, stdout, stderr } = await run([bun, "--hot", "server.ts", "--port", "0"]);
  expect([code, stdout]).toEqual([2, ""]);
  expect(stderr).toBe(
    "server.ts: --hot cannot replace a running server: use --watch, or restart it\n",
  );
});

test("a line that could not wait for anybody is refused: --max-line above --max-lag", async () => {
  const start = (line: number, lag: number) =>
    run([bun, "server.ts", "--port", "0", "--max-line", `${line}`, "--max-lag", `${lag}`]);
  for (const [line, lag] of [
    [20_000_000, 4_194_304],
    [4096, 4096],
    [4096, 100],
  ] as const) {
    const { code, stdout, stderr } = await start(line, lag);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^server\.ts: --max-lag has to be larger than --max-line[^\n]*\n$/);
  }
  await using _server = await startServer(["--max-line", "4096", "--max-lag", "5000"]);
});

for (const [files, spares] of [
  [20, 0],
  [30, 1],
  [300, 100],
] as const) {
  test(`${files} open files are too few for ${spares} spares and a client: said at the start`, async () => {
    const { code, stdout, stderr } = await run([
      "sh",
      "-c",
      `ulimit -n ${files}; exec "$0" server.ts --port 0 --spares ${spares}`,
      bun,
    ]);
    expect([code, stdout]).toEqual([1, ""]);
    const [, enough] = /^server\.ts: [^\n]*: ulimit -n (\d+)\n$/.exec(stderr) ?? [];
    expect(Number(enough)).toBeGreaterThan(files);
  });
}

test("with just as many open files as it asks for, the server has its spares and a client", async () => {
  const tooFew = await run(["sh", "-c", `ulimit -n 20; exec "$0" server.ts --spares 3`, bun]);
  const enough = /ulimit -n (\d+)/.exec(tooFew.stderr)![1]!;
  const child = Bun.spawn(
    ["sh", "-c", `ulimit -n ${enough}; exec "$0" server.ts --port 0 --spares 3`, bun],
    { cwd: root, stdio: ["pipe", "pipe", "pipe"] },
  );
  await using server = await watchServer(child);
  await server.log.line(/only 1 clients at once/);
  using _ann = await Client.connect(server, "ann");
  await until(() => server.workers().length === 4, "three spares", server.workers);
  using bob = await Client.connect(server);
  await bob.line("* server is full");
});
