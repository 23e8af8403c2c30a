/** The benchmark from outside: servers of one's own, what goes wrong with them, and how it ends. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readReport } from "../bench/schema.ts";
import { ended, isAlive, patience, root, run, temporaryFolder, until } from "./helpers.ts";

setDefaultTimeout(2 * patience);

const bun = process.execPath;
const compare = [bun, "bench/compare.ts"];
const evented = `'${bun}' '${join(root, "bench", "peers", "evented.ts")}'`;
const short = ["--servers", "none", "--seconds", "1", "--rounds", "1"];
const [whole, partial] = [temporaryFolder(), temporaryFolder()];

/** A command that runs a server, and leaves its process ID in a folder. */
const running = (folder: string, command: string) =>
  `echo $$ >> ${join(folder, "pids")}; exec ${command}`;

const pidsIn = (folder: string) =>
  readFileSync(join(folder, "pids"), "utf8").trim().split("\n").map(Number);

test("servers of one's own are measured; one that cannot be is a line, and the others go on", async () => {
  const json = join(whole, "run.json");
  const web = `Bun.serve({ port: process.env.PORT, fetch: () => new Response("hi") })`;
  const commands = {
    told: running(whole, `env PORT={port} ${evented}`),
    dies: "for n in 1 2 3 4 5 6 7; do echo $n; done; echo out of luck >&2; exit 3",
    web: running(whole, `'${bun}' -e '${web}'`),
  };
  const args = Object.entries(commands).flatMap(([name, cmd]) => ["--command", `${name}=${cmd}`]);
  args.push("--n", "3", "--only", "latency,join", "--json", json);
  const { code, stdout, stderr } = await run([...compare, ...short, ...args]);
  expect(code).toBe(0);
  const ended = "is not measured: it ended with exit code 3 before it listened";
  expect(stderr).toContain(`compare.ts: dies ${ended}; it said '4 / 5 / 6 / 7 / out of luck'\n`);
  expect(stderr).toMatch(/^compare.ts: web .* it does not speak this protocol: /m);
  expect(stdout).not.toContain("\x1b");
  expect(stdout).toMatch(/^\S+ told +\d/m);
  const report = readReport(json);
  expect(report.servers.map(({ name }) => name)).toEqual(["told"]);
  const [measured, ...others] = report.runs.filter(({ server }) => server === "told");
  expect(others).toEqual([]);
  const { each, wrong, figures } = measured!.own;
  expect(each.reduce((sum, [, count]) => sum + count, 0)).toBe(51 * 3); // 17 lines of each of three
  expect(Object.values(wrong)).toEqual([0, 0, 0, 0, 0, 0, 0]);
  expect(figures["join, ms"]).toBeGreaterThan(0);
  const pids = pidsIn(whole);
  expect(pids).toHaveLength(3); // one was started twice
  expect(pids.filter(isAlive)).toEqual([]);
});

test("a signal ends it at once, with all that it has started, and it prints what there is", async () => {
  const command = `a=${running(partial, evented)}`;
  const args = ["--n", "3,4", "--only", "latency", "--json", join(partial, "run.json")];
  const child = Bun.spawn([...compare, ...short, "--command", command, ...args], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for await (const chunk of child.stderr) {
    said += Buffer.from(chunk).toString();
    if (!said.includes("4 receivers: a;")) continue;
    const isStarted = () => pidsIn(partial).length === 3; // the first was to see whether it works
    await until(isStarted, "its server").finally(() => child.kill("SIGINT"));
  }
  const printed = await child.stdout.text();
  expect(await child.exited).toBe(130);
  expect(printed).toStartWith("\nPartial: it was stopped after 2 of 4 measurements\n");
  expect(printed).toMatch(/Until the last of 3 has it, ms\nserver .*\n\S+ a +\d/);
  expect(printed).not.toContain("Until the last of 4 has it");
  expect(readdirSync(partial)).toEqual(["pids"]); // the JSON file is written whole or not at all
  await ended(pidsIn(partial));
});

test("what the arguments cannot mean is one line, and --help fits a terminal", async () => {
  const sections = "latency,throughput,join,cost,faults";
  const stderr = `compare.ts: --only takes some of ${sections}, not 'speed' (see --help)\n`;
  expect(await run([...compare, "--only", "speed"])).toEqual({ code: 2, stdout: "", stderr });
  for (const file of ["compare.ts", "fanout.ts"]) {
    const { code, stdout, stderr } = await run([bun, join("bench", file), "--help"]);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toStartWith(`usage: bun bench/${file}`);
    expect(stdout.split("\n").filter((line) => line.length > 80)).toEqual([]);
  }
});
