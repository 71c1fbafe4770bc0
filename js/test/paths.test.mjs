import assert from "node:assert/strict";
import { test } from "node:test";
import { paths } from "../src/paths.js";

const x = (/** @type {number} */ t) => t;
const y = (/** @type {number} */ value) => 100 - value;

test("a line goes through its points and ends at holes", () => {
  assert.deepEqual(paths([0, 10, 20, 30], [1, 2, null, 4], x, y), [
    [0, 99, 10, 98],
    [30, 96],
  ]);
  assert.deepEqual(paths([], [], x, y), []);
});

test("a step stays until the next value", () => {
  assert.deepEqual(paths([0, 10, 20], [1, 3, 3], x, y, true), [[0, 99, 10, 99, 10, 97, 20, 97, 20, 97]]);
});

test("of many rows in one column of pixels the extremes stay", () => {
  const t = Array.from({ length: 100_000 }, (_, i) => i / 1000);
  const values = t.map((_, i) => (i === 50_123 ? 90 : i === 50_456 ? 0 : 10 + (i % 2)));
  const [points = []] = paths(t, values, x, y);
  assert.ok(points.length <= 100 * 4 * 2, `${points.length}`);
  const ys = points.filter((_, i) => i % 2 === 1);
  assert.equal(Math.min(...ys), 10);
  assert.equal(Math.max(...ys), 100);
  assert.deepEqual([points[0], points[1]], [0, 90]);
  assert.equal(ys.at(-1), 89);
});
