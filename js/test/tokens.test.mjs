// The tokens in words: decoded from columns, spoken, and refused when they are of another form.

import assert from "node:assert/strict";
import { test } from "node:test";
import { chance, described, logprob, PAGE, Reading, spoken } from "../src/tokens/reading.js";

const snapshot = (more = {}) => ({
  version: 1,
  source: "answer",
  model: "smol",
  summary: "2 tokens",
  total: 2,
  likely: [0.5, 0.2, 0.05, 0.01],
  kinds: { text: "text", bytes: "stray bytes" },
  titles: { logprob: "what it is" },
  pieces: [
    [7, ["", "\u00b7", "the"], "text"],
    [9, ["", "F0 9F"], "bytes"],
    [8, ["a"], "text"],
  ],
  tokens: [0, 1],
  logprobs: [-0.1, -5],
  alternatives: [
    [0, -0.1, 1, -3],
    [2, -0.2],
  ],
  ...more,
});

test("columns become tokens; the one that was taken is marked, or added where it was not likely", () => {
  const reading = new Reading(snapshot());
  const [first, second] = [reading.at(0), reading.at(1)];
  assert.deepEqual(
    first.alternatives.map(({ id, chosen }) => [id, chosen]),
    [
      [7, true],
      [9, false],
    ],
  );
  assert.deepEqual(
    second.alternatives.map(({ id, chosen, logprob }) => [id, chosen, logprob]),
    [
      [8, false, -0.2],
      [9, true, -5],
    ],
  );
  assert.deepEqual([first.level, second.level], [0, 4]);
  assert.deepEqual([reading.count, reading.pages, reading.most, reading.missing], [2, 1, 1 + 1, ""]);
});

test("a token in one sentence, marks as words", () => {
  const reading = new Reading(snapshot());
  assert.equal(
    described(reading.at(0)),
    "space the, id 7, probability 90 %, logprob \u22120.10, instead F0 9F 5.0 %",
  );
  assert.equal(
    described(reading.at(1)),
    "F0 9F, id 9, bytes, probability 0.7 %, logprob \u22125.00, instead a 82 %",
  );
  assert.equal(spoken({ runs: ["", "\u23ce\u21e5", "x"] }), "newline tab x");
  assert.equal(spoken({ runs: ["a\u00b7b"] }), "a\u00b7b", "a dot that is written is no space");
});

test("numbers are the same as in Python (tests/views/test_tokens.py)", () => {
  const told = [0, -0.001, Math.log(0.5), Math.log(0.1), Math.log(0.04), -40, -999, null].map((value) => [
    logprob(value),
    chance(value),
  ]);
  assert.deepEqual(told, [
    ["0.00", "100 %"],
    ["0.00", "100 %"],
    ["\u22120.69", "50 %"],
    ["\u22122.30", "10 %"],
    ["\u22123.22", "4.0 %"],
    ["\u221240.00", "< 0.1 %"],
    ["\u2212\u221e", "< 0.1 %"],
    ["n/a", "n/a"],
  ]);
});

test("a prompt has no alternatives; what is left out is said", () => {
  const tokens = Array.from({ length: PAGE + 1 }, () => 0);
  const reading = new Reading(
    snapshot({
      source: "prompt",
      tokens,
      logprobs: tokens.map(() => null),
      alternatives: tokens.map(() => []),
      total: 90_000,
    }),
  );
  assert.deepEqual([reading.pages, reading.most, reading.answer], [2, 0, false]);
  assert.deepEqual(reading.at(PAGE).alternatives, []);
  assert.match(reading.missing, /^The first 501 of 90,000 tokens/);
});

test("what is of another form is refused or drawn as unknown, never thrown in the middle", () => {
  for (const bad of [null, {}, { version: 2 }, snapshot({ pieces: "x" }), snapshot({ tokens: null })])
    assert.throws(() => new Reading(bad), TypeError);
  const odd = new Reading(
    snapshot({
      tokens: [99, 0],
      logprobs: ["x", 5],
      alternatives: [null],
      pieces: [[null, ["\u001b\u202e"], "text"]],
    }),
  );
  assert.deepEqual(odd.at(0).runs, ["", "?"]);
  assert.equal(odd.at(0).logprob, null);
  assert.equal(odd.at(1).logprob, 0);
  assert.equal(odd.at(1).runs.join("").includes("\u001b"), false);
  assert.match(described(odd.at(1)), /no id/);
});
