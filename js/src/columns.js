/** Columns of the history made ready for drawing: cut to the window, holes kept as holes, areas stacked. */

import { level } from "./levels.js";

/** @import { History } from "./history.js" */
/** @import { Rows } from "./levels.js" */
/** @typedef {(number | null)[]} Column */

/**
 * Rows of the window and one beyond each edge, so that lines run to the border. A value that a row lacks is carried
 * from the row before (devices and servers are sampled apart); where nothing was sampled for `gapMs`, a hole remains, if
 * it is wide enough to be seen. Of a window with more rows than a screen shows, the smallest and the largest are given.
 *
 * @param {Rows & Partial<Pick<History, "coarse">>} history
 * @param {readonly number[]} columns indexes
 * @param {readonly [number, number]} range
 * @param {number} gapMs
 * @returns {{ t: number[], values: Column[] }}
 */
export function cut(history, columns, [from, to], gapMs = Math.max(5000, (to - from) / 200)) {
  const { untilMs, gapMs: coarseMs } = history.coarse ?? { untilMs: 0, gapMs: 0 };
  const gapAt = (/** @type {number} */ t) => (t <= untilMs ? Math.max(gapMs, coarseMs) : gapMs);
  const rows = level(history, [from, to]);
  const sources = columns.map((column) => rows.column(column));
  const first = Math.max(0, rows.rowAt(from));
  const last = Math.min(rows.t.length - 1, rows.rowAt(to) + 1);
  /** @type {number[]} */
  const t = [];
  const values = columns.map(() => /** @type {Column} */ ([]));
  const seen = columns.map(() => Number.NEGATIVE_INFINITY);
  const carried = columns.map(() => /** @type {number | null} */ (null));
  for (let row = first; row <= last; row++) {
    const now = rows.t[row] ?? 0;
    const before = t.at(-1);
    if (before !== undefined && now - before > gapAt(before)) {
      t.push(before + 1);
      for (const column of values) column.push(null);
    }
    t.push(now);
    for (let i = 0; i < columns.length; i++) {
      const value = sources[i]?.[row] ?? null;
      if (value !== null) {
        seen[i] = now;
        carried[i] = value;
      }
      values[i]?.push(now - (seen[i] ?? 0) <= gapAt(seen[i] ?? 0) ? (carried[i] ?? null) : null);
    }
  }
  return { t, values };
}

/**
 * Running sums from the bottom: `out[i]` is the upper edge of layer `i`. A row in which no layer has a value is a hole;
 * a single missing layer counts as nothing there.
 *
 * @param {readonly Column[]} layers
 * @returns {Column[]}
 */
export function stack(layers) {
  const rows = layers[0]?.length ?? 0;
  const out = layers.map(() => /** @type {Column} */ (new Array(rows).fill(null)));
  for (let row = 0; row < rows; row++) {
    if (layers.every((layer) => layer[row] == null)) continue;
    let sum = 0;
    for (let i = 0; i < layers.length; i++) {
      sum += layers[i]?.[row] ?? 0;
      /** @type {Column} */ (out[i])[row] = sum;
    }
  }
  return out;
}

/** @param {readonly Column[]} columns @returns {number} The largest value, 0 when there is none. */
export function maximum(columns) {
  let max = 0;
  for (const column of columns) for (const value of column) if (value !== null && value > max) max = value;
  return max;
}

/**
 * The sum of columns at each row; a row in which none has a value is a hole.
 *
 * @param {readonly Column[]} columns
 * @returns {Column}
 */
export function total(columns) {
  return stack(columns).at(-1) ?? [];
}

/**
 * The part of a column that another one fills, and the rest; where that is not known, all of it is rest.
 *
 * @param {Column} whole
 * @param {Column} filled
 * @returns {[Column, Column]}
 */
export function split(whole, filled) {
  const full = whole.map((size, i) => (size === null ? null : Math.min(size, filled[i] ?? 0)));
  return [full, whole.map((size, i) => (size === null ? null : size - (full[i] ?? 0)))];
}

/**
 * First and last index of each stretch without a hole.
 *
 * @param {Column} values
 * @returns {[number, number][]}
 */
export function runs(values) {
  /** @type {[number, number][]} */
  const found = [];
  values.forEach((value, i) => {
    if (value === null) return;
    const newest = found.at(-1);
    if (newest && newest[1] === i - 1) newest[1] = i;
    else found.push([i, i]);
  });
  return found;
}
