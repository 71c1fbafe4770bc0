/** Answers that come late: while a cell runs, the kernel hears nothing. */

const LATE_MS = 700;
export const BUSY = "the kernel is busy: this happens after the running cell";

/**
 * `answer`, with `onLate` called if it has not come after a moment.
 *
 * @template T
 * @param {Promise<T>} answer
 * @param {() => void} onLate
 * @returns {Promise<T>}
 */
export function late(answer, onLate) {
  const timer = setTimeout(onLate, LATE_MS);
  return answer.finally(() => clearTimeout(timer));
}
