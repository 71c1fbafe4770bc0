/** A request that says when the kernel is busy: while a cell runs, its answer comes only after that. */

/** @import { OnProgress } from "./model.js" */

const BUSY_MS = 700;
const BUSY = "the kernel is busy: this happens after the running cell";

/**
 * What `request` brings; `say` is told how it goes, and "" when it is over.
 *
 * @param {(op: string, args?: Record<string, unknown>, onProgress?: OnProgress) => Promise<any>} request
 * @param {string} op
 * @param {Record<string, unknown>} args
 * @param {(text: string) => void} say
 * @param {string} [busy] what is said while the kernel does not hear
 * @returns {Promise<any>}
 */
export async function ask(request, op, args, say, busy = BUSY) {
  const timer = setTimeout(() => say(busy), BUSY_MS);
  try {
    return await request(op, args, (stage, fraction) => {
      clearTimeout(timer);
      say(told(stage, fraction));
    });
  } finally {
    clearTimeout(timer);
    say("");
  }
}

/**
 * @param {string} stage
 * @param {number | null | undefined} fraction 0..1
 */
function told(stage, fraction) {
  return fraction == null ? stage : `${stage}, ${Math.round(fraction * 100)} %`;
}
