/**
 * What `compare.ts --json` writes. Tables, charts, the README's figures and `--baseline` are made of it.
 * All times are in nanoseconds, all sizes in bytes. `null` stands for what was not measured.
 */
import { readFileSync } from "node:fs";
import type { Buckets } from "./stats.ts";

/** The version of the format; a file of another version is refused. */
export const schema = 2;

/** What can be measured. */
export const sections = ["latency", "throughput", "join", "cost", "faults"];

export interface Report {
  schema: typeof schema;
  made: string; // when, ISO 8601
  machine: {
    system: string;
    processor: string;
    cores: number;
    memory: number;
    busy: number; // cores that others kept busy before it began
  };
  versions: string[]; // of what the servers run on
  options: {
    n: number[]; // receivers, ascending
    rate: number; // lines a second
    size: number; // bytes in a line, with its newline
    seconds: number; // of the open loop, in each round; all else takes time in proportion
    rounds: number;
    only: string[];
  };
  servers: Entry[];
  runs: Run[];
  faults: Fault[];
  notes: string[]; // servers that are missing or failed, and why
}

/** A server that was measured, and its colour in text and in charts. */
export type Entry = Record<"name" | "title" | "mark" | "colour", string>;

/** A server's round with N receivers, and the C floor's beside it, which got the load in turn. */
export interface Run {
  round: number; // from 1
  server: string;
  n: number;
  own: Measured;
  floor: Measured | null;
}

export interface Measured {
  first: Buckets; // from when a line was due until its first receiver had it
  each: Buckets; // each of its receivers
  last: Buckets; // the last of its receivers, if all have got it
  figures: Record<string, number | null>; // everything else, by a name that has its unit
  wrong: Wrong;
}

/** What went wrong with lines: deliveries, one for each receiver of a line. */
export interface Wrong {
  lost: number; // never came, or not as they were said
  twice: number; // came again
  outOfOrder: number; // came after a later line of the same sender
  garbled: number; // came with other bytes
  cut: number; // came without their end
  echoed: number; // came back to the client that had said them
  cutOff: number; // clients whose connection ended
}

/** Something happened to one of the clients. */
export interface Fault {
  server: string;
  fault: string;
  skipped: string | null; // why it could not be done; the rest is null then
  others: {
    cutOff: number;
    lost: number; // deliveries of their lines to one another that are missing at the end
    gap: number; // the longest time in which one of them got no line, from the fault on
    forGood: boolean; // whether that went on until the end of the measurement
    before: number | null; // p99 of the times of their lines that were due before it; null: lost
    during: number | null;
    after: number | null;
    told: number | null; // until one of them got a notice with the client's name; null: never
  } | null;
  victim: {
    cutOff: boolean;
    missing: number; // lines of the others that were due during the fault, and never came
    served: number | null; // from the fault's end until it got a line due since then; null: never
  } | null;
}

/** Reads a report from a file. Throws an error if another version made it. */
export function readReport(path: string): Report {
  const report = JSON.parse(readFileSync(path, "utf8")) as Report;
  if (report.schema === schema) return report;
  throw new Error(`${path} is not of version ${schema} but of ${report.schema}: measure again`);
}
