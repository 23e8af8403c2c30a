/** The benchmark from outside: servers of one's own, what goes wrong with them, and how it ends. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readReport } from "../bench/schema.ts";
import { contenders, startServer } from "../bench/servers.ts";
import { freePort, isAlive, patience, root, run, until } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;
const compare = [bun, "bench/compare.ts"];
const evented = join(root, "bench", "peers", "evented.ts");
const short = ["--servers", "none", "--n", "3", "--seconds", "1", "--rounds", "1"];

/** A folder, and a command that runs a server and leaves its process ID there. */
function folder() {
  const path = mkdtempSync(join(tmpdir(), "pipechat-bench-test-"));
  const file = join(path, "pids");
  return {
    path,
    running: (command: string) => `echo $$ >> ${file}; exec ${command}`,
    pids: async () => (await Bun.file(file).text()).trim().split("\n").map(Number),
    [Symbol.dispose]: () => rmSync(path, { recursive: true }),
  };
}

const script = (code: string) => `'${bun}' -e '${code}'`;

test("servers of one's own are measured; one that cannot be is a line, and the others go on", async () => {
  using place = folder();
  const json = join(place.path, "run.json");
  const commands = {
    told: place.running(`env PORT={port} '${bun}' '${evented}'`),
    knows: place.running(`'${bun}' '${evented}'`), // from PORT in its environment
    dies: "for n in 1 2 3 4 5 6 7; do echo $n; done; echo out of luck >&2; exit 3",
    missing: "./there-is-none --port {port}",
    deaf: place.running("sleep 1000 # {port}"),
    web: place.running(
      script(`Bun.serve({ port: +process.argv[1], fetch: () => new Response("hi") })`) + " {port}",
    ),
    nameless: place.running(
      script(
        `const all = new Set(); Bun.listen({ hostname: "127.0.0.1", port: +process.argv[1],` +
          ` socket: { open(one) { all.add(one) },` +
          ` data(one, chunk) { for (const other of all) if (other !== one) other.write(chunk) } } })`,
      ) + " {port}",
    ),
  };
  const args = Object.entries(commands).flatMap(([name, cmd]) => ["--command", `${name}=${cmd}`]);
  const { code, stdout, stderr } = await run([
    ...[...compare, ...short, ...args, "--only", "latency,join,cost"],
    ...["--json", json],
  ]);
  expect(code).toBe(0);
  const line = (name: string) =>
    stderr.split("\n").filter((line) => line.startsWith(`compare.ts: ${name} `));
  const ended = "is not measured: it ended with exit code";
  expect(line("dies")).toEqual([
    `compare.ts: dies ${ended} 3 before it listened; it said '4 / 5 / 6 / 7 / out of luck'`,
  ]);
  expect(line("missing")).toHaveLength(1);
  expect(line("missing")[0]).toContain(`${ended} 127`);
  expect(line("deaf")[0]).toMatch(/it did not listen on port \d+ within 10 s; it said nothing$/);
  expect(line("web")[0]).toContain("it does not speak this protocol: ");
  expect(line("nameless")[0]).toContain("it does not speak this protocol: ");
  expect(line("nameless")[0]).toMatch(
    /what came first is '.*\d{4} 00000000 What is said in a chat/,
  );
  expect(stdout).not.toContain("\x1b");

  const report = readReport(json);
  expect(report.servers.map(({ name }) => name)).toEqual(["told", "knows"]);
  for (const name of ["told", "knows"]) {
    expect(stdout).toMatch(new RegExp(`^\\S+ ${name} +\\d`, "m"));
    const [measured, ...others] = report.runs.filter(({ server }) => server === name);
    expect(others).toEqual([]);
    const { each, wrong, figures } = measured!.own;
    expect(each.reduce((sum, [, count]) => sum + count, 0)).toBe(51 * 3); // 17 lines of each of three
    expect(Object.values(wrong)).toEqual([0, 0, 0, 0, 0, 0, 0]);
    expect(figures["join, ms"]).toBeGreaterThan(0);
  }
  const pids = await place.pids();
  expect(pids).toHaveLength(7); // two were started twice
  expect(pids.filter(isAlive)).toEqual([]);
});

test("a server that runs already is measured, without its CPU and memory, and goes on", async () => {
  using place = folder();
  const json = join(place.path, "run.json");
  await using server = await startServer(
    contenders.find(({ name }) => name === "evented")!.start(3),
  );
  const only = ["--only", "cost", "--json", json];
  const { code, stdout } = await run([
    ...[...compare, ...short, "--connect", `mine=127.0.0.1:${server.port}`, ...only],
  ]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^\S+ mine +[\d.]+$/m); // it has no column without a value
  const { own } = readReport(json).runs.find(({ server }) => server === "mine")!;
  expect(own.figures["memory, MB"]).toBeNull();
  expect(isAlive(server.pid!)).toBe(true);
});

test("where the only server cannot be measured, it fails", async () => {
  const port = freePort();
  const { code, stdout, stderr } = await run([...compare, ...short, "--connect", `:${port}`]);
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toContain(`:${port} is not measured: nobody listens at 127.0.0.1:${port}\n`);
});

test("a signal ends it at once, with all that it has started, and it prints what there is", async () => {
  using place = folder();
  const json = join(place.path, "run.json");
  const command = `a=${place.running(`'${bun}' '${evented}'`)}`;
  const args = [...short, "--n", "3,4", "--only", "latency", "--command", command, "--json", json];
  const child = Bun.spawn([...compare, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  void (async () => {
    for await (const chunk of child.stderr) said += Buffer.from(chunk).toString();
  })();
  await until(
    () => said.includes("4 receivers: a;"),
    "its turn",
    () => said,
  ).finally(() => child.kill("SIGINT"));
  const printed = await child.stdout.text();
  expect(await child.exited).toBe(130);
  expect(printed).toStartWith("\nPartial: it was stopped after 2 of 4 measurements\n");
  expect(printed).toMatch(/Until the last of 3 has it, ms\nserver .*\n\S+ a +\d/);
  expect(printed).not.toContain("Until the last of 4 has it");
  expect(readdirSync(place.path)).toEqual(["pids"]); // the JSON file is written whole or not at all
  const pids = await place.pids();
  await until(
    () => !pids.some(isAlive),
    "its processes' end",
    () => pids,
  );
});

test("what the arguments cannot mean is one line, and --help fits a terminal", async () => {
  const wrong: [string[], string][] = [
    [["--size", "3"], "--size takes a whole number from 24 to 4000, not '3'"],
    [["--n", "1,2"], "--n takes whole numbers from 2 to 2000, not '1'"],
    [["--only", "speed"], "--only takes some of latency,throughput,join,cost,faults, not 'speed'"],
    [["--servers", "none"], "there is no server to measure"],
    [["--command", "./mine"], "--command takes NAME=CMD"],
    [["--connect", "here"], "--connect takes [NAME=]HOST:PORT"],
    [["--connect", "a=:1", "--connect", "a=:2"], "there are two servers 'a'"],
    [["--baseline", "package.json"], "package.json is not of version 2 but of undefined"],
    [["--loud"], "Unknown option '--loud'"],
  ];
  for (const [args, message] of wrong) {
    const { code, stdout, stderr } = await run([...compare, ...args]);
    expect([code, stdout, stderr.split("\n").length]).toEqual([2, "", 2]);
    expect(stderr).toStartWith(`compare.ts: ${message}`);
  }
  for (const file of ["compare.ts", "fanout.ts"]) {
    const { code, stdout, stderr } = await run([bun, join("bench", file), "--help"]);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toStartWith(`usage: bun bench/${file}`);
    expect(stdout.split("\n").filter((line) => line.length > 80)).toEqual([]);
  }
  const { code, stderr } = await run([bun, "bench/fanout.ts", "--fast"]);
  expect([code, stderr]).toEqual([2, "fanout.ts: Unknown option '--fast' (see --help)\n"]);
});
