#!/usr/bin/env bun
/**
 * pipechat beside its peers and your own server, under the same load: `bun bench/compare.ts --help`.
 *
 * Each server is started anew for each number of receivers in each round, and the rounds are
 * interleaved (A B C A B C …). Beside each server runs a C floor, and the two get the load in turn,
 * second by second and burst by burst: a machine that is slow for a while is so for both. Then, once for
 * each server, things happen to one of 50 clients. Everything is on 127.0.0.1.
 *
 * @module
 */
import { arch, cpus, loadavg, release, totalmem, type } from "node:os";
import { join } from "node:path";
import { changes } from "./baseline.ts";
import { clients, type FaultPlan, kinds } from "./faults.ts";
import { closeRoom, fill, type Form, openRoom } from "./clients.ts";
import type { Plan, Target } from "./measure.ts";
import { type Named, readOptions } from "./options.ts";
import { limit } from "./figures.ts";
import { markdown, readmePart, replacePart, tables, timeLeft } from "./report.ts";
import type { Fault, Measured, Report, Run } from "./schema.ts";
import { plain, spawnGroup, type Start, startServer, versions } from "./servers.ts";

const options = readOptions(process.argv.slice(2));
const wants = (...sections: string[]) => options.only.some((section) => sections.includes(section));
const say = (line: string) => process.stderr.write(`${line}\n`);

if (options.readme) {
  const file = (...path: string[]) => Bun.file(join(import.meta.dir, ...path));
  const [readme, report] = [file("..", "README.md"), await file("REPORT.md").text()];
  await readme.write(replacePart(await readme.text(), readmePart(report)));
  process.exit();
}

const report = options.from ?? (await measureAll());
if (report.runs.length + report.faults.length === 0) process.exit(1);
if (options.json) await Bun.write(options.json, `${JSON.stringify(report)}\n`);
if (options.markdown) await Bun.write(options.markdown, markdown(report));
process.stdout.write(tables(report));
if (options.baseline) process.stdout.write(changes(options.baseline, report));
process.exit();

// --- Everything ----------------------------------------------------------------------------------

/** One thing to measure, and about how many seconds that takes. */
interface Job {
  title: string;
  seconds: number;
  run(): Promise<void>;
}

async function measureAll(): Promise<Report> {
  const { n, rate, size, seconds, rounds, only } = options;
  const [cpu] = cpus();
  const made: Report = {
    schema: 1,
    made: new Date().toISOString(),
    machine: {
      system: `${type()} ${release()} ${arch()}`,
      processor: cpu?.model.trim() ?? "unknown",
      cores: cpus().length,
      memory: totalmem(),
      busy: loadavg()[0]!,
    },
    versions: versions(),
    options: { n, rate, size, seconds, rounds, only },
    servers: [],
    runs: [],
    faults: [],
    notes: [],
  };
  const note = (text: string) => {
    made.notes.push(text);
    say(`compare.ts: ${text}`);
  };
  if (made.machine.busy > made.machine.cores / 4)
    note(`the machine was busy before it began: a load average of ${made.machine.busy.toFixed(1)}`);
  const there = await available(note);
  made.servers = there.map(({ name, title, mark, colour }) => ({ name, title, mark, colour }));
  if (there.length === 0) return made;

  const jobs = [
    ...(wants("latency", "throughput", "join", "cost") ? runJobs(there, made.runs) : []),
  ];
  if (wants("faults")) jobs.push(...faultJobs(there, made.faults));
  let left = jobs.reduce((sum, job) => sum + job.seconds, 0);
  let [done, begin] = [0, performance.now()];
  for (const job of jobs) {
    const pace = done ? (performance.now() - begin) / 1000 / done : 1;
    say(`${job.title}; ${timeLeft(left * pace)}`);
    for (let attempt = 0; attempt < 2; attempt++) {
      const problem = await job.run().then(
        () => undefined,
        (error: Error) => error.message,
      );
      if (problem === undefined) break;
      note(`${job.title}${attempt === 0 ? "" : ", again"}: ${problem}`);
    }
    done += job.seconds;
    left -= job.seconds;
  }
  return made;
}

/** The servers that there are. Your own are started once to see whether they can be measured. */
async function available(note: (text: string) => void): Promise<Named[]> {
  const isThere = async (server: Named): Promise<boolean> => {
    try {
      const start = server.start(2);
      if (typeof start === "string") throw new Error(start);
      if (server.isOwn) await probe(start);
      return true;
    } catch (error) {
      note(`${server.name} is not measured: ${(error as Error).message}`);
      return false;
    }
  };
  const there = await Promise.all(options.servers.map(isThere));
  return options.servers.filter((_, nth) => there[nth]);
}

async function probe(start: Start): Promise<void> {
  const server = await startServer(start);
  const room = openRoom({ ...server, form: "text" }, options.size);
  try {
    await fill(room, 3);
  } finally {
    closeRoom(room);
    await server.stop();
  }
}

/** A round after the other, and in each, every server with every number of receivers. */
function runJobs(there: Named[], runs: Run[]): Job[] {
  const floor = there.find(({ name }) => name === "floor")?.start(0) as Start | undefined;
  const others = there.filter(({ name }) => name !== "floor");
  const sides = floor ? 2 : 1;
  const jobs: Job[] = [];
  for (let round = 1; round <= options.rounds; round++)
    for (const n of options.n) {
      const seconds = sides * (1.5 + n / 60 + options.seconds + (wants("throughput") ? 4 : 0));
      const add = (name: string, start: () => Start, form: Form) =>
        jobs.push({
          title: `round ${round} of ${options.rounds}, ${n} receivers: ${name}`,
          seconds,
          async run() {
            const [own, least] = await measure(start(), floor, n, form);
            runs.push({ round, server: name, n, own: own!, floor: least ?? null });
          },
        });
      for (const { name, start } of others) add(name, () => start(n) as Start, "text");
      // The load alone changes little; where there is nothing else, the floor is measured beside it.
      if (wants("latency", "throughput") && (round === 1 || others.length === 0))
        add(limit, () => plain, "name: text");
    }
  return jobs;
}

function faultJobs(there: Named[], all: Fault[]): Job[] {
  return there.flatMap(({ name: server, start }) =>
    Object.entries(kinds).map(([fault, { title, seconds }]) => ({
      title: `${server}: ${title}`,
      seconds: 9 + seconds,
      async run() {
        const began = await startServer(start(clients, "default") as Start);
        const plan: FaultPlan = { server: { ...began, form: "text" }, fault };
        try {
          const outcome = await load<Omit<Fault, "server" | "fault">>("faults.ts", plan, 120);
          all.push({ server, fault, ...outcome });
        } finally {
          await began.stop();
        }
      },
    })),
  );
}

/** Runs the load against a server that is started for it, and against the floor. */
async function measure(start: Start, floor: Start | undefined, n: number, form: Form) {
  const started = [await startServer(start)];
  try {
    if (floor) started.push(await startServer(floor));
    const servers: Target[] = started.map((server) => ({ ...server, form: "text" }));
    servers[0]!.form = form;
    const isAlone = form !== "text";
    const plan: Plan = {
      servers,
      n,
      rate: options.rate,
      size: options.size,
      seconds: wants("latency", "cost") ? options.seconds : 0,
      joins: wants("join") && !isAlone ? 5 : 0,
      bursts: wants("throughput") ? 3 : 0,
      idle: wants("cost") && n === options.n.at(-1) ? 1 : 0,
    };
    return await load<Measured[]>("measure.ts", plan, 180 + n + 20 * options.seconds);
  } finally {
    for (const server of started) await server.stop();
  }
}

/** Runs a script with a plan in a process of its own, so that the load has its own event loop. */
async function load<Result extends object>(
  script: string,
  plan: object,
  patience: number,
): Promise<Result> {
  const cmd = [process.execPath, join(import.meta.dir, script), JSON.stringify(plan)];
  const child = spawnGroup(cmd);
  const stuck = setTimeout(child.killAll, patience * 1000);
  try {
    const [said, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    if ((await child.exited) !== 0)
      throw new Error(
        `the load ended with ${child.signalCode ?? errors.trim().split("\n").at(-1)}`,
      );
    const result = JSON.parse(said) as Result | { error: string };
    if ("error" in result) throw new Error(result.error);
    return result;
  } finally {
    clearTimeout(stuck);
    await child.killAll();
  }
}
