// Trees, critical paths and lines of traces, without a page.

import assert from "node:assert/strict";
import { test } from "node:test";
import { criticalPath } from "../src/critical.js";
import { chosen, decodeLines, Lines, lineOf } from "../src/lines.js";
import { inOrder } from "../src/tree.js";

const span = (span_id, parent_id, start_ms, end_ms, more = {}) => ({
  trace_id: "t",
  span_id,
  parent_id,
  name: span_id,
  start_ms,
  end_ms,
  ...more,
});
const path = (spans) => Object.fromEntries([...criticalPath(spans)].map(([id, pieces]) => [id, pieces]));

test("what follows each other is all on the path, and what is between is the parent's own", () => {
  const spans = [span("cell", null, 0, 100), span("a", "cell", 10, 40), span("b", "cell", 40, 90)];
  assert.deepEqual(path(spans), {
    cell: [
      [0, 10],
      [90, 100],
    ],
    a: [[10, 40]],
    b: [[40, 90]],
  });
});

test("of what runs beside each other only what ended last is on the path", () => {
  const spans = [
    span("cell", null, 0, 100),
    span("short", "cell", 5, 60),
    span("long", "cell", 5, 95),
    span("inner", "long", 20, 95),
  ];
  assert.deepEqual(path(spans), { cell: [[0, 5], [95, 100]], long: [[5, 20]], inner: [[20, 95]] }); // biome-ignore format: one line
});

test("a child that outlives its parent counts up to the parent's end", () => {
  assert.deepEqual(path([span("cell", null, 0, 50), span("late", "cell", 20, 80)]), {
    cell: [[0, 20]],
    late: [[20, 50]],
  });
});

test("every moment of a trace is on its path once", () => {
  let seed = 7;
  const random = () => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed / 2147483648;
  };
  for (let round = 0; round < 50; round++) {
    const spans = [span("0", null, 0, 1000)];
    for (let n = 1; n < 40; n++) {
      const parent = spans[Math.floor(random() * spans.length)];
      const start = parent.start_ms + random() * (parent.end_ms - parent.start_ms);
      const end = start + random() * (parent.end_ms - start);
      spans.push(span(String(n), parent.span_id, start, end));
    }
    const pieces = [...criticalPath(spans).values()].flat().sort((a, b) => a[0] - b[0]);
    const covered = pieces.reduce((sum, [from, to]) => sum + to - from, 0);
    assert.ok(Math.abs(covered - 1000) < 0.1, `${covered}`);
    for (let i = 1; i < pieces.length; i++) assert.ok(pieces[i][0] >= pieces[i - 1][1] - 0.01);
  }
});

test("traces without a root, circles and thousands of levels have a path and are drawn whole", () => {
  const circle = [span("a", "c", 0, 9), span("b", "a", 1, 8), span("c", "b", 2, 7)];
  assert.deepEqual(
    inOrder(circle).map((row) => [row.span.span_id, row.depth, row.cut]),
    [
      ["a", 0, true],
      ["b", 1, false],
      ["c", 2, false],
    ],
  );
  assert.deepEqual([...criticalPath(circle).keys()], ["a", "b", "c"]);
  assert.deepEqual(inOrder([span("own", "own", 0, 1)])[0].cut, true);
  const deep = Array.from({ length: 10_000 }, (_, n) =>
    span(`${n}`, n ? `${n - 1}` : null, n / 1e4, 10 - n / 1e4),
  );
  assert.equal(inOrder(deep).at(-1).depth, 9999);
  assert.equal(criticalPath(deep).size, 10_000);
  assert.deepEqual(criticalPath([]), new Map());
});

const call = (id, more) =>
  span(id, "root", 10, 1010, {
    name: "chat m",
    model: "m",
    input_tokens: 10,
    output_tokens: 101,
    decode_tokens_per_s: 100,
    ttft_s: 0.1,
    ...more,
  });

test("a live line has the figures of Python's", () => {
  const cell = span("root", null, 0, 2000, { name: "notebook cell", cell_id: "0123456789" });
  const line = lineOf([
    call("2", { start_ms: 1010, end_ms: 2000, output_tokens: 11, decode_tokens_per_s: 10 }),
    call("1", {}),
    cell,
  ]);
  assert.equal(line.decode_tokens_per_s, 55);
  assert.deepEqual(
    [line.input_tokens, line.output_tokens, line.ttft_s, line.calls, line.energy_j],
    [20, 112, 0.1, 2, null],
  );
  assert.deepEqual([line.cell, line.model, line.duration_s, line.complete], ["01234567", "m", 2, true]);
  const failing = lineOf([call("1", { status: "error", error_type: "Timeout" })]);
  assert.deepEqual([failing.failed, failing.error_type, failing.complete], [true, "Timeout", false]);
});

const answer = {
  texts: [null, "notebook cell", "m", "n", "Timeout"],
  trace_id: ["t3", "t2", "t1"],
  span_id: ["s3", "s2", "s1"],
  start_ms: [3000, 2000, 1000],
  end_ms: [3500, 2900, 1100],
  complete: [true, true, true],
  calls: [1, 0, 1],
  failed: [false, false, true],
  input_tokens: [5, null, 7],
  output_tokens: [50, null, 70],
  ttft_s: [0.2, null, 0.1],
  decode_tokens_per_s: [20, null, 10],
  energy_j: [null, null, 3],
  name: [1, 1, 1],
  model: [2, 0, 3],
  cell: [0, 0, 0],
  error_type: [0, 0, 4],
};
const wanted = (more) => ({ key: "start_ms", down: true, search: "", status: "all", ...more });

test("lines are sorted by any column, what is missing last, and found by words and status", () => {
  const lines = decodeLines(answer);
  const ids = (more) => chosen(lines, wanted(more)).map((line) => line.trace_id);
  assert.deepEqual(ids({}), ["t3", "t2", "t1"]);
  assert.deepEqual(ids({ down: false }), ["t1", "t2", "t3"]);
  assert.deepEqual(ids({ key: "output_tokens" }), ["t1", "t3", "t2"]);
  assert.deepEqual(ids({ key: "output_tokens", down: false }), ["t3", "t1", "t2"]);
  assert.deepEqual(ids({ key: "model", down: false }), ["t3", "t1", "t2"]);
  assert.deepEqual(ids({ key: "energy_j" }), ["t1", "t3", "t2"]);
  assert.deepEqual(ids({ status: "error" }), ["t1"]);
  assert.deepEqual(ids({ status: "ok" }), ["t3", "t2"]);
  assert.deepEqual(ids({ search: "TIMEOUT cell" }), ["t1"]);
  assert.deepEqual(ids({ search: "t2" }), ["t2"]);
});

test("live spans add traces and complete them, and never take away what is known", () => {
  const lines = new Lines();
  lines.told(decodeLines(answer));
  const before = lines.version;
  lines.told(decodeLines(answer));
  assert.equal(lines.version, before);
  lines.live([call("x", { trace_id: "t4" })]);
  assert.equal(lines.all.get("t4").complete, false);
  lines.live([call("x", { trace_id: "t4" }), span("root", null, 0, 2000, { trace_id: "t4" })]);
  assert.equal(lines.all.get("t4").complete, true);
  assert.equal(lines.byspan.get("root"), "t4");
  // Only a phase of a trace whose request is known already.
  lines.live([span("s9", "gone", 5, 6, { trace_id: "t1", name: "decode" })]);
  assert.equal(lines.all.get("t1").output_tokens, 70);
});

test("ten thousand lines are chosen within a frame or three", () => {
  const lines = Array.from({ length: 10_000 }, (_, n) => ({
    ...decodeLines(answer)[n % 3],
    trace_id: `${n}`,
    start_ms: n,
  }));
  chosen(lines, wanted({ key: "output_tokens" }));
  const began = performance.now();
  assert.equal(chosen(lines, wanted({ key: "output_tokens", search: "cell" })).length, 10_000);
  assert.ok(performance.now() - began < 500, `${performance.now() - began} ms`);
});
