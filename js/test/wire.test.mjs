// What Python sends arrives as it was meant, and nothing that is torn or old harms the picture.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { asSnapshot } from "../src/believed.js";
import { History } from "../src/history.js";
import { decode, float64, layoutOf } from "../src/wire.js";

// Checked against llamatelemetry_jupyter/feed.py by tests/test_feed.py.
const fixture = JSON.parse(readFileSync(new URL("frame.json", import.meta.url), "utf8"));
const T0 = 1_790_000_000_000;

const series = (...ids) => ids.map((id) => ({ id, group: id.split("/")[0] }));
const totals = (spans) => ({ spans, traces: 1, calls: 1, errors: 0, input_tokens: 1, output_tokens: 1 });
const span = (id, start, end) => ({
  trace_id: "t",
  span_id: id,
  parent_id: null,
  name: id,
  start_ms: start,
  end_ms: end,
});

function snapshot(ids, rows, more = {}) {
  return {
    version: 1,
    now_ms: T0 + (rows.at(-1)?.[0] ?? 0),
    window_s: 120,
    server: null,
    totals: totals(0),
    devices: [],
    series: series(...ids),
    points: { t_ms: rows.map(([t]) => T0 + t), values: ids.map((_, i) => rows.map((row) => row[i + 1])) },
    spans: [],
    ...more,
  };
}

function frame(seq, ids, rows) {
  const flat = rows.flatMap(([t, ...values]) => [T0 + t, ...values.map((v) => v ?? Number.NaN)]);
  const content = { type: "frame", seq, rows: rows.length, layout: layoutOf(series(...ids)) };
  return decode(content, [new DataView(new Float64Array(flat).buffer)]);
}

test("a frame written by Python is read by its series", () => {
  const bytes = Buffer.from(fixture.buffer, "base64");
  // anywidget 0.9 hands over a view that may begin anywhere in a larger buffer.
  const padded = new Uint8Array(bytes.length + 3);
  padded.set(bytes, 3);
  const message = decode(fixture.content, [new DataView(padded.buffer, 3)]);
  const listed = fixture.series.map((id) => ({ id, group: "" }));
  assert.equal(message.layout, layoutOf(listed));
  assert.equal(message.width, listed.length);
  const history = new History();
  history.load(snapshot(fixture.series, []), 1);
  assert.ok(history.apply(message));
  const at = (id) => history.columns[fixture.series.indexOf(id)].at(-1);
  assert.equal(history.t.at(-1), T0 + 1500);
  assert.equal(at("mem/host/weights"), 2 ** 40 + 1);
  assert.equal(at("tok/default/decode"), 48);
  assert.equal(at("slots/default/busy"), 1);
});

test("what is not a message is nothing", () => {
  for (const content of [
    null,
    1,
    "x",
    {},
    { type: "frame" },
    { type: "frame", seq: 1, rows: 1 },
    { seq: 1, type: "?" },
  ]) {
    assert.equal(decode(content, []), null);
  }
  assert.equal(decode({ type: "frame", seq: 1, rows: 3 }, [new DataView(new ArrayBuffer(64))]), null);
  assert.equal(decode({ type: "frame", seq: 1, rows: 0 }, [new DataView(new ArrayBuffer(8))]), null);
  assert.equal(decode({ type: "snapshot", seq: 1, snapshot: { version: 2 } }), null);
  assert.equal(asSnapshot({}), null);
  assert.equal(float64(new ArrayBuffer(15)).length, 1);
});

test("NaN means: no reading", () => {
  const history = new History();
  history.load(snapshot(["a", "b"], []), 1);
  history.apply(frame(2, ["a", "b"], [[0, 1, null]]));
  assert.deepEqual(history.columns, [[1], [null]]);
});

test("old and repeated messages change nothing", () => {
  const history = new History();
  history.load(snapshot(["a"], [[0, 1]]), 5);
  assert.equal(history.apply(frame(5, ["a"], [[500, 2]])), false);
  assert.equal(history.apply(frame(6, ["a"], [[500, 2]])), true);
  assert.equal(history.apply(frame(6, ["a"], [[1000, 3]])), false);
  history.apply(
    frame(
      7,
      ["a"],
      [
        [500, 9],
        [1000, 4],
      ],
    ),
  );
  assert.deepEqual(history.columns, [[1, 2, 4]]);
});

test("a snapshot fills the hole of lost frames and keeps finer rows", () => {
  const history = new History();
  history.load(
    snapshot(
      ["a"],
      [
        [0, 0],
        [500, 1],
      ],
    ),
    1,
  );
  history.apply(frame(2, ["a"], [[1000, 2]]));
  // 3 and 4 are lost
  history.apply(frame(5, ["a"], [[2500, 5]]));
  history.load(
    snapshot(
      ["a"],
      [
        [0, 0],
        [1000, 2],
        [1500, 3],
        [2000, 4],
        [2500, 5],
        [3000, 6],
      ],
    ),
    6,
  );
  assert.deepEqual(
    history.t.map((t) => t - T0),
    [0, 500, 1000, 1500, 2000, 2500, 3000],
  );
  assert.deepEqual(history.columns, [[0, 1, 2, 3, 4, 5, 6]]);
});

test("a frame of another list of series is refused until its snapshot comes", () => {
  const history = new History();
  history.load(snapshot(["a", "b"], [[0, 1, 2]]), 1);
  assert.equal(history.apply(frame(3, ["a", "c"], [[500, 1, 9]])), false);
  assert.equal(history.needsSnapshot, true);
  history.apply(
    decode({
      type: "snapshot",
      seq: 4,
      snapshot: snapshot(
        ["a", "c"],
        [
          [0, 1, null],
          [500, 1, 9],
        ],
      ),
    }),
  );
  assert.equal(history.needsSnapshot, false);
  assert.deepEqual(history.columns, [
    [1, 1],
    [null, 9],
  ]);
});

test("a trait that is older than what came live takes nothing back", () => {
  const history = new History();
  history.load(snapshot(["a"], [[0, 1]]), 1);
  history.apply(decode({ type: "spans", seq: 9, spans: [span("s", T0, T0 + 900)], totals: totals(7) }));
  history.load(snapshot(["a"], [[500, 2]], { totals: totals(3), now_ms: T0 + 500 }), 8);
  assert.equal(history.totals.spans, 7);
  assert.equal(history.spans.size, 1);
  assert.deepEqual(history.columns, [[1, 2]]);
});

test("after a new feed, whose numbers begin again, its snapshot counts", () => {
  const history = new History();
  history.load(snapshot(["a"], [[0, 1]], { totals: totals(7) }), 100);
  history.load(snapshot(["a"], [[9000, 2]], { totals: totals(8) }), 1);
  assert.equal(history.totals.spans, 8);
  assert.ok(history.apply(frame(2, ["a"], [[9500, 3]])));
});

test("since when there is no reading is told by snapshots and by state, and taken back", () => {
  const history = new History();
  history.load(snapshot(["a"], [[0, 1]], { since_ms: T0 }), 1);
  assert.equal(history.sinceMs, T0);
  history.apply(decode({ type: "spans", seq: 2, spans: [], since_ms: null }));
  assert.equal(history.sinceMs, null);
  history.apply(decode({ type: "spans", seq: 3, spans: [], since_ms: T0 + 5 }));
  history.apply(decode({ type: "spans", seq: 4, spans: [] })); // an older kernel says nothing of it
  assert.equal(history.sinceMs, T0 + 5);
  history.load(snapshot(["a"], [[0, 1]]), 5);
  assert.equal(history.sinceMs, null);
  history.apply(decode({ type: "spans", seq: 6, spans: [], since_ms: "yesterday" }));
  assert.equal(history.sinceMs, null);
});

test("spans are merged by id and bounded", () => {
  const history = new History();
  for (let i = 0; i < 1000; i++) {
    history.apply(decode({ type: "spans", seq: i + 1, spans: [span(`s${i}`, T0 + i, T0 + i + 1)] }));
  }
  assert.equal(history.spans.size, 400);
  assert.ok(history.spans.has("s999"));
});

test("rows are bounded: an hour at 10 Hz, less of many series", () => {
  const history = new History();
  history.load(snapshot(["a"], []), 0);
  const rows = Array.from({ length: 38_000 }, (_, i) => [i * 100, i]);
  history.apply(frame(1, ["a"], rows));
  assert.equal(history.t.length, 36_000);
  assert.equal(history.columns[0].at(-1), 37_999);
  const many = new History();
  const ids = Array.from({ length: 300 }, (_, i) => `s${i}`);
  many.load(snapshot(ids, []), 0);
  const row = ids.map((_, i) => i);
  many.apply(
    frame(
      1,
      ids,
      Array.from({ length: 12_000 }, (_, i) => [i * 100, ...row]),
    ),
  );
  assert.equal(many.t.length, 10_000);
});
