/** The newest spans on the panels' time axis; one is selected by click or arrow keys and described below. */

import { GUTTER, MARGIN } from "../axis.js";
import { consume, h, keyed, setAttribute, setText } from "../dom.js";
import { count, duration, plain, rate } from "../format.js";
import { SPANS, spanKind } from "../theme.js";

/** @import { Frame, Shared } from "../dashboard.js" */
/** @import { Span } from "../types.js" */

const MAX_SHOWN = 60;

export class Waterfall {
  el;
  #shared;
  #list = h("ul", { class: "ll-spans", role: "listbox", tabindex: 0, "aria-label": "Spans, newest last" });
  /** @type {Map<string, HTMLLIElement>} */
  #rows = new Map();
  #details = h("p", { class: "ll-details", "data-field": "selected", "aria-live": "polite" });
  #empty = h("p", { class: "ll-empty" }, "No calls in this window; try: %llama chat Hello");
  /** @type {readonly Span[]} */
  #shown = [];

  /** @param {Shared} shared */
  constructor(shared) {
    this.#shared = shared;
    this.el = h(
      "section",
      { class: "ll-panel ll-waterfall", "aria-label": "Spans" },
      h("h3", {}, "Spans"),
      h("div", { class: "ll-chart" }, this.#list, this.#empty, this.#details),
    );
    this.#list.addEventListener("keydown", (event) => this.#onKey(event), { signal: shared.signal });
  }

  /** @param {Frame} frame */
  render({ history, range, width, theme, selected }) {
    const [from, to] = range;
    this.#shown = [...history.spans.values()]
      .filter((span) => span.end_ms >= from && span.start_ms <= to)
      .sort((a, b) => a.start_ms - b.start_ms || (a.depth ?? 0) - (b.depth ?? 0))
      .slice(-MAX_SHOWN);
    this.#empty.hidden = this.#shown.length > 0;
    this.#list.hidden = this.#shown.length === 0;
    const inner = width - GUTTER - MARGIN;
    const x = (/** @type {number} */ t) => GUTTER + (Math.min(to, Math.max(from, t)) - from) / (to - from) * inner;
    const atEnd = this.#list.scrollTop + this.#list.clientHeight >= this.#list.scrollHeight - 8;
    keyed(
      this.#list,
      this.#rows,
      this.#shown,
      (span) => span.span_id,
      (span) => {
        const row = h("li", { class: "ll-span", role: "option", id: `ll-${span.span_id}` });
        row.append(h("span", { class: "ll-span-bar" }), h("span", { class: "ll-span-name" }));
        row.addEventListener("click", () => this.#select(span.span_id), { signal: this.#shared.signal });
        return row;
      },
      (row, span) => {
        const error = span.status === "error";
        const look = SPANS[error ? "error" : spanKind(span.name)] ?? SPANS["other"];
        const [left, right] = [x(span.start_ms), x(span.end_ms)];
        const bar = /** @type {HTMLElement} */ (row.firstElementChild);
        const name = /** @type {HTMLElement} */ (row.lastElementChild);
        bar.style.left = `${left}px`;
        bar.style.width = `${Math.max(2, right - left)}px`;
        if (look) bar.style.background = theme.color(look);
        const text = `${error ? "\u2715 " : ""}${"\u00b7 ".repeat(span.depth ?? 0)}${plain(span.name)} ${lasted(span)}`;
        setText(name, text);
        // The name stands where there is room: behind the bar, else before it.
        const room = width - MARGIN - right - 6;
        const before = room < Math.min(240, 6.2 * text.length);
        name.style.left = before ? "0" : `${right + 6}px`;
        name.style.width = before ? `${Math.max(0, left - 6)}px` : `${Math.max(0, room)}px`;
        setAttribute(name, "data-side", before ? "before" : "behind");
        setAttribute(row, "aria-selected", span.span_id === selected ? "true" : "false");
      },
    );
    setAttribute(this.#list, "aria-activedescendant", selected ? `ll-${selected}` : null);
    if (atEnd) this.#list.scrollTop = this.#list.scrollHeight;
    const span = selected === null ? undefined : history.spans.get(selected);
    setText(this.#details, span ? describe(span) : "");
  }

  /** @param {string | null} id */
  #select(id) {
    this.#shared.store.set({ selected: this.#shared.store.view.selected === id ? null : id });
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.key === "Escape") {
      consume(event);
      this.#shared.store.set({ selected: null });
      return;
    }
    const last = this.#shown.length - 1;
    const at = this.#shown.findIndex((span) => span.span_id === this.#shared.store.view.selected);
    /** @type {Record<string, number>} */
    const moves = { ArrowDown: at + 1, ArrowUp: at < 0 ? last : at - 1, Home: 0, End: last };
    const to = moves[event.key];
    if (to === undefined || last < 0) return;
    consume(event);
    const span = this.#shown[Math.min(last, Math.max(0, to))];
    if (!span) return;
    this.#shared.store.set({ selected: span.span_id });
    this.#rows.get(span.span_id)?.scrollIntoView({ block: "nearest" });
  }
}

/** @param {Span} span */
function lasted(span) {
  return duration((span.end_ms - span.start_ms) / 1000);
}

/** @param {Span} span */
function describe(span) {
  const tokens = span.output_tokens == null ? null : `${count(span.input_tokens)} \u2192 ${count(span.output_tokens)} tokens`;
  return [
    plain(span.name),
    lasted(span),
    tokens,
    span.decode_tokens_per_s == null ? null : `${rate(span.decode_tokens_per_s)} tokens/s`,
    span.ttft_s == null ? null : `first token ${duration(span.ttft_s)}`,
    span.status === "error" ? `error: ${plain(span.error_type ?? "unknown")}` : "ok",
    `trace ${span.trace_id.slice(0, 8)}`,
  ]
    .filter(Boolean)
    .join(" \u00b7 ");
}
