/** What the devices did meanwhile, on the axis of the trace above: memory of each, how busy and at what power. */

import { ticksFrom, valueTicks } from "../axis.js";
import { cut, maximum, stack } from "../columns.js";
import { h, keyed, setText } from "../dom.js";
import { bytes, NA, percent, plain } from "../format.js";
import { Plot } from "../plot.js";
import { OWNERS, SPANS } from "../theme.js";

/** @import { Shared } from "../dashboard.js" */
/** @import { Column } from "../columns.js" */
/** @import { TimeAxis } from "../gestures.js" */
/** @import { History } from "../history.js" */
/** @import { Store } from "../store.js" */
/** @import { Look } from "../theme.js" */
/** @import { Device } from "../types.js" */

const HEIGHT = 52;
const MOST = 8;
const DASHES = [[], [5, 3], [2, 3], [8, 3, 2, 3]];

/**
 * @typedef {{
 *   key: string, title: string, look: Look | undefined, base: 1000 | 1024, format: (value: number | null) => string,
 *   lines: { name: string, columns: number[] }[],
 * }} Lane Its lines are sums of columns of the history.
 * @typedef {{
 *   history: History, devices: readonly Device[], range: readonly [number, number], origin: number, width: number,
 *   band: readonly [number, number] | null,
 * }} Drawing
 */

export class Lanes {
  el = h("div", { class: "ll-lanes" });
  #list = h("div");
  #empty = h("p", { class: "ll-empty", "data-field": "no-samples" }, "No samples of this time.");
  /** @type {Map<string, HTMLElement>} */
  #known = new Map();
  /** @type {Map<string, Plot>} */
  #plots = new Map();
  #shared;
  #store;
  #axis;
  #onPick;
  #origin = 0;

  /**
   * @param {Shared} shared
   * @param {Store} store what is seen of the trace, and its cursor
   * @param {TimeAxis} axis
   * @param {(tMs: number) => void} onPick
   */
  constructor(shared, store, axis, onPick) {
    this.#shared = shared;
    this.#store = store;
    this.#axis = axis;
    this.#onPick = onPick;
    this.el.append(h("h3", {}, "Devices"), this.#list, this.#empty);
  }

  /** @param {Drawing} drawing */
  render({ history, devices, range, origin, width, band }) {
    const lanes = lanesOf(history, devices);
    this.#empty.hidden = lanes.length > 0;
    this.#origin = origin;
    const row = history.rowAt(this.#store.view.cursorMs ?? range[1]);
    keyed(
      this.#list,
      this.#known,
      lanes,
      ({ key }) => key,
      ({ key, title }) => this.#make(key, title),
      (el, lane) => {
        const every = lane.lines.map((line) => line.columns);
        const { t, values } = cut(history, every.flat(), range);
        const sums = every.map((columns) => stack(values.splice(0, columns.length)).at(-1) ?? []);
        const max = Math.max(maximum(sums) * 1.12, lane.key === "util" ? 1 : 1e-9);
        const said = lane.lines.map(({ name, columns }, i) => {
          const value =
            this.#store.view.cursorMs === null ? peak(sums[i] ?? []) : sumAt(history, columns, row);
          return `${name ? `${name} ` : ""}${lane.format(value)}`;
        });
        const when = this.#store.view.cursorMs === null ? "at most " : "";
        setText(/** @type {Element} */ (el.lastElementChild?.lastElementChild), `${when}${said.join(", ")}`);
        const { look } = lane;
        const { theme } = this.#shared;
        this.#plots.get(lane.key)?.render({
          key: every.join("|"),
          version: history.version,
          t,
          values: sums,
          lines: sums.map((_, i) => ({
            stroke: look ? theme.color(look) : theme.ink,
            width: 1.5,
            dash: DASHES[i % DASHES.length] ?? [],
            ...(look && i === 0 && { fill: `${theme.color(look)}33` }),
          })),
          max,
          ticks: valueTicks(max, 2, lane.base),
          format: (value) => (value === 0 ? "0" : lane.format(value)),
          range,
          width,
          band,
          label: `${lane.title}: ${when}${said.join(", ")}`,
        });
      },
    );
    for (const key of this.#plots.keys()) if (!this.#known.has(key)) this.#plots.delete(key);
  }

  /**
   * @param {string} key
   * @param {string} title
   */
  #make(key, title) {
    const plot = new Plot({
      store: this.#store,
      axis: this.#axis,
      theme: this.#shared.theme,
      signal: this.#shared.signal,
      height: HEIGHT,
      onPick: this.#onPick,
      ticks: (from, to, width) => ticksFrom(this.#origin, [from, to], width),
    });
    this.#plots.set(key, plot);
    const side = h("div", { class: "ll-side" }, h("span", { class: "ll-name" }, title), h("span"));
    return h("div", { class: "ll-lane", "data-lane": key }, plot.el, side);
  }
}

/**
 * @param {History} history
 * @param {readonly Device[]} devices
 * @returns {Lane[]}
 */
function lanesOf(history, devices) {
  const named = new Map(devices.map((device) => [device.id, plain(device.name)]));
  /** @type {Map<string, number[]>} */
  const memory = new Map();
  history.series.forEach(({ group, device, owner }, column) => {
    if (group !== "memory" || !device || owner === "free") return;
    memory.get(device)?.push(column) ?? memory.set(device, [column]);
  });
  /** @type {Lane[]} */
  const lanes = [...memory].slice(0, MOST).map(([device, columns]) => ({
    key: `memory/${device}`,
    title: `${named.get(device) ?? (device === "host" ? "host memory" : plain(device))} used`,
    look: OWNERS["weights"],
    base: 1024,
    format: bytes,
    lines: [{ name: "", columns }],
  }));
  const short = (/** @type {string | null | undefined} */ id) =>
    named.get(id ?? "")?.split(" \u00b7 ")[0] ?? plain(id);
  for (const [
    group,
    title,
    look,
    format,
  ] of /** @type {[string, string, Look | undefined, Lane["format"]][]} */ ([
    ["util", "GPU busy", SPANS["decode"], percent],
    ["power", "power", OWNERS["kv"], (value) => (value === null ? NA : `${value.toFixed(0)} W`)],
  ])) {
    const found = history.series.flatMap((one, column) => (one.group === group ? [{ one, column }] : []));
    const lines = found.slice(0, MOST).map(({ one, column }) => ({
      name: found.length > 1 ? short(one.device) : "",
      columns: [column],
    }));
    if (lines.length > 0) lanes.push({ key: group, title, look, base: 1000, format, lines });
  }
  return lanes;
}

/** @param {Column} values */
function peak(values) {
  const there = values.filter((value) => value !== null);
  return there.length > 0 ? there.reduce((a, b) => Math.max(a, b)) : null;
}

/**
 * @param {History} history
 * @param {readonly number[]} columns
 * @param {number} row
 */
function sumAt(history, columns, row) {
  const there = columns.map((column) => history.valueAt(column, row)).filter((value) => value !== null);
  return there.length > 0 ? there.reduce((a, b) => a + b, 0) : null;
}
