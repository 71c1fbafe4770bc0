import assert from "node:assert/strict";
import { test } from "node:test";
import { ask } from "../src/ask.js";
import { cut, runs, split, total } from "../src/columns.js";
import { possible } from "../src/controls.js";
import { History } from "../src/history.js";

const SERIES = [{ id: "mem/host/weights", group: "memory", device: "host", owner: "weights" }];

/** A snapshot of `seconds` up to `now`, a row every `step` seconds from `first` on. */
const snapshot = (now, seconds, step, first = now - seconds, more = {}) => {
  const t_ms = [];
  for (let t = first; t <= now; t += step) t_ms.push(t * 1000);
  const points = { t_ms, values: [t_ms.map((t) => t / 1000)] };
  return { version: 1, now_ms: now * 1000, window_s: seconds, series: SERIES, points, spans: [], ...more };
};

test("what can be done follows what the server is", () => {
  const all = (state, more = {}) => possible({ state, url: "http://127.0.0.1:1", owned: true, ...more });
  assert.deepEqual(possible(null), ["start"]);
  for (const state of ["stopped", "crashed"]) assert.deepEqual(all(state), ["start"]);
  for (const state of ["starting", "loading"]) assert.deepEqual(all(state, { url: null }), ["stop"]);
  for (const state of ["ready", "sleeping", "unreachable"]) assert.deepEqual(all(state), ["restart", "stop"]);
  assert.deepEqual(all("ready", { owned: false }), ["stop"]);
  assert.deepEqual(all("unreachable", { url: null }), ["start"]);
});

test("a kernel that does not hear is said to be busy, until it is heard", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const said = [];
  let answer;
  let onProgress;
  const request = (op, args, progress) => {
    onProgress = progress;
    return new Promise((resolve) => {
      answer = () => resolve([op, args]);
    });
  };
  const asked = ask(request, "server.stop", { name: "a" }, (text) => said.push(text));
  context.mock.timers.tick(699);
  assert.deepEqual(said, []);
  context.mock.timers.tick(1);
  assert.deepEqual(said, ["the kernel is busy: this happens after the running cell"]);
  onProgress("loading weights", 0.451);
  onProgress("stopping", null);
  answer();
  assert.deepEqual(await asked, ["server.stop", { name: "a" }]);
  assert.deepEqual(said.slice(1), ["loading weights, 45 %", "stopping", ""]);
});

test("an answer in time, also a refusal, leaves no word behind", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const said = [];
  const refuse = () => Promise.reject(new Error("no"));
  await assert.rejects(
    ask(refuse, "x", {}, (text) => said.push(text)),
    /no/,
  );
  context.mock.timers.tick(5000);
  assert.deepEqual(said, [""]);
});

test("a longer past is put before what is there and says nothing of now", () => {
  const history = new History();
  const server = { name: "a", state: "ready" };
  const span = (span_id, start_ms) => ({ span_id, start_ms, end_ms: start_ms + 1 });
  history.load(snapshot(1000, 10, 0.5, 990, { server, spans: [span("new", 995_000)] }), 7);
  assert.equal(history.reachedMs, 990_000);
  const before = history.t.length;
  history.extend(
    snapshot(1001, 600, 4, 401, {
      server: null,
      spans: [span("old", 500_000), span("new", 1)],
      series: SERIES,
    }),
  );
  assert.equal(history.reachedMs, 401_000);
  assert.equal(history.t[0], 401_000);
  assert.ok(history.t.length > before + 100);
  assert.deepEqual(
    history.t,
    history.t.toSorted((a, b) => a - b),
  );
  assert.deepEqual([...history.spans.keys()], ["old", "new"]);
  assert.equal(history.spans.get("new")?.start_ms, 995_000);
  assert.equal(history.server, server);
  assert.equal(history.seq, 7);
});

test("rows that are far apart because nobody asked for more are no holes", () => {
  const history = new History();
  history.load(snapshot(1000, 10, 0.5), 1);
  history.extend(snapshot(1000, 3600, 8));
  const old = cut(history, [0], [100_000, 130_000]);
  assert.ok(!old.values[0]?.includes(null));
  // Where readings are near each other, a silence of ten seconds still is one.
  history.apply({
    type: "frame",
    seq: 2,
    layout: null,
    rows: 1,
    width: 1,
    data: Float64Array.of(1_012_000, 5),
  });
  assert.ok(cut(history, [0], [995_000, 1_012_000]).values[0]?.includes(null));
});

test("columns are summed, split and cut at holes", () => {
  assert.deepEqual(
    total([
      [1, null, 3, null],
      [10, 20, null, null],
    ]),
    [11, 20, 3, null],
  );
  assert.deepEqual(total([]), []);
  assert.deepEqual(split([90, 90, null, 90], [30, null, 10, 100]), [
    [30, 0, null, 90],
    [60, 90, null, 0],
  ]);
  assert.deepEqual(runs([null, 1, 2, null, 3, null]), [
    [1, 2],
    [4, 4],
  ]);
});
