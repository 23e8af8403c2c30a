/**
 * What `compare.ts --json` writes, and the check that a file is that. Tables, charts, the README's
 * figures and `--baseline` are made of it.
 *
 * All times are in nanoseconds, all sizes in bytes. `null` stands for what was not measured.
 *
 * @module
 */
import type { Buckets } from "./stats.ts";

// --- How a shape is written and checked ----------------------------------------------------------

/** Gives a value back if it has the right shape; else throws an error that names the place. */
type Check<T> = (value: unknown, place: string) => T;
type Of<C> = C extends Check<infer T> ? T : never;

function basic<T>(type: string, holds: (value: unknown) => boolean): Check<T> {
  return (value, place) => {
    if (holds(value)) return value as T;
    throw new Error(`${place} is ${JSON.stringify(value)?.slice(0, 40)}, not ${type}`);
  };
}

const number = basic<number>("a number", Number.isFinite);
const text = basic<string>("text", (value) => typeof value === "string");
const truth = basic<boolean>("true or false", (value) => typeof value === "boolean");
const orNull =
  <T>(check: Check<T>): Check<T | null> =>
  (value, place) =>
    value === null ? null : check(value, place);

function list<T>(check: Check<T>): Check<T[]> {
  const array = basic<unknown[]>("a list", Array.isArray);
  return (value, place) => array(value, place).map((item, n) => check(item, `${place}[${n}]`));
}

function object<S extends Record<string, Check<unknown>>>(
  shape: S,
): Check<{ [Key in keyof S]: Of<S[Key]> }> {
  const any = basic<Record<string, unknown>>(
    "an object",
    (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  );
  return (value, place) => {
    const given = any(value, place);
    for (const key in given) if (!shape[key]) throw new Error(`${place}.${key} is not known`);
    for (const key in shape) shape[key]!(given[key], `${place}.${key}`);
    return given as { [Key in keyof S]: Of<S[Key]> };
  };
}

const buckets: Check<Buckets> = (value, place) => {
  let before = -Infinity;
  for (const [n, pair] of list(list(number))(value, place).entries()) {
    if (pair.length !== 2 || pair[0]! <= before || !(pair[1]! > 0))
      throw new Error(`${place}[${n}] is not a greater value and its count`);
    before = pair[0]!;
  }
  return value as Buckets;
};

// --- The shapes ----------------------------------------------------------------------------------

/** What went wrong with the lines of a run: deliveries, one for each receiver of a line. */
const wrong = object({
  /** Never came, or not as they were said. */
  lost: number,
  /** Came again. */
  twice: number,
  /** Came after a later line of the same sender. */
  outOfOrder: number,
  /** Came with other bytes. */
  garbled: number,
  /** Came without their end. */
  cut: number,
  /** Clients whose connection ended. */
  cutOff: number,
});

/** The open loop: from when a line was due until receivers had it. */
const latency = object({
  /** The first receiver of each line. */
  first: buckets,
  /** Each receiver of each line. */
  each: buckets,
  /** The last receiver of each line that all have got. */
  last: buckets,
  /** How late the load itself was. */
  late: buckets,
  /** Lines that all receivers together got. */
  delivered: number,
  wrong,
});

/** The median burst of lines as fast as they go. */
const flood = object({
  /** From the first line said until the last one had come. */
  took: number,
  delivered: number,
  /** CPU time of the load during the burst, as a part of one core. */
  load: number,
  /** The same of the server's first process, … */
  server: orNull(number),
  /** … and of those that it has started. */
  workers: orNull(number),
  /** Added up over all bursts. */
  wrong,
});

/** One server with N receivers in one round. */
const measured = object({
  latency: orNull(latency),
  /** One sender. */
  one: orNull(flood),
  /** Ten senders. */
  ten: orNull(flood),
  /** Of each newcomer: from its connect until another client has its first line. */
  joins: orNull(list(number)),
  /** For each client, when all come at once. */
  fill: number,
  cost: orNull(
    object({
      /** CPU time for each line delivered in the open loop: of the server's first process, … */
      server: orNull(number),
      /** … and of the processes that it has started. */
      workers: orNull(number),
      /** Memory for each connection (PSS). */
      memory: orNull(number),
      /** CPU time while nobody says a thing, as a part of one core; with the most receivers only. */
      idle: orNull(number),
    }),
  ),
});

const run = object({
  /** From 1. */
  round: number,
  server: text,
  /** Receivers of each line. */
  n: number,
  own: measured,
  /** The C floor beside it, which got the load in turn. */
  floor: orNull(measured),
});

/** Something happens to one of 50 clients. */
const fault = object({
  server: text,
  fault: text,
  /** Why it could not be done; then there is no more to say. */
  skipped: orNull(text),
  /** How long it lasted. */
  lasted: orNull(number),
  others: orNull(
    object({
      /** How many there are. */
      count: number,
      cutOff: number,
      /** Deliveries of their lines to one another: expected, and missing at the end. */
      expected: number,
      lost: number,
      /** The longest time in which one of them got no line, from the fault on. */
      gap: number,
      /** Whether that went on until the end of the measurement. */
      forGood: truth,
      /** p99 of their lines' times that were due before, during and after; null: lost. */
      before: orNull(number),
      during: orNull(number),
      after: orNull(number),
      /** From the fault until one of them got a notice with the client's name; null: never. */
      told: orNull(number),
    }),
  ),
  victim: orNull(
    object({
      cutOff: truth,
      /** Lines of the others that were due during the fault, and that it never got. */
      missing: number,
      /** From the end of the fault until it got a line that was due since then; null: never. */
      served: orNull(number),
    }),
  ),
});

const report = object({
  /** The version of this schema. */
  schema: basic<1>("1: made by another version", (value) => value === 1),
  /** When, ISO 8601. */
  made: text,
  machine: object({
    system: text,
    processor: text,
    cores: number,
    memory: number,
    /** The load average of the last minute, before it began. */
    busy: number,
  }),
  /** Of what the servers run on. */
  versions: list(text),
  options: object({
    n: list(number),
    /** Lines a second. */
    rate: number,
    /** Bytes in a line, with its newline. */
    size: number,
    /** Of the open loop, in each round. */
    seconds: number,
    rounds: number,
    only: list(text),
  }),
  servers: list(
    object({
      name: text,
      title: text,
      /** Its colour in text and in charts. */
      mark: text,
      colour: text,
    }),
  ),
  runs: list(run),
  faults: list(fault),
  /** Servers that are missing or failed, and why. */
  notes: list(text),
});

export type Wrong = Of<typeof wrong>;
export type Latency = Of<typeof latency>;
export type Flood = Of<typeof flood>;
export type Measured = Of<typeof measured>;
export type Run = Of<typeof run>;
export type Fault = Of<typeof fault>;
export type Report = Of<typeof report>;

/** Checks that a value is a report of this version. Throws an error that names what is wrong. */
export const checkReport = (value: unknown): Report => report(value, "report");
