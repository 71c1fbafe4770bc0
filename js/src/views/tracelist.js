/** The list of traces: sorted, filtered and searched on the page, of any length. */

import { consume, h, setAttribute, setText } from "../dom.js";
import { clock, count, duration, rate } from "../format.js";
import { chosen } from "../lines.js";
import { Rows } from "../rows.js";

/** @import { Shared } from "../dashboard.js" */
/** @import { Key, Line, Lines } from "../lines.js" */

const ROW_PX = 22;
let made = 0;

/** @typedef {{ key: Key, label: string, title: string, show: (line: Line) => string }} Column */

/** @type {readonly Column[]} */
const COLUMNS = [
  { key: "start_ms", label: "time", title: "When it began", show: (line) => clock(line.start_ms) },
  { key: "cell", label: "cell", title: "The notebook's id of the cell", show: (line) => line.cell },
  {
    key: "model",
    label: "model",
    title: "Its model, else its name",
    show: (line) => line.model || line.name,
  },
  {
    key: "duration_s",
    label: "took",
    title: "From its start to its end",
    show: (l) => duration(l.duration_s),
  },
  {
    key: "input_tokens",
    label: "in",
    title: "Input tokens of all requests",
    show: (l) => count(l.input_tokens),
  },
  {
    key: "output_tokens",
    label: "out",
    title: "Output tokens of all requests",
    show: (line) => count(line.output_tokens),
  },
  {
    key: "ttft_s",
    label: "TTFT",
    title: "The first request's time to first token",
    show: (l) => duration(l.ttft_s),
  },
  {
    key: "decode_tokens_per_s",
    label: "tok/s",
    title: "Output tokens per second of decoding",
    show: (line) => rate(line.decode_tokens_per_s),
  },
  { key: "energy_j", label: "J", title: "Joules of the GPUs meanwhile", show: (line) => rate(line.energy_j) },
  { key: "failed", label: "status", title: "Whether anything in it failed", show: status },
];

export class TraceList {
  el;
  #store;
  #onEnter;
  #prefix;
  #wanted = { key: /** @type {Key} */ ("start_ms"), down: true, search: "", status: "all" };
  /** @type {readonly Line[]} */
  #shown = [];
  #stamp = "";
  /** @type {string | null} */
  #trace = null;
  #redraw;
  #rows;
  #grid;
  #heads;
  #found = h("span", { class: "ll-found", role: "status", "data-field": "found" });
  #empty = h("p", { class: "ll-empty", "data-field": "no-traces" });

  /**
   * @param {Shared} shared
   * @param {() => void} onEnter go on in the trace that is selected
   */
  constructor({ store, signal, redraw }, onEnter) {
    made += 1;
    this.#prefix = `ll-list-${made}`;
    this.#store = store;
    this.#redraw = redraw;
    this.#onEnter = onEnter;
    this.#rows = new Rows({
      make: (index) => this.#make(index),
      update: (el, index) => this.#update(el, index),
      signal,
    });
    setAttribute(this.#rows.el, "role", "rowgroup");
    const search = h("input", {
      type: "search",
      class: "ll-search",
      placeholder: "Search",
      "aria-label": "Search traces by model, name, cell, error or id",
    });
    search.addEventListener("input", () => this.#want({ search: search.value }), { signal });
    // The notebook has commands on single letters.
    search.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation(), {
      signal,
    });
    const filter = h(
      "select",
      { class: "ll-button", "aria-label": "Status" },
      ...["all", "ok", "error"].map((value) => h("option", { value }, value)),
    );
    filter.addEventListener("change", () => this.#want({ status: filter.value }), { signal });
    this.#heads = COLUMNS.map(({ key, label, title }) => {
      const button = h("button", { type: "button", title }, label);
      button.addEventListener("click", () => this.#sort(key), { signal });
      return h("span", { role: "columnheader", "data-col": key }, button);
    });
    this.#grid = h(
      "div",
      {
        class: "ll-grid",
        role: "grid",
        tabindex: 0,
        "aria-label": "Traces",
        "aria-colcount": COLUMNS.length,
      },
      h("div", { class: "ll-line ll-head", role: "row", "aria-rowindex": 1 }, ...this.#heads),
      this.#rows.el,
    );
    this.#grid.addEventListener("keydown", (event) => this.#onKey(event), { signal });
    this.el = h(
      "section",
      { class: "ll-tracelist", "aria-label": "List of traces" },
      h("h3", {}, h("span", {}, "Traces"), search, filter, this.#found),
      this.#grid,
      this.#empty,
    );
  }

  focus() {
    this.#grid.focus();
  }

  /**
   * @param {Lines} lines
   * @param {string | null} trace the one that is selected
   * @param {string} more why there may be more, in words
   */
  render(lines, trace, more) {
    const { key, down, search, status } = this.#wanted;
    const stamp = [lines.version, key, down, search, status].join("\n");
    const moved = trace !== this.#trace;
    this.#trace = trace;
    if (stamp !== this.#stamp) {
      this.#stamp = stamp;
      const top = this.#rows.first;
      const held = this.#shown[top];
      this.#shown = chosen(lines.all.values(), this.#wanted);
      // What is being read stays where it is while new traces come in above it.
      const now = top > 0 && held ? this.#shown.findIndex((line) => line.trace_id === held.trace_id) : top;
      this.#rows.render(this.#shown.length, ROW_PX);
      if (now > top) this.#rows.el.scrollTop += (now - top) * ROW_PX;
      COLUMNS.forEach((column, i) => {
        const sorted = column.key === key ? (down ? "descending" : "ascending") : null;
        setAttribute(this.#heads[i] ?? this.#grid, "aria-sort", sorted);
      });
    }
    this.#rows.render(this.#shown.length, ROW_PX);
    const at = this.#at();
    if (moved && at >= 0) this.#rows.reveal(at);
    setAttribute(this.#grid, "aria-rowcount", this.#shown.length + 1);
    setAttribute(this.#grid, "aria-activedescendant", at < 0 ? null : `${this.#prefix}-${at}`);
    const all = lines.all.size;
    const some = this.#shown.length < all ? `${count(this.#shown.length)} of ${count(all)}` : count(all);
    setText(this.#found, [all === 0 ? "" : `${some} traces`, more].filter(Boolean).join(" \u00b7 "));
    this.#grid.hidden = all === 0;
    this.#empty.hidden = this.#shown.length > 0;
    setText(this.#empty, all === 0 ? "No traces yet: begin a cell with %%llama" : "No trace is like that.");
  }

  #at() {
    return this.#shown.findIndex((line) => line.trace_id === this.#trace);
  }

  /** @param {Partial<{ key: Key, down: boolean, search: string, status: string }>} change */
  #want(change) {
    Object.assign(this.#wanted, change);
    this.#rows.el.scrollTop = 0;
    this.#redraw();
  }

  /** @param {Key} key */
  #sort(key) {
    this.#want({ key, down: key === this.#wanted.key ? !this.#wanted.down : true });
  }

  /** @param {number} index */
  #make(index) {
    const cells = COLUMNS.map(({ key }) => h("span", { role: "gridcell", "data-col": key }));
    const row = h("div", { class: "ll-line", role: "row", id: `${this.#prefix}-${index}` }, ...cells);
    row.addEventListener("click", () => this.#select(index));
    return row;
  }

  /**
   * @param {HTMLElement} el
   * @param {number} index
   */
  #update(el, index) {
    const line = this.#shown[index];
    if (!line) return;
    for (const [i, { show }] of COLUMNS.entries())
      setText(/** @type {Element} */ (el.children[i]), show(line));
    setAttribute(el, "aria-rowindex", index + 2);
    setAttribute(el, "aria-selected", String(line.trace_id === this.#trace));
    setAttribute(el, "data-failed", line.failed);
    const when = new Date(line.start_ms).toLocaleString();
    setAttribute(el, "title", `${line.name}, ${when}${line.error_type ? `, ${line.error_type}` : ""}`);
  }

  /** @param {number} index */
  #select(index) {
    const line = this.#shown[Math.min(this.#shown.length - 1, Math.max(0, index))];
    if (line) this.#store.set({ selected: line.span_id });
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const button = event.target instanceof HTMLButtonElement;
    if (event.ctrlKey || event.metaKey || event.altKey || (button && event.key === "Enter")) return;
    const at = this.#at();
    /** @type {Record<string, number>} */
    const moves = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + this.#rows.page,
      PageUp: at - this.#rows.page,
      Home: 0,
      End: this.#shown.length - 1,
    };
    const to = moves[event.key];
    if (to !== undefined) this.#select(to);
    else if (event.key === "Enter" && at >= 0) this.#onEnter();
    else return;
    consume(event);
  }
}

/** @param {Line} line */
function status(line) {
  if (line.failed) return "\u2715 error";
  return line.complete ? "ok" : "running";
}
