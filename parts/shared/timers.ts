/**
 * Things that happen later, or stop being waited for.
 *
 * @module
 */

const graceMs = 1000;

/**
 * Does something after some milliseconds, unless it is disposed of first. Events that are already pending
 * run first. If this process was stopped when the time came, others get a second more to be heard.
 */
export function after(ms: number, act: () => void): Disposable {
  const due = performance.now() + ms;
  let later: Disposable | undefined;
  const timer = setTimeout(() => {
    const wasStopped = performance.now() > due + graceMs / 2;
    // Behind a stop, a timer may run before the messages that wait; a second one runs behind them.
    later = wasStopped ? after(graceMs, act) : setTimeout(act, 1);
  }, ms);
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      later?.[Symbol.dispose]();
    },
  };
}

/** Waits for all promises, but not longer than some milliseconds. */
export async function atMost(ms: number, ...all: (Promise<unknown> | undefined)[]): Promise<void> {
  await Promise.race([Promise.all(all), Bun.sleep(ms)]);
}
