#!/usr/bin/env bun
/**
 * pipechat beside its peers and your own server, under the same load. Each is started anew for each
 * number of receivers in each round, and the rounds are interleaved (A B C A B C …). Beside each runs a
 * C floor, and the two get the load in turn: a machine that is slow for a while is so for both. Then,
 * once for each server, things happen to one of 50 clients.
 */
import { renameSync, writeSync } from "node:fs";
import { arch, cpus, release, totalmem, type } from "node:os";
import { join } from "node:path";
import { changes } from "./baseline.ts";
import { Room } from "./clients.ts";
import { clients, kinds, measureFault, phases, titleOf } from "./faults.ts";
import { limit } from "./figures.ts";
import { measure } from "./measure.ts";
import { readOptions } from "./options.ts";
import { markdown, readmePart, tables } from "./report.ts";
import { type Report, schema } from "./schema.ts";
import { type Contender, plain, type Start, startServer, versions } from "./servers.ts";
import { sum } from "./stats.ts";
import { busyCores } from "./system.ts";
import { duration } from "./tables.ts";

// For those who commit a report: copies what bench/REPORT.md has for the README into it.
if (process.argv[2] === "--readme") {
  const file = (...path: string[]) => Bun.file(join(import.meta.dir, ...path));
  const part = readmePart.exec(await file("REPORT.md").text())![0];
  const readme = file("..", "README.md");
  await readme.write((await readme.text()).replace(readmePart, () => part));
  process.exit();
}

const options = readOptions(process.argv.slice(2));
const wants = (...sections: string[]) => options.only.some((section) => sections.includes(section));
const say = (line: string) => process.stderr.write(`compare.ts: ${line}\n`);

const report = options.from ?? (await measureAll());
if (report.runs.length + report.faults.length === 0) process.exit(1);
if (options.json) await write(options.json, `${JSON.stringify(report)}\n`);
if (options.markdown) await write(options.markdown, markdown(report));
process.stdout.write(tables(report));
if (options.baseline) process.stdout.write(changes(options.baseline, report));
process.exit();

/** Writes a file whole or not at all. */
async function write(path: string, text: string): Promise<void> {
  if (path.startsWith("/dev/")) return void (await Bun.write(path, text));
  await Bun.write(`${path}.part`, text);
  renameSync(`${path}.part`, path);
}

/** One thing to measure, and about how many seconds each part of it takes. */
interface Job {
  title: string;
  seconds: Record<string, number>;
  run(): Promise<void>;
}

async function measureAll(): Promise<Report> {
  const { n, rate, size, seconds, rounds, only } = options;
  const made: Report = {
    schema,
    made: new Date().toISOString(),
    machine: {
      system: `${type()} ${release()} ${arch()}`,
      processor: cpus()[0]?.model.trim() ?? "unknown",
      cores: cpus().length,
      memory: totalmem(),
      busy: await busyCores(),
    },
    versions: versions(),
    options: { n, rate, size, seconds, rounds, only },
    ...{ servers: [], runs: [], faults: [], notes: [] },
  };
  const note = (text: string) => {
    made.notes.push(text);
    say(text);
  };
  const { busy } = made.machine;
  if (busy > 0.25) note(`the machine was busy before it began, ${busy.toFixed(1)} cores of it`);
  const there = await available(note);
  made.servers = there.map(({ name, title, mark, colour }) => ({ name, title, mark, colour }));
  const jobs = [
    ...(wants("latency", "throughput", "join", "cost") ? runJobs(there, made) : []),
    ...(wants("faults") ? faultJobs(there, made) : []),
  ];
  const parts = ["starting", "latency", "throughput", "join", "cost", "faults"].map((part) => {
    const time = sum(jobs.map(({ seconds }) => seconds[part] ?? 0));
    return time > 0 ? `, ${part} ${duration(time)}` : "";
  });
  const secondsOf = (jobs: Job[]) => sum(jobs.flatMap(({ seconds }) => Object.values(seconds)));
  say(`about ${duration(secondsOf(jobs))}${parts.join("").replace(",", ":")}`);
  let done = 0;
  process.on("exit", (code) => {
    if (code === 0 || done === 0) return;
    const what = `Partial: it was stopped after ${done} of ${jobs.length} measurements`;
    writeSync(1, `\n${what}\n${tables({ ...made, notes: [...made.notes, what] })}`);
  });
  const begin = performance.now();
  for (const { title, run } of jobs) {
    const passed = (performance.now() - begin) / 1000;
    const pace = done ? passed / secondsOf(jobs.slice(0, done)) : 1;
    say(`${title}; about ${duration(secondsOf(jobs.slice(done)) * pace)} left`);
    await run().catch((error: Error) => note(`${title}: ${error.message}`));
    done++;
  }
  return made;
}

/** The servers that there are. Your own are started once to see whether they can be measured. */
async function available(note: (text: string) => void): Promise<Contender[]> {
  const isThere = async ({ name, isOwn, start }: Contender): Promise<boolean> => {
    try {
      const how = start(2);
      if (!isOwn) return true;
      await using server = await startServer(how);
      using room = new Room(server, options.size);
      await room.fill(3);
      return true;
    } catch (error) {
      note(`${name} is not measured: ${(error as Error).message}`);
      return false;
    }
  };
  const there = await Promise.all(options.servers.map(isThere));
  return options.servers.filter((_, nth) => there[nth]);
}

/** A round after the other, and in each, every server with every number of receivers. */
function runJobs(there: Contender[], report: Report): Job[] {
  const floor = there.find(({ name }) => name === "floor")?.start(0);
  const others = there.filter(({ name }) => name !== "floor");
  const jobs: Job[] = [];
  for (let round = 1; round <= options.rounds; round++)
    for (const n of options.n) {
      for (const { name, start } of others)
        jobs.push(runJob(report, round, name, n, start(n), floor));
      // The load alone changes little; where there is nothing else, the floor is measured beside it.
      if (wants("latency", "throughput") && (round === 1 || others.length === 0))
        jobs.push(runJob(report, round, limit, n, plain, floor));
    }
  return there.length > 0 ? jobs : [];
}

function runJob(
  { runs, options: { rate, size, seconds, rounds } }: Report,
  ...[round, server, n, start, floor]: [number, string, number, Start, Start?]
): Job {
  const isPlain = server === limit;
  const plan = {
    ...{ n, rate, size },
    // All of it takes time in proportion to `--seconds`.
    seconds: wants("latency", "cost") ? seconds : 0,
    joins: wants("join") && !isPlain ? seconds + 1 : 0,
    bursts: wants("throughput") ? Math.ceil(seconds * 0.75) : 0,
    idle: wants("cost") && n === options.n.at(-1) ? seconds / 4 : 0,
  };
  const [starting, sides] = [1.7 + n / 60, floor ? 2 : 1];
  const part = { starting, latency: plan.seconds, throughput: plan.bursts * 1.3, cost: plan.idle };
  const all = Object.entries({ ...part, join: plan.joins * 0.2 });
  return {
    title: `round ${round} of ${rounds}, ${n} receivers: ${server}`,
    seconds: Object.fromEntries(all.map(([name, each]) => [name, sides * each])),
    async run() {
      await using own = await startServer(start);
      await using least = floor && (await startServer(floor));
      const targets = [{ ...own, sendNames: isPlain }, ...(least ? [least] : [])];
      const [first, second] = await measure(targets, plan);
      runs.push({ round, server, n, own: first!, floor: second ?? null });
    },
  };
}

function faultJobs(there: Contender[], { faults }: Report): Job[] {
  const { seconds } = options;
  const job = ({ name, start, limited }: Contender, fault: string): Job => ({
    title: `${name}: ${titleOf(fault, seconds)}`,
    seconds: { faults: 3 + sum(Object.values(phases(fault, seconds))) },
    async run() {
      await using server = await startServer(limited ?? start(clients));
      faults.push({ server: name, fault, ...(await measureFault(server, fault, seconds)) });
    },
  });
  return there.flatMap((server) => Object.keys(kinds).map((fault) => job(server, fault)));
}
