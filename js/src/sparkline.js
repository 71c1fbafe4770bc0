/** The visible window in a few pixels, under the figure that says it in words: a line, or a dot for each call. */

import { runs } from "./columns.js";
import { h } from "./dom.js";

/** @import { Look, Theme } from "./theme.js" */
/** @import { Column } from "./columns.js" */

const HEIGHT = 22;
const DOT = 2;

export class Sparkline {
  el = h("canvas", { class: "ll-spark", "aria-hidden": "true" });
  #stamp = "";

  /**
   * `make` is called only when `version`, the range or the theme is another than before.
   *
   * @param {{
   *   version: number, range: readonly [number, number], width: number, theme: Theme, look: Look,
   *   make: () => { t: readonly number[], values: Column, max: number, dots?: boolean },
   * }} drawing
   */
  render({ version, range, width, theme, look, make }) {
    const stamp = `${version}|${range}|${width}|${theme.version}|${devicePixelRatio}`;
    if (stamp === this.#stamp) return;
    const across = this.el.clientWidth;
    const ctx = this.el.getContext("2d");
    if (!ctx || across === 0) return;
    this.#stamp = stamp;
    const ratio = Math.max(1, devicePixelRatio);
    // Setting the size also wipes what was drawn.
    this.el.width = Math.round(across * ratio);
    this.el.height = Math.round(HEIGHT * ratio);
    ctx.scale(ratio, ratio);
    const { t, values, max, dots = false } = make();
    const [from, to] = range;
    const x = (/** @type {number} */ at) => ((at - from) / (to - from)) * across;
    const y = (/** @type {number} */ value) =>
      HEIGHT - 1.5 - (Math.min(value, max) / (max || 1)) * (HEIGHT - 4);
    ctx.fillStyle = theme.grid;
    ctx.fillRect(0, HEIGHT - 1, across, 1);
    ctx.strokeStyle = ctx.fillStyle = theme.color(look);
    ctx.lineWidth = 1.25;
    ctx.lineJoin = "round";
    if (dots) {
      t.forEach((at, i) => {
        const value = values[i];
        if (value == null || at < from || at > to) return;
        ctx.beginPath();
        ctx.arc(Math.min(across - DOT, Math.max(DOT, x(at))), y(value), DOT, 0, 7);
        ctx.fill();
      });
      return;
    }
    for (const [first, last] of runs(values)) {
      const line = new Path2D();
      for (let i = first; i <= last; i++) line.lineTo(x(t[i] ?? 0), y(values[i] ?? 0));
      ctx.stroke(line);
      line.lineTo(x(t[last] ?? 0), HEIGHT - 1);
      line.lineTo(x(t[first] ?? 0), HEIGHT - 1);
      ctx.globalAlpha = 0.16;
      ctx.fill(line);
      ctx.globalAlpha = 1;
    }
  }
}
