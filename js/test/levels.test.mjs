import assert from "node:assert/strict";
import { test } from "node:test";
import { cut } from "../src/columns.js";
import { History } from "../src/history.js";
import { level } from "../src/levels.js";

const HOUR = 3_600_000;

/** An hour at 10 Hz, its first column a saw with one spike, its second known only now and then. */
function hour() {
  const history = new History();
  history.columns = [[], []];
  for (let i = 0; i < 36_000; i++) {
    history.t.push(i * 100);
    history.columns[0]?.push(i === 20_007 ? 5000 : i % 100);
    history.columns[1]?.push(i % 1000 === 0 ? i : null);
  }
  history.generation += 1;
  return history;
}

test("few rows are given as they are", () => {
  const history = hour();
  assert.equal(level(history, [0, 100_000]).t, history.t);
});

test("a long window has a screen's worth of rows, with every extreme", () => {
  const history = hour();
  const { t, values } = cut(history, [0, 1], [0, HOUR]);
  assert.ok(t.length > 2000 && t.length < 4100, `${t.length}`);
  assert.equal(Math.max(...(values[0] ?? [])), 5000);
  assert.equal(Math.min(...(values[0] ?? [])), 0);
  assert.deepEqual(
    t,
    t.toSorted((a, b) => a - b),
  );
  assert.ok(values.every((column) => column.length === t.length));
  assert.equal(t.at(-1), 3_599_900);
});

test("what is added is taken in, and is the same as made anew", () => {
  const history = hour();
  cut(history, [0], [0, HOUR]);
  for (let i = 36_000; i < 36_777; i++) {
    history.t.push(i * 100);
    history.columns[0]?.push(i % 3 === 0 ? null : i);
    history.columns[1]?.push(null);
    if (i % 100 === 0) cut(history, [0, 1], [0, HOUR]);
  }
  const grown = level(history, [0, HOUR]);
  const whole = [[...grown.t], [...grown.column(0)], [...grown.column(1)]];
  history.generation += 1;
  const anew = level(history, [0, HOUR]);
  assert.deepEqual(whole, [anew.t, anew.column(0), anew.column(1)]);
});

test("rows that were moved are read again", () => {
  const history = hour();
  cut(history, [0], [0, HOUR]);
  history.t.splice(0, 30);
  for (const column of history.columns) column.splice(0, 30);
  history.generation += 1;
  const { t, values } = cut(history, [0], [0, HOUR]);
  assert.equal(t[0], 3000);
  assert.equal(values[0]?.[0], 30);
});
