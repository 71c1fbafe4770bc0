/**
 * One panel's chart: uPlot with the shared time axis, cursor, selection and keys.
 *
 * uPlot only draws; what is on screen (range, cursor, selection) comes from the store, so that all panels agree.
 */

import uPlot from "uplot";
import { GUTTER, MARGIN, timeTicks } from "./axis.js";
import { consume, h, setAttribute } from "./dom.js";
import { clock } from "./format.js";

/** @import { Store } from "./store.js" */
/** @import { Theme } from "./theme.js" */
/** @import { Column } from "./columns.js" */

/** @typedef {{ fill?: () => CanvasPattern | string, stroke: () => string, width: number, dash?: number[], step?: boolean }} Line */
/**
 * @typedef {{
 *   key: string, version: number, t: number[], values: Column[], lines: Line[], max: number, ticks: number[],
 *   format: (value: number) => string, range: readonly [number, number], width: number,
 *   band: readonly [number, number] | null, label: string, marks?: readonly Mark[],
 * }} Drawing
 * @typedef {{ value: number, dash: number[], ink: string, label?: string }} Mark A line at a value.
 */

export class Plot {
  el = h("div", { class: "ll-plot", role: "img", tabindex: 0 });
  /** @type {uPlot | null} */
  #plot = null;
  #key = "";
  #stamp = "";
  /** @type {Drawing | null} */
  #drawing = null;
  #applying = false;
  #store;
  #theme;
  #height;
  #time;
  #ticks;
  #least;

  /**
   * @param {{
   *   store: Store, theme: Theme, signal: AbortSignal, height: number, time?: boolean,
   *   onPick: (tMs: number) => void, ticks?: typeof timeTicks, least?: number,
   * }} options `time`: write the axis' labels under this panel; `ticks`: where its lines are; `least`: ms of the
   *   shortest range that can be drawn out
   */
  constructor({ store, theme, signal, height, time = false, onPick, ticks = timeTicks, least = 50 }) {
    this.#store = store;
    this.#theme = theme;
    this.#height = height;
    this.#time = time;
    this.#ticks = ticks;
    this.#least = least;
    this.el.style.height = `${height}px`;
    this.el.addEventListener("keydown", (event) => this.#onKey(event), { signal });
    this.el.addEventListener("click", () => this.#pick(onPick), { signal });
    signal.addEventListener("abort", () => this.#plot?.destroy(), { once: true });
  }

  /** @param {Drawing} drawing */
  render(drawing) {
    this.#drawing = drawing;
    setAttribute(this.el, "aria-label", drawing.label);
    const key = `${drawing.key} ${this.#theme.version} ${devicePixelRatio}`;
    if (!this.#plot || key !== this.#key) {
      this.#plot?.destroy();
      this.#plot = this.#make(drawing);
      this.#key = key;
    }
    const plot = this.#plot;
    // A moving cursor alone costs no drawing.
    const { version, range, width, max: top, band, marks = [] } = drawing;
    const stamp = [this.#key, version, range, width, top, band, ...marks.map((mark) => mark.value)].join("|");
    if (stamp === this.#stamp) {
      this.#showCursor(plot);
      return;
    }
    this.#stamp = stamp;
    if (plot.width !== drawing.width) plot.setSize({ width: drawing.width, height: this.#height });
    const [min, max] = range;
    plot.batch(() => {
      plot.setData([drawing.t, ...drawing.values], false);
      plot.setScale("x", { min, max });
    });
    this.#showCursor(plot);
  }

  /** @param {uPlot} plot */
  #showCursor(plot) {
    const { cursorMs } = this.#store.view;
    const [min, max] = this.#drawing?.range ?? [0, 1];
    const shown = cursorMs !== null && cursorMs >= min && cursorMs <= max;
    const inner = plot.over.clientWidth;
    this.#applying = true;
    plot.setCursor({ left: shown ? ((cursorMs - min) / (max - min)) * inner : -10, top: shown ? 1 : -10 });
    this.#applying = false;
  }

  /**
   * @param {Drawing} first
   * @returns {uPlot}
   */
  #make(first) {
    const theme = this.#theme;
    const now = () => this.#drawing ?? first;
    /** @type {uPlot.Options} */
    const options = {
      width: first.width,
      height: this.#height,
      ms: 1,
      legend: { show: false },
      padding: [8, MARGIN, this.#time ? 0 : 4, 0],
      scales: {
        x: { time: true },
        y: { range: () => [0, now().max] },
      },
      series: [
        {},
        ...first.lines.map((line) => ({
          stroke: line.stroke,
          width: line.width,
          points: { show: false },
          ...(line.fill && { fill: /** @type {any} */ (line.fill) }),
          ...(line.dash && { dash: line.dash }),
          ...(line.step && uPlot.paths.stepped && { paths: uPlot.paths.stepped({ align: 1 }) }),
        })),
      ],
      axes: [
        {
          size: this.#time ? 22 : 0,
          font: theme.font,
          stroke: theme.muted,
          gap: 6,
          grid: { stroke: theme.grid, width: 1 },
          ticks: { show: false },
          splits: (u, _axis, min, max) => this.#ticks(min, max, u.width - GUTTER - MARGIN),
          values: (u, splits) => splits.map((t) => (this.#time && roomFor(u, t) ? clock(t) : "")),
        },
        {
          size: GUTTER,
          font: theme.font,
          stroke: theme.muted,
          gap: 8,
          grid: { stroke: theme.grid, width: 1 },
          ticks: { show: false },
          splits: () => now().ticks,
          values: (_u, splits) => splits.map((value) => now().format(value)),
        },
      ],
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false, dist: 4 },
        bind: {
          dblclick: () => () => {
            this.#store.set({ follow: true, range: null });
            return null;
          },
        },
      },
      hooks: {
        drawClear: [(u) => this.#drawBand(u, false)],
        draw: [
          (u) => {
            this.#drawBand(u, true);
            for (const mark of this.#drawing?.marks ?? []) this.#drawMark(u, mark);
          },
        ],
        setCursor: [
          (u) => {
            if (this.#applying) return;
            const left = u.cursor.left ?? -1;
            this.#store.set({ cursorMs: left < 0 ? null : u.posToVal(left, "x") });
          },
        ],
        setSelect: [
          (u) => {
            const { left, width } = u.select;
            if (width < 4) return;
            const range = /** @type {const} */ ([u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            if (range[1] - range[0] > this.#least) this.#store.set({ follow: false, range });
          },
        ],
      },
    };
    return new uPlot(options, [first.t, ...first.values], this.el);
  }

  /**
   * The selected span's time: its area behind the lines, its edges in front.
   *
   * @param {uPlot} u
   * @param {boolean} edges
   */
  #drawBand(u, edges) {
    const band = this.#drawing?.band;
    if (!band) return;
    const { left, top, width, height } = u.bbox;
    const at = (/** @type {number} */ t) => Math.min(left + width, Math.max(left, u.valToPos(t, "x", true)));
    const [from, to] = [at(band[0]), at(band[1])];
    if (to <= left || from >= left + width) return;
    u.ctx.save();
    u.ctx.fillStyle = this.#theme.accent;
    if (edges) {
      u.ctx.fillRect(from, top, uPlot.pxRatio, height);
      u.ctx.fillRect(to, top, uPlot.pxRatio, height);
    } else {
      u.ctx.globalAlpha = 0.14;
      u.ctx.fillRect(from, top, Math.max(1, to - from), height);
    }
    u.ctx.restore();
  }

  /**
   * A dashed line from edge to edge, its label above it at the right, or below where there is no room.
   *
   * @param {uPlot} u
   * @param {Mark} mark
   */
  #drawMark(u, { value, dash, ink, label }) {
    const { left, top, width } = u.bbox;
    const ratio = uPlot.pxRatio;
    const y = Math.round(u.valToPos(value, "y", true)) + 0.5;
    const ctx = u.ctx;
    ctx.save();
    ctx.strokeStyle = ink;
    ctx.lineWidth = ratio;
    ctx.setLineDash(dash.map((length) => length * ratio));
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(left + width, y);
    ctx.stroke();
    if (label) {
      ctx.font = this.#theme.font.replace(/^\d+/, (size) => `${Number(size) * ratio}`);
      const across = ctx.measureText(label).width + 8 * ratio;
      const height = 15 * ratio;
      const under = y - height - ratio < top;
      const at = under ? y + 2 * ratio : y - height - ratio;
      ctx.fillStyle = this.#theme.ground;
      ctx.globalAlpha = 0.86;
      ctx.fillRect(left + width - across, at, across, height);
      ctx.globalAlpha = 1;
      ctx.fillStyle = ink;
      ctx.textAlign = "right";
      ctx.textBaseline = "middle";
      ctx.fillText(label, left + width - 4 * ratio, at + height / 2);
    }
    ctx.restore();
  }

  /** @param {(tMs: number) => void} onPick */
  #pick(onPick) {
    const left = this.#plot?.cursor.left ?? -1;
    if (this.#plot && left >= 0) onPick(this.#plot.posToVal(left, "x"));
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const drawing = this.#drawing;
    if (!drawing || event.ctrlKey || event.metaKey || event.altKey) return;
    const [min, max] = drawing.range;
    const step = ((max - min) / 60) * (event.shiftKey ? 5 : 1);
    const at = this.#store.view.cursorMs ?? max;
    /** @type {Record<string, number>} */
    const moves = { ArrowLeft: at - step, ArrowRight: at + step, Home: min, End: max };
    const to = moves[event.key];
    if (to === undefined) return;
    consume(event);
    this.#store.set({ cursorMs: Math.min(max, Math.max(min, to)) });
  }
}

/**
 * A label that would be cut off at the right edge is left out.
 *
 * @param {uPlot} u
 * @param {number} t
 */
function roomFor(u, t) {
  const { min = 0, max = 1 } = u.scales["x"] ?? {};
  return ((max - t) / (max - min)) * (u.width - GUTTER - MARGIN) > 18;
}
