/**
 * One panel's chart: lines and areas on a canvas with the shared time axis, cursor, selection and keys.
 *
 * What is on screen (range, cursor, selection) comes from the store, so that all panels agree. A moving cursor is an
 * element above the canvas: it costs no drawing.
 */

import { GUTTER, MARGIN, timeTicks } from "./axis.js";
import { consume, h, setAttribute } from "./dom.js";
import { clock } from "./format.js";
import { gestures } from "./gestures.js";
import { follow, paths } from "./paths.js";

/** @import { TimeAxis } from "./gestures.js" */
/** @import { Store } from "./store.js" */
/** @import { Theme } from "./theme.js" */
/** @import { Column } from "./columns.js" */

/** @typedef {{ fill?: CanvasPattern | string, stroke: string, width: number, dash?: number[], step?: boolean }} Line */
/**
 * @typedef {{
 *   key: string, version: number, t: number[], values: Column[], lines: Line[], max: number, ticks: number[],
 *   format: (value: number) => string, range: readonly [number, number], width: number,
 *   band: readonly [number, number] | null, label: string, marks?: readonly Mark[],
 * }} Drawing
 * @typedef {{ value: number, dash: number[], ink: string, label?: string }} Mark A line at a value.
 * @typedef {{
 *   ctx: CanvasRenderingContext2D, ratio: number, left: number, top: number, width: number, height: number,
 *   x: (tMs: number) => number, y: (value: number) => number,
 * }} Field Where the lines are, in the canvas' pixels; text and lines are `ratio` times their size.
 */

const TOP = 8;
/** Space below the lines: with the axis' labels, and without. */
const [LABELS, BOTTOM] = [22, 4];

export class Plot {
  el = h("div", { class: "ll-plot", role: "img", tabindex: 0 });
  #canvas = h("canvas", { "aria-hidden": "true" });
  #over = h("div", { class: "ll-over" });
  #cursor = h("div", { class: "ll-plot-cursor", hidden: true });
  #stamp = "";
  /** @type {Drawing | null} */
  #drawing = null;
  #store;
  #axis;
  #theme;
  #height;
  #time;
  #ticks;

  /**
   * @param {{
   *   store: Store, axis: TimeAxis, theme: Theme, signal: AbortSignal, height: number, time?: boolean,
   *   onPick: (tMs: number) => void, ticks?: typeof timeTicks,
   * }} options `time`: write the axis' labels under this panel; `ticks`: where its lines are
   */
  constructor({ store, axis, theme, signal, height, time = false, onPick, ticks = timeTicks }) {
    this.#store = store;
    this.#theme = theme;
    this.#height = height;
    this.#time = time;
    this.#ticks = ticks;
    this.#axis = axis;
    this.el.style.height = `${height}px`;
    Object.assign(this.#over.style, {
      left: `${GUTTER}px`,
      right: `${MARGIN}px`,
      top: `${TOP}px`,
      bottom: `${time ? LABELS : BOTTOM}px`,
    });
    this.#over.append(this.#cursor);
    this.el.append(this.#canvas, this.#over);
    this.el.addEventListener("keydown", (event) => this.#onKey(event), { signal });
    gestures(this.#over, axis, {
      left: 0,
      inner: () => this.#over.clientWidth,
      signal,
      onCursor: (cursorMs) => store.set({ cursorMs }),
      onPick,
    });
  }

  /** @param {Drawing} drawing */
  render(drawing) {
    this.#drawing = drawing;
    setAttribute(this.el, "aria-label", drawing.label);
    const { key, version, range, width, max, band, marks = [] } = drawing;
    const looks = [this.#theme.version, devicePixelRatio, ...marks.map((mark) => mark.value)];
    const stamp = [key, version, range, width, max, band, ...looks].join("|");
    if (stamp !== this.#stamp) {
      this.#stamp = stamp;
      this.#draw(drawing);
    }
    this.#showCursor(drawing);
  }

  /** @param {Drawing} drawing */
  #showCursor({ range: [min, max], width }) {
    const { cursorMs } = this.#store.view;
    const shown = cursorMs !== null && cursorMs >= min && cursorMs <= max;
    this.#cursor.hidden = !shown;
    if (!shown) return;
    const left = ((cursorMs - min) / (max - min)) * (width - GUTTER - MARGIN);
    this.#cursor.style.transform = `translateX(${left.toFixed(1)}px)`;
  }

  /** @param {Drawing} drawing */
  #draw(drawing) {
    const canvas = this.#canvas;
    const ctx = canvas.getContext("2d");
    if (!ctx) return;
    const ratio = devicePixelRatio;
    canvas.width = Math.round(drawing.width * ratio); // empties it, too
    canvas.height = Math.round(this.#height * ratio);
    canvas.style.width = `${drawing.width}px`;
    canvas.style.height = `${this.#height}px`;
    const [left, top] = [GUTTER * ratio, TOP * ratio];
    const width = canvas.width - (GUTTER + MARGIN) * ratio;
    const height = canvas.height - (TOP + (this.#time ? LABELS : BOTTOM)) * ratio;
    const [from, to] = drawing.range;
    /** @type {Field} */
    const field = {
      ctx,
      ratio,
      left,
      top,
      width,
      height,
      x: (t) => left + ((t - from) / (to - from)) * width,
      y: (value) => top + height - (value / drawing.max) * height,
    };
    this.#drawAxes(field, drawing);
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    if (drawing.band) this.#drawBand(field, drawing.band, false);
    drawing.lines.forEach((line, i) => {
      drawLine(field, drawing.t, drawing.values[i] ?? [], line);
    });
    if (drawing.band) this.#drawBand(field, drawing.band, true);
    ctx.restore();
    for (const mark of drawing.marks ?? []) this.#drawMark(field, mark);
  }

  /**
   * @param {Field} field
   * @param {Drawing} drawing
   */
  #drawAxes({ ctx, ratio, left, top, width, height, x, y }, { range, ticks, format, width: outer }) {
    ctx.font = this.#font(ratio);
    ctx.fillStyle = this.#theme.muted;
    ctx.strokeStyle = this.#theme.grid;
    ctx.lineWidth = ratio;
    ctx.beginPath();
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    for (const t of this.#ticks(range[0], range[1], outer - GUTTER - MARGIN)) {
      const at = crisp(x(t), ratio);
      ctx.moveTo(at, top);
      ctx.lineTo(at, top + height);
      // A label that would be cut off at the right edge is left out.
      if (this.#time && left + width - at > 18 * ratio) ctx.fillText(clock(t), at, top + height + 7 * ratio);
    }
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    for (const value of ticks) {
      const at = crisp(y(value), ratio);
      ctx.moveTo(left, at);
      ctx.lineTo(left + width, at);
      ctx.fillText(format(value), left - 8 * ratio, at);
    }
    ctx.stroke();
  }

  /**
   * The selected span's time: its area behind the lines, its edges in front.
   *
   * @param {Field} field
   * @param {readonly [number, number]} band
   * @param {boolean} edges
   */
  #drawBand({ ctx, ratio, left, top, width, height, x }, band, edges) {
    const [from, to] = band.map((t) => Math.min(left + width, Math.max(left, x(t))));
    if (from === undefined || to === undefined || to <= left || from >= left + width) return;
    ctx.save();
    ctx.fillStyle = this.#theme.accent;
    if (edges) {
      ctx.fillRect(from, top, ratio, height);
      ctx.fillRect(to, top, ratio, height);
    } else {
      ctx.globalAlpha = 0.14;
      ctx.fillRect(from, top, Math.max(1, to - from), height);
    }
    ctx.restore();
  }

  /**
   * A dashed line from edge to edge, its label above it at the right, or below where there is no room.
   *
   * @param {Field} field
   * @param {Mark} mark
   */
  #drawMark({ ctx, ratio, left, top, width, y }, { value, dash, ink, label }) {
    const at = Math.round(y(value)) + 0.5;
    ctx.save();
    ctx.strokeStyle = ink;
    ctx.lineWidth = ratio;
    ctx.setLineDash(dash.map((length) => length * ratio));
    ctx.beginPath();
    ctx.moveTo(left, at);
    ctx.lineTo(left + width, at);
    ctx.stroke();
    if (label) {
      ctx.font = this.#font(ratio);
      const across = ctx.measureText(label).width + 8 * ratio;
      const height = 15 * ratio;
      const above = at - height - ratio;
      const box = above < top ? at + 2 * ratio : above;
      ctx.fillStyle = this.#theme.ground;
      ctx.globalAlpha = 0.86;
      ctx.fillRect(left + width - across, box, across, height);
      ctx.globalAlpha = 1;
      ctx.fillStyle = ink;
      ctx.textAlign = "right";
      ctx.textBaseline = "middle";
      ctx.fillText(label, left + width - 4 * ratio, box + height / 2);
    }
    ctx.restore();
  }

  /** @param {number} ratio The theme's font in the canvas' pixels. */
  #font(ratio) {
    return this.#theme.font.replace(/^\d+/, (size) => `${Number(size) * ratio}`);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const drawing = this.#drawing;
    if (!drawing || event.ctrlKey || event.metaKey || event.altKey) return;
    const [min, max] = drawing.range;
    const at = this.#store.view.cursorMs ?? max;
    if (this.#axis.onKey(event, at)) return;
    const step = (max - min) / 60;
    /** @type {Record<string, number>} */
    const moves = { ArrowLeft: at - step, ArrowRight: at + step, Home: min, End: max };
    const to = moves[event.key];
    if (to === undefined) return;
    consume(event);
    this.#store.set({ cursorMs: Math.min(max, Math.max(min, to)) });
  }
}

/**
 * @param {Field} field
 * @param {readonly number[]} t
 * @param {Column} values
 * @param {Line} line
 */
function drawLine({ ctx, ratio, x, y }, t, values, { fill, stroke, width, dash = [], step = false }) {
  const found = paths(t, values, x, y, step);
  if (fill) {
    const area = new Path2D();
    for (const points of found) follow(area, points, y(0));
    ctx.fillStyle = fill;
    ctx.fill(area);
  }
  const path = new Path2D();
  for (const points of found) follow(path, points);
  ctx.strokeStyle = stroke;
  ctx.lineWidth = width * ratio;
  ctx.lineJoin = "round";
  ctx.setLineDash(dash.map((length) => length * ratio));
  ctx.stroke(path);
  ctx.setLineDash([]);
}

/**
 * The middle of a line of pixels, so that a thin line is sharp.
 *
 * @param {number} px
 * @param {number} ratio
 */
function crisp(px, ratio) {
  const half = (Math.round(ratio) % 2) / 2;
  return Math.round(px - half) + half;
}
