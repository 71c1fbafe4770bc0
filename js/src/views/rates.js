/** A panel of lines over time: tokens per second, or slots. */

import { valueTicks } from "../axis.js";
import { own } from "../believed.js";
import { cut, maximum } from "../columns.js";
import { h, keyed, setText } from "../dom.js";
import { count, plain, rate } from "../format.js";
import { Plot } from "../plot.js";
import { SPANS } from "../theme.js";

/** @import { Frame, Shared } from "../dashboard.js" */
/** @import { Look } from "../theme.js" */
/** @import { Series } from "../types.js" */

/** @typedef {{ label: string, look: Look | undefined, dash: number[] }} LineLook */

/** By the last part of a series' id. @type {Record<string, LineLook>} */
const LINES = {
  decode: { label: "output", look: SPANS["decode"], dash: [] },
  input: { label: "input", look: SPANS["prefill"], dash: [5, 3] },
  busy: { label: "busy", look: SPANS["chat"], dash: [] },
  queued: { label: "queued", look: SPANS["queue"], dash: [2, 3] },
};
const UNKNOWN = { label: "", look: SPANS["other"], dash: [1, 3] };

export class Rates {
  el;
  #plot;
  #group;
  #counted;
  #list = h("ul", { class: "ll-owners" });
  /** @type {Map<string, HTMLLIElement>} */
  #rows = new Map();
  #title;
  #empty = h("p", { class: "ll-empty" }, "No samples of a server yet.");

  /**
   * @param {Shared} shared
   * @param {{ group: string, title: string, height: number, counted: boolean, time?: boolean }} options `counted`:
   *   whole things that stay until they change, drawn as steps
   */
  constructor(shared, { group, title, height, counted, time = false }) {
    this.#group = group;
    this.#counted = counted;
    this.#title = title;
    this.#plot = new Plot({ ...shared, height, time });
    this.el = h(
      "section",
      { class: `ll-panel ll-${group}`, "aria-label": title },
      h("h3", {}, title),
      h("div", { class: "ll-chart" }, this.#plot.el, this.#empty),
      h("div", { class: "ll-side" }, this.#list),
    );
  }

  /** @param {Frame} frame */
  render({ history, state, range, width, theme, band, cursorRow }) {
    const found = history.series
      .map((series, column) => ({ series, column, ...lineOf(series) }))
      .filter(({ series }) => series.group === this.#group);
    this.#empty.hidden = found.length > 0;
    this.#plot.el.hidden = found.length === 0;
    const several = new Set(found.map(({ series }) => series.server)).size > 1;
    const cutout = cut(
      history,
      found.map(({ column }) => column),
      range,
    );
    const slots = this.#group === "slots" ? (state.server?.slots ?? 1) : 0;
    const max = Math.max(maximum(cutout.values) * 1.12, slots * 1.12, this.#counted ? 1 : 10);
    const format = this.#counted ? count : rate;
    const value = (/** @type {number} */ column) => format(history.valueAt(column, cursorRow));
    this.#plot.render({
      key: found.map(({ series }) => series.id).join(),
      version: history.version,
      t: cutout.t,
      values: cutout.values,
      lines: found.map(({ look, dash }, index) => ({
        stroke: look ? theme.color(look) : theme.ink,
        width: 1.75,
        dash,
        step: this.#counted,
        ...(index === 0 && look && { fill: `${theme.color(look)}26` }),
      })),
      max,
      ticks: valueTicks(max, 3, 1000, this.#counted ? 1 : 0),
      format: (v) => count(v),
      range,
      width,
      band,
      label: `${this.#title}: ${found.map(({ label, column }) => `${label} ${value(column)}`).join(", ") || "no samples"}`,
    });
    keyed(
      this.#list,
      this.#rows,
      found,
      ({ series }) => series.id,
      ({ label, dash, series }) => {
        const name = several ? `${plain(series.server)} ${label}` : label;
        const swatch = h("span", {
          class: "ll-stroke",
          "data-dash": dash.join() || null,
          "aria-hidden": "true",
        });
        const row = h("span", { class: "ll-owner" }, swatch, h("span", { class: "ll-name" }, name));
        row.append(
          h("span", { class: "ll-note" }),
          h("span", { class: "ll-value", "data-series": series.id }),
        );
        return h("li", {}, row);
      },
      (el, { column, look }) => {
        const swatch = /** @type {HTMLElement} */ (el.firstElementChild?.firstElementChild);
        swatch.style.color = look ? theme.color(look) : theme.ink;
        const shown = el.querySelector(".ll-value");
        if (shown) setText(shown, value(column));
      },
    );
  }
}

/** @param {Series} series @returns {LineLook} */
function lineOf(series) {
  const last = series.id.slice(series.id.lastIndexOf("/") + 1);
  return own(LINES, last) ?? { ...UNKNOWN, label: plain(series.label ?? last) };
}
