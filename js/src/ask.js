/** A request that says how far it is, and when the kernel does not hear. */

import { BUSY, late } from "./late.js";

/** @import { OnProgress } from "./model.js" */

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
  let heard = false;
  const answer = request(op, args, (stage, fraction) => {
    heard = true;
    say(told(stage, fraction));
  });
  try {
    return await late(answer, () => heard || say(busy));
  } finally {
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
