// The graph's words, places and links, without a page.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BUSY, late } from "../src/late.js";
import {
  curve,
  described,
  facts,
  fitted,
  held,
  home,
  leads,
  lookOf,
  neighbour,
  webUrl,
  zoomed,
} from "../src/picture.js";
import { NODES, SHAPES, SPANS } from "../src/theme.js";

const node = (more) => ({
  id: "a",
  kind: "chat",
  label: "chat smollm2",
  x: 0,
  y: 0,
  width: 120,
  height: 38,
  spans: 1,
  p50_s: 1.5,
  p95_s: 1.5,
  tokens: null,
  errors: 0,
  ...more,
});
const said = (one) => facts(one).filter(Boolean);

test("a node of one span has a duration, one of many has medians; what is not known is not said", () => {
  assert.deepEqual(said(node({})), ["1.50 s"]);
  assert.deepEqual(said(node({ spans: 25, p95_s: 2, tokens: 1500, errors: 2 })), [
    "25 times",
    "p50 1.50 s",
    "p95 2.00 s",
    "1,500 tokens",
    "2 failed",
  ]);
  assert.deepEqual(said(node({ p50_s: null, p95_s: null })), []);
  assert.equal(described(node({ tokens: 0 })), "request chat smollm2, 1.50 s, 0 tokens");
});

test("every kind has a shape that can be drawn, and kinds that nobody knows are other spans", () => {
  for (const look of [...Object.values(NODES), ...Object.values(SPANS)])
    assert.ok(SHAPES[look.shape], look.shape);
  assert.equal(lookOf(node({ kind: "constructor-like" })), SPANS.other);
  const looks = Object.entries({ ...NODES, ...SPANS }).filter(([kind]) => kind !== "other");
  assert.equal(new Set(looks.map(([, look]) => look.shape)).size, looks.length);
});

test("what leads away is told with the most frequent first", () => {
  const nodes = [node({}), node({ label: "decode" }), node({ label: "queue\u202e" })];
  const edges = [
    [0, 1, "parent", 1, 0.5, 0.5],
    [0, 2, "parent", 9, 0.001, 0.002],
    [1, 2, "parent", 3, 1, 1],
  ];
  assert.deepEqual(leads({ nodes, edges }, 0), [
    "\u2192 queue\ufffd 9 times, p95 2.0 ms",
    "\u2192 decode 0.50 s",
  ]);
});

test("an edge leaves on the right and arrives on the left, also backwards", () => {
  assert.equal(curve(node({}), node({ x: 200, y: 48 })), "M120 19C160 19 160 67 200 67");
  assert.match(curve(node({ x: 300 }), node({})), /^M420 19C630 19 -210 19 0 19$/);
});

test("a small picture is not blown up, a large one is shrunk to fit, or begins at its corner", () => {
  const view = { width: 600, height: 360 };
  assert.deepEqual(fitted({ width: 300, height: 100 }, view), { scale: 1, x: 150, y: 130 });
  const { scale, y } = fitted({ width: 900, height: 3000 }, view);
  assert.ok(Math.abs(scale - 336 / 3000) < 0.01 && y >= 0);
  assert.deepEqual(home({ width: 5000, height: 3000 }, view), { scale: 0.62, x: 12, y: 12 });
  assert.equal(fitted({ width: 0, height: 0 }, { width: 0, height: 0 }).scale > 0, true);
});

test("zooming keeps the point under the pointer, and has limits", () => {
  const before = { scale: 1, x: 10, y: 20 };
  const after = zoomed(before, 1.5, 110, 70);
  assert.deepEqual([after.x + 100 * after.scale, after.y + 50 * after.scale], [110, 70]);
  assert.equal(zoomed(before, 1e9, 0, 0).scale, 2.5);
  assert.equal(zoomed(before, 1e-9, 0, 0).scale, 0.12);
});

test("a picture cannot be moved out of sight", () => {
  const size = { width: 500, height: 300 };
  const at = held({ x: 9999, y: -9999, scale: 1 }, size, { width: 600, height: 360 });
  assert.deepEqual([at.x, at.y], [552, -252]);
});

test("arrow keys go to what is next in that direction", () => {
  const [a, right, far, below] = [node({}), node({ x: 160, y: 48 }), node({ x: 320 }), node({ y: 48 })];
  const all = [a, right, far, below];
  assert.equal(neighbour(all, a, "ArrowRight"), right);
  assert.equal(neighbour(all, a, "ArrowDown"), below);
  assert.equal(neighbour(all, a, "ArrowLeft"), undefined);
  assert.equal(neighbour(all, far, "ArrowLeft"), right);
});

test("a link leads to the web or nowhere", () => {
  assert.equal(webUrl("https://hub.graphistry.com/graph?a=1"), "https://hub.graphistry.com/graph?a=1");
  assert.equal(webUrl("http://127.0.0.1:9/g"), "http://127.0.0.1:9/g");
  for (const bad of [
    "javascript:alert(1)",
    " JavaScript:alert(1)",
    "data:text/html,x",
    "/graph",
    "",
    null,
    {},
  ])
    assert.equal(webUrl(bad), null);
});

test("an answer that is late is announced once, a quick one never", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let told = 0;
  const quick = await late(Promise.resolve(5), () => told++);
  t.mock.timers.tick(5000);
  assert.deepEqual([quick, told], [5, 0]);
  let answer = () => {};
  const slow = late(new Promise((resolve) => (answer = resolve)), () => told++);
  t.mock.timers.tick(701);
  assert.equal(told, 1);
  answer(7);
  assert.equal(await slow, 7);
  await assert.rejects(
    late(Promise.reject(new Error("no")), () => told++),
    /no/,
  );
  assert.match(BUSY, /busy/);
});
