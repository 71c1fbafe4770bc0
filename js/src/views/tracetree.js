/** The waterfall of one trace on an axis of its own, which is zoomed on the page: spans, critical path, tokens' gaps. */

import { GUTTER, MARGIN, ticksFrom } from "../axis.js";
import { criticalPath } from "../critical.js";
import { consume, h, keyed, setAttribute, setText } from "../dom.js";
import { duration, plain } from "../format.js";
import { gestures, TimeAxis } from "../gestures.js";
import { Rows } from "../rows.js";
import { SPANS, spanKind } from "../theme.js";
import { inOrder } from "../tree.js";

/** @import { Shared } from "../dashboard.js" */
/** @import { Store } from "../store.js" */
/** @import { Piece } from "../critical.js" */
/** @import { Row } from "../tree.js" */
/** @import { Span, WholeSpan } from "../types.js" */

/** @typedef {{ row: Row, gaps: number[] | null, words: string }} Item `gaps`: the strip of that span's tokens, below it */

const ROW_PX = 20;
const NARROW_ROW_PX = 36;
/** Below this the name is above the bar, as in the style sheet. */
const NARROW_PX = 560;
const MAX_INDENT = 12;
/** Pieces of a path that are nearer than this are one on the screen. */
const TOUCHING_PX = 3;
/** A range is never shorter. */
const LEAST_MS = 0.01;
let made = 0;

export class TraceTree {
  el;
  axis;
  #shared;
  #store;
  #prefix;
  /** @type {readonly WholeSpan[]} */
  #spans = [];
  /** @type {readonly Item[]} */
  #items = [];
  /** @type {Map<string, Piece[]>} */
  #critical = new Map();
  /** @type {readonly [number, number]} The whole trace. */
  #whole = [0, 1];
  #width = 0;
  #rows;
  #labels = h("div", { class: "ll-axis", "aria-hidden": "true" });
  #lines = h("div", { class: "ll-lines", "aria-hidden": "true" });
  /** @type {Map<string, HTMLElement>} */
  #labelByTick = new Map();
  /** @type {Map<string, HTMLElement>} */
  #lineByTick = new Map();
  #cursor = h("div", { class: "ll-cursor", "aria-hidden": "true" });
  #tracks;
  #facts = h("span", { class: "ll-legend", "data-field": "critical" });
  #note = h("p", { class: "ll-note", "data-field": "tree-note", hidden: true });
  #pointer;
  #narrow = false;

  /**
   * @param {Shared} shared
   * @param {Store} store what is seen of the trace, and its cursor
   */
  constructor(shared, store) {
    const { signal } = shared;
    made += 1;
    this.#prefix = `ll-tree-${made}`;
    this.#shared = shared;
    this.#store = store;
    this.axis = new TimeAxis(store, {
      range: () => this.range,
      whole: () => this.#whole,
      least: LEAST_MS,
      restsOnWhole: true,
    });
    this.#rows = new Rows({
      make: (index) => this.#make(index),
      update: (el, index) => this.#update(el, index),
      signal,
    });
    for (const [name, value] of Object.entries({
      role: "listbox",
      tabindex: 0,
      "aria-label": "Spans of the trace",
    }))
      setAttribute(this.#rows.el, name, value);
    const reset = h("button", { type: "button", class: "ll-button" }, "Whole trace");
    reset.addEventListener("click", () => this.axis.reset(), { signal });
    setAttribute(
      reset,
      "title",
      "Drag, Ctrl and wheel, + and \u2212 look closer; a double click or 0 shows all",
    );
    this.#tracks = h("div", { class: "ll-tracks" }, this.#lines, this.#rows.el, this.#cursor);
    this.el = h(
      "div",
      { class: "ll-tree" },
      h("h3", {}, h("span", {}, "Trace"), reset, this.#facts),
      this.#labels,
      this.#tracks,
      this.#note,
    );
    this.#rows.el.addEventListener("keydown", (event) => this.#onKey(event), { signal });
    this.#pointer = gestures(this.#tracks, this.axis, {
      left: GUTTER,
      inner: () => this.#inner,
      signal,
      onCursor: (cursorMs) => store.set({ cursorMs }),
    });
  }

  /** What is on screen, Unix ms. */
  get range() {
    return this.#store.view.range ?? this.#whole;
  }

  /** Width of the axis and its gutters, px; 0 while it is not on the page. */
  get width() {
    return this.#labels.clientWidth;
  }

  focus() {
    this.#rows.el.focus();
  }

  /** @param {readonly WholeSpan[]} spans of the trace; another array when anything is another */
  render(spans) {
    if (spans !== this.#spans) this.#arrange(spans);
    this.#width = this.width;
    this.#narrow = this.el.clientWidth <= NARROW_PX;
    if (this.#width < 120) return;
    this.#renderAxis();
    this.#rows.render(this.#items.length, this.#narrow ? NARROW_ROW_PX : ROW_PX);
    const at = this.#at();
    setAttribute(this.#rows.el, "aria-activedescendant", at < 0 ? null : `${this.#prefix}-${at}`);
  }

  /** Scroll to the selected span. */
  reveal() {
    const at = this.#at();
    if (at >= 0) this.#rows.reveal(at);
  }

  /** @param {readonly WholeSpan[]} spans */
  #arrange(spans) {
    this.#spans = spans;
    const rows = inOrder(spans);
    this.#items = rows.flatMap((row) => {
      const span = /** @type {WholeSpan} */ (row.span);
      const gaps = span.gaps_s;
      /** @type {Item[]} */
      const items = [{ row, gaps: null, words: "" }];
      if (gaps?.length) items.push({ row, gaps, words: gapsInWords(gaps, span) });
      return items;
    });
    this.#critical = criticalPath(spans);
    const start = spans.reduce((t, span) => Math.min(t, span.start_ms), Number.POSITIVE_INFINITY);
    const end = spans.reduce((t, span) => Math.max(t, span.end_ms), start);
    const room = Math.max((end - start) * 0.01, LEAST_MS);
    this.#whole = [start - room, end + room];
    const deepest = rows.reduce((depth, row) => Math.max(depth, row.depth), 0);
    const cut = rows.some((row) => row.cut);
    const notes = [
      cut && "The parents of some spans lead back to themselves: shown from the earliest one on.",
      deepest > MAX_INDENT && `${deepest + 1} levels deep; indented up to ${MAX_INDENT}.`,
    ];
    this.#note.hidden = !notes.some(Boolean);
    setText(this.#note, notes.filter(Boolean).join(" "));
    const sum = [...this.#critical.values()].flat().reduce((ms, [from, to]) => ms + to - from, 0);
    setText(
      this.#facts,
      `${spans.length === 1 ? "1 span" : `${spans.length} spans`}, ${duration((end - start) / 1000)} \u00b7 \u2501 critical path: ${this.#critical.size} spans, ${duration(sum / 1000)}`,
    );
  }

  #renderAxis() {
    const [from, to] = this.range;
    const inner = this.#inner;
    const origin = this.#origin;
    const ticks = ticksFrom(origin, [from, to], inner);
    const place = (/** @type {HTMLElement} */ el, /** @type {number} */ tick) => {
      el.style.transform = `translateX(${GUTTER + this.#x(tick)}px)`;
    };
    keyed(this.#lines, this.#lineByTick, ticks, String, () => h("i"), place);
    keyed(
      this.#labels,
      this.#labelByTick,
      ticks,
      String,
      () => h("span"),
      (el, tick) => {
        place(el, tick);
        setText(el, Math.abs(tick - origin) < 1e-6 ? "0" : duration((tick - origin) / 1000));
      },
    );
    const { cursorMs } = this.#store.view;
    const shown = cursorMs !== null && cursorMs >= from && cursorMs <= to;
    this.#cursor.hidden = !shown;
    if (shown) this.#cursor.style.transform = `translateX(${GUTTER + this.#x(cursorMs)}px)`;
  }

  get #inner() {
    return this.#width - GUTTER - MARGIN;
  }

  /** Where the axis has its 0: the start of the trace. */
  get #origin() {
    return this.#items[0]?.row.span.start_ms ?? 0;
  }

  /** @param {number} t Unix ms @returns {number} px from the gutter, within the axis */
  #x(t) {
    const [from, to] = this.range;
    return ((Math.min(to, Math.max(from, t)) - from) / (to - from)) * this.#inner;
  }

  #at() {
    const { selected } = this.#shared.store.view;
    return this.#items.findIndex(({ row, gaps }) => gaps === null && row.span.span_id === selected);
  }

  /** @param {number} index */
  #make(index) {
    const row = h(
      "div",
      { class: "ll-span", role: "option", id: `${this.#prefix}-${index}` },
      h("span", { class: "ll-track" }, h("span", { class: "ll-span-bar" }), h("canvas", { height: 14 })),
      h("span", { class: "ll-span-name" }),
      h("span", { class: "ll-span-time" }),
    );
    row.addEventListener("click", () => {
      const span = this.#items[index]?.row.span;
      if (span && !this.#pointer.dragged) this.#shared.store.set({ selected: span.span_id });
    });
    return row;
  }

  /**
   * @param {HTMLElement} el
   * @param {number} index
   */
  #update(el, index) {
    const item = this.#items[index];
    const [track, name, time] = /** @type {HTMLElement[]} */ ([...el.children]);
    const [bar, strip] = /** @type {[HTMLElement, HTMLCanvasElement]} */ ([...(track?.children ?? [])]);
    if (!item || !track || !name || !time) return;
    const { span, depth } = item.row;
    track.style.width = `${this.#width}px`;
    name.style.paddingLeft = item.gaps ? "0" : `${Math.min(depth, MAX_INDENT) * 10}px`;
    bar.hidden = item.gaps !== null;
    strip.hidden = item.gaps === null;
    time.hidden = item.gaps !== null;
    const chosen = item.gaps === null && span.span_id === this.#shared.store.view.selected;
    setAttribute(el, "aria-selected", String(chosen));
    setAttribute(el, "aria-setsize", this.#items.length);
    setAttribute(el, "aria-posinset", index + 1);
    setAttribute(el, "data-depth", depth);
    setAttribute(el, "data-strip", item.gaps !== null);
    const path = this.#critical.get(span.span_id);
    setAttribute(el, "data-critical", path !== undefined && item.gaps === null);
    if (item.gaps) {
      setText(name, item.words);
      setAttribute(el, "title", `Times between the tokens: ${item.words}`);
      this.#drawGaps(strip, item.gaps, span);
      return;
    }
    setAttribute(el, "title", null);
    const failed = span.status === "error";
    const look = SPANS[failed ? "error" : spanKind(span.name)] ?? SPANS["other"];
    const [left, right] = [this.#x(span.start_ms), this.#x(span.end_ms)];
    bar.style.transform = `translateX(${GUTTER + left}px)`;
    bar.style.width = `${Math.max(2, right - left)}px`;
    if (look) bar.style.backgroundColor = this.#shared.theme.color(look);
    this.#drawPath(bar, path ?? [], left);
    setText(name, `${failed ? "\u2715 " : ""}${path ? "\u2501 " : ""}${plain(span.name)}`);
    setText(time, duration((span.end_ms - span.start_ms) / 1000));
  }

  /**
   * A line in the bar where the span is on the critical path; pieces that touch on the screen are one.
   *
   * @param {HTMLElement} bar
   * @param {readonly Piece[]} pieces
   * @param {number} left
   */
  #drawPath(bar, pieces, left) {
    const [from, to] = this.range;
    const scale = this.#inner / (to - from);
    /** @type {[number, number][]} */
    const drawn = [];
    for (const [a, b] of pieces) {
      if (b < from || a > to) continue;
      const [start, end] = [(Math.max(a, from) - from) * scale, (Math.min(b, to) - from) * scale];
      const last = drawn.at(-1);
      if (last && start - last[1] < TOUCHING_PX) last[1] = end;
      else drawn.push([start, end]);
    }
    while (bar.childElementCount > drawn.length) bar.lastChild?.remove();
    while (bar.childElementCount < drawn.length) bar.append(h("i"));
    drawn.forEach(([a, b], i) => {
      const piece = /** @type {HTMLElement} */ (bar.children[i]);
      piece.style.left = `${a - left}px`;
      piece.style.width = `${Math.max(1, b - a)}px`;
    });
  }

  /**
   * One tick a token: where the answer stood still, there is a hole.
   *
   * @param {HTMLCanvasElement} canvas
   * @param {readonly number[]} gaps
   * @param {Span} span
   */
  #drawGaps(canvas, gaps, span) {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(this.#width * ratio), Math.round(14 * ratio)];
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    canvas.style.width = `${this.#width}px`;
    const ctx = canvas.getContext("2d");
    if (!ctx) return;
    ctx.clearRect(0, 0, width, height);
    ctx.fillStyle = this.#shared.theme.ink;
    const [from, to] = this.range;
    let t = span.start_ms + (span.ttft_s ?? 0) * 1000;
    let last = -1;
    for (let i = -1; i < gaps.length; i++) {
      if (i >= 0) t += (gaps[i] ?? 0) * 1000;
      const x = Math.round((GUTTER + this.#x(t)) * ratio);
      if (t < from || t > to || x === last) continue;
      last = x;
      ctx.fillRect(x, 0, Math.max(1, Math.round(ratio / 2)), height);
    }
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [from, to] = this.range;
    const at = this.#at();
    const span = this.#items[at]?.row.span;
    const middle = span ? (Math.max(from, span.start_ms) + Math.min(to, span.end_ms)) / 2 : (from + to) / 2;
    if (this.axis.onKey(event, middle)) return;
    const next = this.#next(event.key, at);
    if (next === undefined) return;
    consume(event);
    const chosen = this.#items[next];
    if (!chosen) return;
    this.#shared.store.set({ selected: chosen.row.span.span_id });
    this.reveal();
  }

  /**
   * @param {string} key
   * @param {number} at
   * @returns {number | undefined} Index of the span that a key goes to.
   */
  #next(key, at) {
    const last = this.#items.length - 1;
    const depth = this.#items[at]?.row.depth ?? 0;
    /** @type {Record<string, [number, number]>} */
    const moves = {
      ArrowDown: [at + 1, 1],
      ArrowRight: [at + 1, 1],
      ArrowUp: [at - 1, -1],
      ArrowLeft: [this.#items.findLastIndex(({ row }, i) => i < at && row.depth < depth), -1],
      PageDown: [at + this.#rows.page, 1],
      PageUp: [at - this.#rows.page, -1],
      Home: [0, 1],
      End: [last, -1],
    };
    const move = moves[key];
    if (!move) return undefined;
    let to = Math.min(last, Math.max(0, move[0]));
    while (this.#items[to]?.gaps) to += move[1] > 0 && to < last ? 1 : -1;
    return to;
  }
}

/**
 * @param {readonly number[]} gaps
 * @param {WholeSpan} span
 */
function gapsInWords(gaps, span) {
  const sorted = [...gaps].sort((a, b) => a - b);
  const rank = (/** @type {number} */ q) => duration(sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]);
  const more = span.gaps_left_out ? `, first ${gaps.length}` : "";
  return `p50 ${rank(0.5)}, p95 ${rank(0.95)}, max ${rank(1)}${more}`;
}
