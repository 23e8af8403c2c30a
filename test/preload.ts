/**
 * What holds for the whole test run: no process outlives the test that started it, and the last line says
 * what was skipped. bunfig.toml loads this first; hooks that a test file sets are for that file only.
 *
 * @module
 */
import { dlopen } from "bun:ffi";
import { afterAll, afterEach } from "bun:test";
import { constants } from "node:os";
import { processes, skipped, until } from "./helpers.ts";

const PR_SET_CHILD_SUBREAPER = 36;

// The workers of a server that was killed become children of this process, so that they are found, too.
if (process.platform === "linux") {
  try {
    const { prctl } = dlopen("libc.so.6", {
      prctl: { args: ["int", "u64", "u64", "u64", "u64"], returns: "int" },
    }).symbols;
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  } catch {} // another C library: workers end on their own when their server does
}

/** What a process has started and still runs, and what that has started. */
function descendants(parent: number, all = processes()): number[] {
  return all
    .filter((process) => process.parent === parent && process.state !== "Z")
    .flatMap(({ pid }) => [pid, ...descendants(pid, all)]);
}

const before = new Set(descendants(process.pid)); // children of the shell that became this process

/** Kills all that this process has started, and says whether there was nothing to kill. */
function kill(): boolean {
  const pids = descendants(process.pid).filter((pid) => !before.has(pid));
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {} // it has gone meanwhile
  }
  return pids.length === 0;
}

afterEach(() => until(kill, "the end of what the test started", () => descendants(process.pid)));

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    kill();
    process.exit(128 + constants.signals[signal]);
  });
}

afterAll(() => {
  if (skipped.size > 0) console.error(`skipped: ${[...skipped].join(", ")}`);
});
