/**
 * The history in coarser steps, for long windows: of each step the smallest and the largest value of every column.
 *
 * A window of an hour has 36,000 rows and a screen two thousand pixels. What was made once is kept while rows are only
 * added, so that moving the window costs what is seen, not what is known.
 */

/** @import { History } from "./history.js" */
/** @import { Column } from "./columns.js" */

/** @typedef {Pick<History, "t" | "columns" | "rowAt"> & Partial<Pick<History, "generation">>} Rows */
/** @typedef {{ t: readonly number[], column: (index: number) => Column, rowAt: (tMs: number) => number }} Level */

/** Rows that are drawn as they are; twice as many steps as a wide screen has pixels, a pair of rows each. */
const MOST_ROWS = 4000;
/** Levels that are kept for one history: what is on screen, and the sparklines of a longer window. */
const MOST_LEVELS = 3;

/** @type {WeakMap<object, Map<number, Steps>>} */
const known = new WeakMap();

/**
 * @param {Rows} history
 * @param {readonly [number, number]} range
 * @returns {Level} the rows themselves where they are few
 */
export function level(history, [from, to]) {
  const rows = history.rowAt(to) - history.rowAt(from);
  if (rows <= MOST_ROWS || history.generation === undefined) {
    return {
      t: history.t,
      column: (index) => history.columns[index] ?? [],
      rowAt: (tMs) => history.rowAt(tMs),
    };
  }
  const step = 2 ** Math.ceil(Math.log2(((to - from) * 2) / MOST_ROWS));
  const levels = known.get(history) ?? new Map();
  known.set(history, levels);
  const found = levels.get(step) ?? new Steps(history, step);
  levels.delete(step);
  levels.set(step, found);
  for (const old of levels.keys()) if (levels.size > MOST_LEVELS) levels.delete(old);
  found.follow();
  return found;
}

/** @implements {Level} */
class Steps {
  /** @type {number[]} */
  t = [];
  #history;
  #step;
  /** First row of each step in the history; of these so many are whole. @type {number[]} */
  #first = [];
  /** Index in `t` of each step's first row. @type {number[]} */
  #places = [];
  /** @type {Map<number, { values: Column, steps: number }>} */
  #columns = new Map();
  #rows = 0;
  #generation = -1;

  /**
   * @param {Rows} history
   * @param {number} step ms
   */
  constructor(history, step) {
    this.#history = history;
    this.#step = step;
  }

  /** Take in what was added; all anew where rows were moved. */
  follow() {
    const { t, generation = 0 } = this.#history;
    if (generation !== this.#generation) {
      this.#generation = generation;
      this.#forget(0);
      this.#columns.clear();
    }
    if (t.length === this.#rows) return;
    // The newest step may have been open.
    this.#forget(Math.max(0, this.#first.length - 1));
    let row = this.#rows;
    while (row < t.length) {
      const end = (Math.floor((t[row] ?? 0) / this.#step) + 1) * this.#step;
      this.#first.push(row);
      this.#places.push(this.t.length);
      this.t.push(t[row] ?? 0);
      let last = row;
      while (last + 1 < t.length && (t[last + 1] ?? 0) < end) last++;
      if (last > row) this.t.push(t[last] ?? 0);
      row = last + 1;
    }
    this.#rows = t.length;
  }

  /** @param {number} steps that stay */
  #forget(steps) {
    this.#rows = this.#first[steps] ?? (steps === 0 ? 0 : this.#rows);
    this.t.length = this.#places[steps] ?? (steps === 0 ? 0 : this.t.length);
    this.#first.length = this.#places.length = steps;
    for (const column of this.#columns.values()) {
      column.steps = Math.min(column.steps, steps);
      column.values.length = Math.min(column.values.length, this.t.length);
    }
  }

  /** @param {number} index of the column @returns {Column} beside `t` */
  column(index) {
    const found = this.#columns.get(index) ?? { values: [], steps: 0 };
    this.#columns.set(index, found);
    const from = this.#history.columns[index] ?? [];
    for (; found.steps < this.#first.length; found.steps++) {
      const begin = this.#first[found.steps] ?? 0;
      const end = this.#first[found.steps + 1] ?? this.#rows;
      let [least, most, leastAt, mostAt] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -1, -1];
      for (let row = begin; row < end; row++) {
        const value = from[row];
        if (value == null) continue;
        if (value < least) [least, leastAt] = [value, row];
        if (value >= most) [most, mostAt] = [value, row];
      }
      const none = leastAt < 0;
      const [one, other] = none ? [null, null] : leastAt <= mostAt ? [least, most] : [most, least];
      if (end - begin > 1) found.values.push(one, other);
      else found.values.push(one);
    }
    return found.values;
  }

  /** @param {number} tMs @returns {number} Index of the last row at or before `tMs`, −1 when there is none. */
  rowAt(tMs) {
    return lastAt(this.t, tMs);
  }
}

/**
 * @param {readonly number[]} t in order
 * @param {number} tMs
 * @returns {number} Index of the last at or before `tMs`, −1 when there is none.
 */
export function lastAt(t, tMs) {
  let low = 0;
  let high = t.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (/** @type {number} */ (t[middle]) <= tMs) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
