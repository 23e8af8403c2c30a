/**
 * How fast one client may speak.
 *
 * @module
 */

/**
 * Slows a sender to `rate` lines a second with bursts of twice that. This is the generic cell rate
 * algorithm (ITU-T I.371): a line that comes too early for its place in the schedule has to wait.
 *
 * @param rate lines a second; 0 is no limit
 * @param now the clock, ms
 * @returns a function to call for each line: the milliseconds to wait before the line is said
 */
export function createThrottle(rate: number, now = () => performance.now()): () => number {
  if (rate === 0) return () => 0;
  let due = 0; // when the next line is on schedule, ms
  return function throttle() {
    const time = now();
    const early = due - time;
    due = Math.max(due, time) + 1000 / rate;
    return Math.max(0, early - 2000);
  };
}
