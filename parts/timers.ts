/**
 * Things that happen later, or stop being waited for.
 *
 * @module
 */

const graceMs = 1000;

/**
 * Does something after some milliseconds, unless it is disposed of first. If this process was stopped
 * when the time came, it does it a second later: what happened meanwhile may wait to be seen.
 */
export function after(ms: number, act: () => void): Disposable {
  const due = performance.now() + ms;
  let later: Disposable | undefined;
  const timer = setTimeout(() => {
    if (performance.now() > due + graceMs / 2) later = after(graceMs, act);
    else act();
  }, ms);
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      later?.[Symbol.dispose]();
    },
  };
}

/** Waits for all promises, but not longer than some milliseconds. */
export async function atMost(ms: number, ...all: Promise<unknown>[]): Promise<void> {
  await Promise.race([Promise.all(all), Bun.sleep(ms)]);
}
