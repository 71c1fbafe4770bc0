// Columns, axes, figures and the reader's choices, without a page.

import assert from "node:assert/strict";
import { test } from "node:test";
import { timeTicks, valueTicks } from "../src/axis.js";
import { cut, maximum, stack } from "../src/columns.js";
import { bytes, clock, count, duration, percent, plain, rate, since } from "../src/format.js";
import { History } from "../src/history.js";
import { Store } from "../src/store.js";
import { OWNERS, PATTERNS, spanKind } from "../src/theme.js";
import { inOrder } from "../src/tree.js";

const history = (t, ...columns) => Object.assign(new History(), { t, columns });

test("layers are stacked from the bottom; a missing one counts as nothing, a missing row is a hole", () => {
  assert.deepEqual(
    stack([
      [1, 1, null],
      [2, null, null],
      [3, 3, null],
    ]),
    [
      [1, 1, null],
      [3, 1, null],
      [6, 4, null],
    ],
  );
  assert.deepEqual(stack([]), []);
});

test("a window reaches one row beyond its edges", () => {
  const { t, values } = cut(history([0, 1000, 2000, 3000, 4000], [0, 1, 2, 3, 4]), [0], [1500, 2500]);
  assert.deepEqual(t, [1000, 2000, 3000]);
  assert.deepEqual(values, [[1, 2, 3]]);
});

test("a value is carried over rows that lack it, not over a silence", () => {
  const { values } = cut(history([0, 1000, 2000, 9000], [5, null, null, null]), [0], [0, 10_000]);
  assert.deepEqual(values[0], [5, 5, 5, null, null]);
});

test("where nothing was sampled there is a hole", () => {
  const { t, values } = cut(history([0, 1000, 60_000], [1, 1, 1]), [0], [0, 60_000]);
  assert.deepEqual(t, [0, 1000, 1001, 60_000]);
  assert.deepEqual(values, [[1, 1, null, 1]]);
});

test("the largest value, holes left out", () =>
  assert.equal(
    maximum([
      [1, null],
      [null, 7],
    ]),
    7,
  ));

test("times on the axis are round and have room", () => {
  const from = new Date(2026, 0, 1, 12, 0, 3).getTime();
  const ticks = timeTicks(from, from + 120_000, 520);
  assert.ok(ticks.length >= 3 && ticks.length <= 7);
  assert.ok(ticks.every((t) => clock(t).endsWith(":00") || clock(t).endsWith(":30")));
});

test("bytes have binary ticks, things that are counted have whole ones", () => {
  assert.deepEqual(
    valueTicks(400 * 2 ** 20, 4, 1024),
    [0, 128, 256, 384].map((n) => n * 2 ** 20),
  );
  assert.deepEqual(valueTicks(1.12, 3, 1000, 1), [0, 1]);
  assert.deepEqual(valueTicks(56, 3), [0, 20, 40]);
  assert.deepEqual(valueTicks(0, 3), [0]);
});

test("figures read as people write them", () => {
  assert.deepEqual([0, 1023, 1024, 98 * 2 ** 20, 1024 ** 3 - 1, null].map(bytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "98.0 MiB",
    "1.0 GiB",
    "n/a",
  ]);
  assert.deepEqual([0.0021, 0.15, 3.153, 59.96, 61, 3700, undefined].map(duration), [
    "2.1 ms",
    "0.15 s",
    "3.15 s",
    "1 min 00 s",
    "1 min 01 s",
    "1 h 01 min",
    "n/a",
  ]);
  assert.equal(count(1234567), "1,234,567");
  assert.deepEqual([0, 31.66, 12345].map(rate), ["0.0", "31.7", "12,345"]);
  assert.deepEqual([0, 0.088, 0.5].map(percent), ["0 %", "8.8 %", "50 %"]);
});

test("what is not known any more says since when", () => {
  assert.equal(since(new Date(2026, 0, 1, 14, 2, 11).getTime()), "n/a since 14:02:11");
});

test("text that moves cursors or turns the reading direction is shown as such", () => {
  assert.equal(plain("a\u202eb\u001b[31m"), "a\ufffdb\ufffd[31m");
  assert.equal(plain(null), "");
});

test("the window follows the newest data; a range holds it", () => {
  const store = new Store();
  store.setWindow(30_000);
  assert.deepEqual(store.range(100_000), [70_000, 100_000]);
  assert.deepEqual(store.range(100_000, 95_000), [90_000, 100_000]); // a young session fills the axis, from 10 s on
  store.setFollow(false, store.range(100_000));
  assert.deepEqual(store.range(200_000), [70_000, 100_000]);
  store.setFollow(true, [0, 0]);
  assert.deepEqual(store.range(200_000), [170_000, 200_000]);
});

test("listeners hear changes, until their signal ends", () => {
  const store = new Store();
  const stop = new AbortController();
  let heard = 0;
  store.subscribe(() => void heard++, stop.signal);
  store.set({ paused: true });
  store.set({ paused: true });
  assert.equal(heard, 1);
  stop.abort();
  store.set({ paused: false });
  assert.equal(heard, 1);
});

test("an owner is drawn by default or by choice", () => {
  const store = new Store();
  assert.equal(store.isDrawn("host/other", false), false);
  store.setDrawn("host/other", true);
  assert.equal(store.isDrawn("host/other", false), true);
  store.setDrawn("host/other", false);
  assert.equal(store.isDrawn("host/other", true), false);
});

test("the newest trace is first, children follow their parents, circles end", () => {
  const make = (trace, id, parent, start) => ({
    trace_id: trace,
    span_id: id,
    parent_id: parent,
    name: id,
    start_ms: start,
    end_ms: 99,
  });
  const rows = inOrder([
    make("1", "cell", null, 0),
    make("1", "decode", "chat", 3),
    make("1", "chat", "cell", 1),
    make("2", "orphan", "gone", 50),
    make("3", "x", "y", 60),
    make("3", "y", "x", 61),
  ]);
  assert.deepEqual(
    rows.map(({ span, depth, first, cut }) => [span.span_id, depth, first, cut]),
    [
      ["x", 0, true, true],
      ["y", 1, false, false],
      ["orphan", 0, true, false],
      ["cell", 0, true, false],
      ["chat", 1, false, false],
      ["decode", 2, false, false],
    ],
  );
});

test("span kinds and patterns are those of the pictures that Python draws", () => {
  assert.deepEqual(["notebook cell", "chat smollm2", "embeddings", "queue", "chatter", ""].map(spanKind), [
    "cell",
    "chat",
    "chat",
    "queue",
    "other",
    "other",
  ]);
  assert.deepEqual(
    new Set(Object.values(OWNERS).map((look) => look.pattern)),
    new Set(Object.keys(PATTERNS)),
  );
});
