/** The benchmark from outside: servers of one's own, what goes wrong with them, and how it ends. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkReport } from "../bench/schema.ts";
import { contenders, type Start, startServer } from "../bench/servers.ts";
import { isAlive } from "../bench/system.ts";
import { freePort, patience, root, run, until } from "./helpers.ts";

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
    says: place.running(`sh -c 'echo pid:$$ at 12:30; exec "$0" "$1"' '${bun}' '${evented}'`),
    given: place.running(`env PORT={port} '${bun}' '${evented}'`),
    dies: "echo out of luck >&2; exit 3",
    missing: "./there-is-none --port {port}",
    deaf: place.running("sleep 1000 # {port}"),
    web: place.running(
      script(`Bun.serve({ port: +process.argv[1], fetch: () => new Response("hi") })`) + " {port}",
    ),
    echo: place.running(
      script(
        `Bun.listen({ hostname: "127.0.0.1", port: +process.argv[1],` +
          ` socket: { data(socket, chunk) { socket.write("c0001: " + chunk) } } })`,
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
    `compare.ts: dies ${ended} 3 before it listened; it said 'out of luck'`,
  ]);
  expect(line("missing")).toHaveLength(1);
  expect(line("missing")[0]).toContain(`${ended} 127`);
  expect(line("deaf")[0]).toMatch(/it did not listen on port \d+ within 10 s; it said nothing$/);
  expect(line("web")[0]).toContain("it does not speak this protocol: ");
  expect(line("echo")[0]).toContain("it does not speak this protocol: ");
  expect(stdout).not.toContain("\x1b");

  const report = checkReport(await Bun.file(json).json());
  expect(report.servers.map(({ name }) => name)).toEqual(["says", "given"]);
  for (const name of ["says", "given"]) {
    expect(stdout).toMatch(new RegExp(`^\\S+ ${name} +\\d`, "m"));
    const [measured, ...others] = report.runs.filter(({ server }) => server === name);
    expect(others).toEqual([]);
    const { latency, joins } = measured!.own;
    expect(latency!.delivered).toBe(51 * 3); // 17 lines of each of three clients
    expect(Object.values(latency!.wrong)).toEqual([0, 0, 0, 0, 0, 0]);
    expect(joins).toHaveLength(5);
  }
  const pids = await place.pids();
  expect(pids).toHaveLength(7); // two were started twice
  expect(pids.filter(isAlive)).toEqual([]);
});

test("a server that runs already is measured, without its CPU and memory, and goes on", async () => {
  using place = folder();
  const json = join(place.path, "run.json");
  await using server = await started("evented");
  const [port] = server.ports;
  const only = ["--only", "cost", "--json", json];
  const { code, stdout } = await run([
    ...[...compare, ...short, "--connect", `127.0.0.1:${port}`, ...only],
  ]);
  expect(code).toBe(0);
  expect(stdout).toMatch(new RegExp(`^\\S+ :${port} +[\\d.]+ +– +– +– +–$`, "m"));
  const report = checkReport(await Bun.file(json).json());
  const { own } = report.runs.find((run) => run.server === `:${port}`)!;
  expect(own.cost).toBeNull();
  expect(isAlive(server.pid!)).toBe(true);
});

async function started(name: string) {
  const server = await startServer(contenders[name]!.start(60) as Start);
  return Object.assign(server, { [Symbol.asyncDispose]: server.stop });
}

test("where the only server cannot be measured, it fails", async () => {
  const port = freePort();
  const { code, stdout, stderr } = await run([...compare, ...short, "--connect", `:${port}`]);
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toContain(`:${port} is not measured: nobody listens at 127.0.0.1:${port}\n`);
});

test("a signal ends it at once, with all that it has started", async () => {
  using place = folder();
  const command = place.running(`'${bun}' '${evented}'`);
  const child = Bun.spawn([...compare, ...short, "--seconds", "600", "--command", `a=${command}`], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  void (async () => {
    for await (const chunk of child.stderr) said += Buffer.from(chunk).toString();
  })();
  await until(
    () => said.includes("receivers: a;"),
    "its turn",
    () => said,
  ).finally(() => child.kill("SIGINT"));
  expect(await child.exited).toBe(130);
  const pids = await place.pids();
  await until(
    () => !pids.some(isAlive),
    "its processes' end",
    () => pids,
  );
});

test("a killed process hurts nobody else with pipechat, and everybody where there is one for all", async () => {
  if (process.platform !== "linux") return; // elsewhere nobody can be found from outside
  const outcome = async (name: string) => {
    await using server = await started(name);
    const plan = { server: { ...server, form: "text" }, fault: "kill" };
    const { stdout } = await run([bun, "bench/faults.ts", JSON.stringify(plan)]);
    return JSON.parse(stdout);
  };
  const [pipechat, evented] = await Promise.all(["pipechat", "evented"].map(outcome));
  expect(pipechat.skipped ?? pipechat.error).toBeFalsy();
  expect(pipechat.others).toMatchObject({ count: 49, cutOff: 0, lost: 0, forGood: false });
  expect(pipechat.others.told).toBeGreaterThan(0);
  expect(pipechat.victim.cutOff).toBe(false);
  expect(pipechat.victim.served).toBeGreaterThan(0);
  expect(evented.others).toMatchObject({ cutOff: 49, forGood: true, told: null, after: null });
  expect(evented.others.lost).toBeGreaterThan(5000);
  expect(evented.victim).toMatchObject({ cutOff: true, served: null });
});

test("what the arguments cannot mean is one line, and --help fits a terminal", async () => {
  const wrong: [string[], string][] = [
    [["--size", "3"], "--size takes whole numbers from 24 to 4000, not '3'"],
    [["--only", "speed"], "--only takes a part of latency,throughput,join,cost,faults"],
    [["--servers", "none"], "there is no server to measure"],
    [["--command", "./mine"], "--command takes NAME=CMD"],
    [["--connect", "here"], "--connect takes HOST:PORT"],
    [["--baseline", "package.json"], "--baseline package.json: report.name is not known"],
    [["--readme", "--rounds", "3"], "--readme measures nothing and stands alone"],
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
