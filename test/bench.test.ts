/** The benchmark from outside: servers of one's own, what goes wrong with them, and how it ends. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readReport } from "../bench/schema.ts";
import { isAlive, patience, root, run, until } from "./helpers.ts";

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
    dies: "for n in 1 2 3 4 5 6 7; do echo $n; done; echo out of luck >&2; exit 3",
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
    ...[...compare, ...short, ...args, "--only", "latency,join"],
    ...["--json", json],
  ]);
  expect(code).toBe(0);
  const line = (name: string) =>
    stderr.split("\n").filter((line) => line.startsWith(`compare.ts: ${name} `));
  const ended = "is not measured: it ended with exit code";
  expect(line("dies")).toEqual([
    `compare.ts: dies ${ended} 3 before it listened; it said '4 / 5 / 6 / 7 / out of luck'`,
  ]);
  expect(line("web")[0]).toContain("it does not speak this protocol: ");
  expect(line("nameless")[0]).toContain("it does not speak this protocol: ");
  expect(stdout).not.toContain("\x1b");

  const report = readReport(json);
  expect(report.servers.map(({ name }) => name)).toEqual(["told"]);
  for (const name of ["told"]) {
    expect(stdout).toMatch(new RegExp(`^\\S+ ${name} +\\d`, "m"));
    const [measured, ...others] = report.runs.filter(({ server }) => server === name);
    expect(others).toEqual([]);
    const { each, wrong, figures } = measured!.own;
    expect(each.reduce((sum, [, count]) => sum + count, 0)).toBe(51 * 3); // 17 lines of each of three
    expect(Object.values(wrong)).toEqual([0, 0, 0, 0, 0, 0, 0]);
    expect(figures["join, ms"]).toBeGreaterThan(0);
  }
  const pids = await place.pids();
  expect(pids).toHaveLength(4); // one was started twice
  expect(pids.filter(isAlive)).toEqual([]);
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
    [["--only", "speed"], "--only takes some of latency,throughput,join,cost,faults, not 'speed'"],
    [["--connect", "here"], "--connect takes [NAME=]HOST:PORT"],
    [["--baseline", "package.json"], "package.json is not of version 2 but of undefined"],
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
});
