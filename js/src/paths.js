/** The way of a line over a plot: a column of values as points in pixels, no more of them than can be seen. */

import { runs } from "./columns.js";

/** @import { Column } from "./columns.js" */

/**
 * Of the rows that share a column of pixels the first, the least, the greatest and the last are drawn: the picture is
 * the same, and an hour of samples costs as much as the plot is wide.
 *
 * @param {readonly number[]} t
 * @param {Column} values
 * @param {(t: number) => number} x
 * @param {(value: number) => number} y
 * @param {boolean} [step] a value stays until the next
 * @returns {number[][]} for each stretch without a hole x and y in turns
 */
export function paths(t, values, x, y, step = false) {
  return runs(values).map(([first, last]) => {
    /** @type {number[]} */
    const points = [];
    let [column, least, greatest, before] = [Number.NaN, 0, 0, 0];
    const leave = () => {
      if (points.at(-1) !== least) points.push(column, least);
      if (points.at(-1) !== greatest) points.push(column, greatest);
      if (points.at(-1) !== before) points.push(column, before);
    };
    for (let row = first; row <= last; row++) {
      const px = x(t[row] ?? 0);
      const py = y(values[row] ?? 0);
      if (Math.floor(px) === Math.floor(column)) {
        least = Math.max(least, py); // y grows downwards
        greatest = Math.min(greatest, py);
      } else {
        if (row > first) leave();
        if (step && row > first) points.push(px, before);
        points.push(px, py);
        [column, least, greatest] = [px, py, py];
      }
      before = py;
    }
    leave();
    return points;
  });
}

/**
 * @param {Path2D} path
 * @param {readonly number[]} points
 * @param {number} [base] the area down to here is enclosed
 */
export function follow(path, points, base) {
  const [left = 0, top = 0] = points;
  if (base !== undefined) path.moveTo(left, base);
  if (base === undefined) path.moveTo(left, top);
  for (let i = 0; i < points.length; i += 2) path.lineTo(points[i] ?? 0, points[i + 1] ?? 0);
  if (base === undefined) return;
  path.lineTo(points.at(-2) ?? left, base);
  path.closePath();
}
