import assert from "node:assert/strict";
import { test } from "node:test";
import { TimeAxis } from "../src/gestures.js";
import { Store } from "../src/store.js";

const axis = (restsOnWhole = false) => {
  const store = new Store();
  const seen = () => store.view.range ?? /** @type {const} */ ([400, 500]);
  return {
    store,
    axis: new TimeAxis(store, { range: seen, whole: () => [0, 1000], least: 10, restsOnWhole }),
  };
};

test("what is pointed at stays where it is", () => {
  const { store, axis: it } = axis();
  it.zoom(0.5, 420);
  assert.deepEqual(store.view.range, [410, 460]);
  it.zoom(2, 420);
  assert.deepEqual(store.view.range, [400, 500]);
  for (let i = 0; i < 20; i++) it.zoom(0.5, 420);
  assert.equal((store.view.range?.[1] ?? 0) - (store.view.range?.[0] ?? 0), 10);
});

test("nothing beyond what there is", () => {
  const { store, axis: it } = axis();
  it.move(100);
  assert.deepEqual(store.view.range, [900, 1000]);
  it.move(-100);
  assert.deepEqual(store.view.range, [0, 100]);
  it.show(-500, 3000);
  assert.deepEqual([store.view.range, store.view.follow], [[0, 1000], false]);
  it.reset();
  assert.deepEqual([store.view.range, store.view.follow], [null, true]);
  const whole = axis(true);
  whole.axis.show(-500, 3000);
  assert.equal(whole.store.view.range, null);
  it.show(5, 6);
  assert.equal(store.view.range, null);
});
