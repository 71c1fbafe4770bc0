/** The newest traces on the panels' time axis; one span is selected by click or arrow keys and described below. */

import { GUTTER, MARGIN, timeTicks } from "../axis.js";
import { consume, h, keyed, setAttribute, setFacts, setText } from "../dom.js";
import { bytes, clock, count, duration, plain, rate } from "../format.js";
import { gestures } from "../gestures.js";
import { SPANS, spanKind } from "../theme.js";
import { inOrder } from "../tree.js";

/** @import { Frame, Shared } from "../dashboard.js" */
/** @import { Row } from "../tree.js" */
/** @import { Span } from "../types.js" */

const MAX_SHOWN = 80;
let made = 0;

export class Waterfall {
  el;
  #shared;
  #prefix;
  #list = h("div", {
    class: "ll-spans",
    role: "listbox",
    tabindex: 0,
    "aria-label": "Spans, newest trace first",
  });
  #lines = h("div", { class: "ll-lines", "aria-hidden": "true" });
  /** @type {Map<string, HTMLElement>} */
  #lineByTick = new Map();
  #cursor = h("div", { class: "ll-cursor", "aria-hidden": "true" });
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();
  #details = h("p", { class: "ll-details", "data-field": "selected", role: "status" });
  #emptyText = h("span");
  #emptyCommand = h("code");
  #emptyButton = h("button", { type: "button", class: "ll-button" }, "Show it");
  #empty = h(
    "p",
    { class: "ll-empty", "data-field": "empty" },
    this.#emptyText,
    this.#emptyCommand,
    this.#emptyButton,
  );
  /** @type {readonly Row[]} */
  #shown = [];
  /** Width of the axis, px. */
  #inner = 1;
  #pointer;
  /** @type {Span | undefined} */
  #newest;

  /** @param {Shared} shared */
  constructor(shared) {
    const { signal, store } = shared;
    this.#shared = shared;
    made += 1;
    this.#prefix = `ll-${made}`;
    const tracks = h("div", { class: "ll-tracks" }, this.#lines, this.#list, this.#cursor, this.#empty);
    this.el = h(
      "section",
      { class: "ll-panel ll-waterfall", "aria-label": "Spans" },
      h("h3", {}, "Spans"),
      tracks,
      this.#details,
    );
    this.#list.addEventListener("keydown", (event) => this.#onKey(event), { signal });
    this.#pointer = gestures(tracks, shared.axis, {
      left: GUTTER,
      inner: () => this.#inner,
      signal,
      onCursor: (cursorMs) => store.set({ cursorMs }),
    });
    this.#emptyButton.addEventListener("click", () => this.#newest && shared.onShow(this.#newest), {
      signal,
    });
  }

  /** @param {Frame} frame */
  render({ history, state, range, until, width, theme, selected }) {
    const [from, to] = range;
    const inner = width - GUTTER - MARGIN;
    this.#inner = inner;
    const x = (/** @type {number} */ t) => ((Math.min(to, Math.max(from, t)) - from) / (to - from)) * inner;
    const known = [...history.spans.values()].filter((span) => span.start_ms <= until);
    this.#newest = known.reduce((a, b) => (a && a.start_ms >= b.start_ms ? a : b), known[0]);
    this.#shown = inOrder(known.filter((span) => span.end_ms >= from && span.start_ms <= to)).slice(
      0,
      MAX_SHOWN,
    );
    this.#renderEmpty(state.server !== null);
    this.#renderLines(range, inner, x);
    keyed(
      this.#list,
      this.#rows,
      this.#shown,
      ({ span }) => span.span_id,
      ({ span }) => this.#make(span),
      (row, { span, depth, first }) => {
        const [track, name, time] = /** @type {HTMLElement[]} */ ([...row.children]);
        const bar = /** @type {HTMLElement | undefined} */ (track?.firstElementChild);
        if (!track || !bar || !name || !time) return;
        const failed = span.status === "error";
        const look = SPANS[failed ? "error" : spanKind(span.name)] ?? SPANS["other"];
        const [left, right] = [x(span.start_ms), x(span.end_ms)];
        bar.style.transform = `translateX(${GUTTER + left}px)`;
        bar.style.width = `${Math.max(3, right - left)}px`;
        if (look) bar.style.backgroundColor = theme.color(look);
        track.style.width = `${width}px`;
        name.style.paddingLeft = `${Math.min(depth, 8) * 12}px`;
        setText(name, `${failed ? "\u2715 " : ""}${plain(span.name)}`);
        setText(time, duration((span.end_ms - span.start_ms) / 1000));
        setAttribute(row, "data-first", first);
        setAttribute(row, "data-depth", depth);
        setAttribute(row, "aria-selected", span.span_id === selected ? "true" : "false");
      },
    );
    const span = selected === null ? undefined : history.spans.get(selected);
    const visible = this.#shown.some((row) => row.span === span);
    setAttribute(this.#list, "aria-activedescendant", span && visible ? this.#id(span) : null);
    setAttribute(this.#details, "data-selected", span ? span.span_id : null);
    setFacts(
      this.#details,
      span ? describe(span) : [this.#shown.length > 0 && "Select a span for its details."],
    );
  }

  /** @param {boolean} served */
  #renderEmpty(served) {
    const none = this.#shown.length === 0;
    this.#empty.hidden = !none;
    this.#list.hidden = none;
    this.#lines.hidden = none && this.#newest === undefined;
    if (!none) return;
    const [text, command] = this.#newest
      ? [`No calls in this window; the last began at ${clock(this.#newest.start_ms)}. `, ""]
      : served
        ? ["No calls yet: begin a cell with ", "%%llama"]
        : ["No server yet: ", "%llama start"];
    setText(this.#emptyText, text ?? "");
    setText(this.#emptyCommand, command ?? "");
    this.#emptyCommand.hidden = !command;
    this.#emptyButton.hidden = this.#newest === undefined;
  }

  /**
   * The panels' grid and cursor, carried on through the rows.
   *
   * @param {readonly [number, number]} range
   * @param {number} inner
   * @param {(t: number) => number} x
   */
  #renderLines([from, to], inner, x) {
    keyed(
      this.#lines,
      this.#lineByTick,
      timeTicks(from, to, inner),
      String,
      () => h("i"),
      (line, tick) => {
        line.style.transform = `translateX(${GUTTER + x(tick)}px)`;
      },
    );
    const { cursorMs } = this.#shared.store.view;
    const shown = cursorMs !== null && cursorMs >= from && cursorMs <= to;
    this.#cursor.hidden = !shown;
    if (shown) this.#cursor.style.transform = `translateX(${GUTTER + x(cursorMs)}px)`;
  }

  /** @param {Span} span */
  #make(span) {
    const row = h(
      "div",
      { class: "ll-span", role: "option", id: this.#id(span) },
      h("span", { class: "ll-track" }, h("span", { class: "ll-span-bar" })),
      h("span", { class: "ll-span-name" }),
      h("span", { class: "ll-span-time" }),
    );
    const { store, signal } = this.#shared;
    row.addEventListener(
      "click",
      () =>
        this.#pointer.dragged ||
        store.set({ selected: store.view.selected === span.span_id ? null : span.span_id }),
      { signal },
    );
    return row;
  }

  /** @param {Span} span */
  #id(span) {
    return `${this.#prefix}-${span.span_id}`;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [from, to] = this.#shared.axis.range;
    if (this.#shared.axis.onKey(event, (from + to) / 2)) return;
    const last = this.#shown.length - 1;
    const at = this.#shown.findIndex(({ span }) => span.span_id === this.#shared.store.view.selected);
    const parent = this.#shown.findLastIndex((row, i) => i < at && row.depth < (this.#shown[at]?.depth ?? 0));
    /** @type {Record<string, number>} */
    const moves = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      ArrowLeft: parent,
      ArrowRight: at + 1,
      Home: 0,
      End: last,
    };
    const place = moves[event.key];
    if (place === undefined || last < 0) return;
    consume(event);
    const next = this.#shown[Math.min(last, Math.max(0, place))];
    if (!next) return;
    this.#shared.store.set({ selected: next.span.span_id });
    this.#rows.get(next.span.span_id)?.scrollIntoView({ block: "nearest" });
  }
}

/** @param {Span} span @returns {(string | false)[]} What is known of it, in a few facts. */
export function describe(span) {
  const cached = span.cached_tokens ? ` (${count(span.cached_tokens)} cached)` : "";
  const failed = span.status === "error";
  return [
    plain(span.name),
    `${duration((span.end_ms - span.start_ms) / 1000)} from ${clock(span.start_ms)}`,
    span.output_tokens != null &&
      `${count(span.input_tokens)}${cached} \u2192 ${count(span.output_tokens)} tokens`,
    span.decode_tokens_per_s != null && `${rate(span.decode_tokens_per_s)} tokens/s`,
    span.ttft_s != null && `first token ${duration(span.ttft_s)}`,
    span.energy_j != null && `${rate(span.energy_j)} J`,
    span.peak_bytes != null && `peak ${bytes(span.peak_bytes)}`,
    failed ? `error: ${plain(span.error_type ?? "unknown")}` : "ok",
    `trace ${plain(span.trace_id).slice(0, 8)}`,
  ];
}
