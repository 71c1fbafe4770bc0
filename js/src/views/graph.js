/** The session or one trace as a graph: as a picture, or as a table. */

import { Diagram } from "../diagram.js";
import { h, setAttribute, setFacts, setText } from "../dom.js";
import { count, duration, NA, plain } from "../format.js";
import { BUSY, late } from "../late.js";
import { described, facts, leads, lookOf } from "../picture.js";
import { Strip } from "../strip.js";
import { Upload } from "../upload.js";

/** @import { Frame, Shared } from "../dashboard.js" */
/** @import { GraphNode, Picture } from "../picture.js" */

/** @typedef {{ kind: "session" | "trace", trace_id: string | null }} What */

const EVERY_MS = 2000;
/** A picture that takes long to make is made less often: a tenth of the time at most. */
const PART = 10;

export class Graph {
  el;
  #shared;
  /** @type {What["kind"]} */
  #kind = "session";
  #asTable = false;
  /** @type {Frame | null} */
  #frame = null;
  /** @type {Picture | null} */
  #picture = null;
  /** What the picture shows, and of how many spans; and what was asked for last. */
  #asked = { key: "", spans: -1, at: 0, tookMs: 0, open: false, turn: 0 };
  /** A span that was opened here: it may be older than those that the page knows. @type {GraphNode | null} */
  #opened = null;
  #timer = 0;
  #diagram;
  #upload;
  #strip;
  #summary = h("p", { class: "ll-summary", "data-field": "graph", role: "status" });
  #details = h("p", { class: "ll-details", "data-field": "node" });
  #empty = h(
    "p",
    { class: "ll-empty", hidden: true },
    "No calls yet: begin a cell with ",
    h("code", {}, "%%llama"),
  );
  #body = h("tbody");
  #table = h(
    "div",
    { class: "ll-table", tabindex: 0, role: "region", "aria-label": "Nodes of the graph", hidden: true },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ...["kind", "name", "spans", "p50", "p95", "tokens", "failed"].map((t) =>
            h("th", { scope: "col" }, t),
          ),
        ),
      ),
      this.#body,
    ),
  );
  /** @type {HTMLButtonElement[]} */
  #choices;
  #toggle;
  #zooms;

  /** @param {Shared} shared */
  constructor(shared) {
    const { signal } = shared;
    this.#shared = shared;
    this.#strip = new Strip(signal);
    this.#diagram = new Diagram(
      signal,
      (node) => this.#open(node),
      (index) => this.#look(index),
    );
    this.#upload = new Upload(
      shared,
      () => this.#what(),
      (error) => this.#strip.show(error),
    );
    const button = (
      /** @type {string} */ text,
      /** @type {string} */ action,
      /** @type {() => void} */ press,
      label = "",
    ) => {
      const made = h(
        "button",
        { type: "button", class: "ll-button", "data-action": action, "aria-label": label || null },
        text,
      );
      made.addEventListener("click", press, { signal });
      return made;
    };
    const choose = (/** @type {What["kind"]} */ kind) => () => {
      this.#kind = kind;
      this.#again();
    };
    this.#choices = [
      button("Session", "session", choose("session")),
      button("This trace", "trace", choose("trace")),
    ];
    this.#zooms = h(
      "div",
      { class: "ll-group ll-zoom", role: "group", "aria-label": "Zoom" },
      button("\u2212", "smaller", () => this.#diagram.zoom(-1), "Smaller"),
      button("+", "larger", () => this.#diagram.zoom(1), "Larger"),
      button("Fit", "fit", () => this.#diagram.fit(), "Fit: show all of it"),
    );
    this.#toggle = button("As table", "table", () => {
      this.#asTable = !this.#asTable;
      this.#again();
    });
    this.el = h(
      "section",
      { class: "ll-graph", "aria-label": "Graph" },
      h(
        "div",
        { class: "ll-controls", role: "toolbar", "aria-label": "Graph" },
        h("div", { class: "ll-group", role: "group", "aria-label": "What is shown" }, ...this.#choices),
        this.#zooms,
        this.#toggle,
        this.#upload.button,
      ),
      this.#strip.el,
      this.#upload.el,
      this.#summary,
      this.#empty,
      this.#diagram.el,
      this.#table,
      this.#details,
    );
    signal.addEventListener("abort", () => clearTimeout(this.#timer), { once: true });
    this.#look(null);
  }

  /** @param {Frame} frame */
  render(frame) {
    this.#frame = frame;
    this.#refresh(frame);
    const picture = this.#picture;
    for (const choice of this.#choices)
      setAttribute(choice, "aria-pressed", String(choice.dataset["action"] === this.#kind));
    setAttribute(this.#toggle, "aria-pressed", String(this.#asTable));
    const none = picture !== null && picture.nodes.length === 0;
    this.#empty.hidden = !none;
    this.#diagram.el.hidden = none || this.#asTable;
    this.#zooms.hidden = this.#asTable;
    this.#table.hidden = none || !this.#asTable;
    this.#details.hidden = none || this.#asTable;
    this.#upload.button.disabled = picture === null || none;
    if (picture && !none && !this.#asTable) this.#diagram.render(picture, frame.theme, frame.selected);
  }

  /** @returns {What} */
  #what() {
    const { history, selected } = /** @type {Frame} */ (this.#frame);
    if (this.#kind === "session") return { kind: "session", trace_id: null };
    const span = selected === null ? undefined : history.spans.get(selected);
    const opened = this.#opened?.span_id === selected ? this.#opened : null;
    return { kind: "trace", trace_id: span?.trace_id ?? opened?.trace_id ?? null };
  }

  #again() {
    if (this.#frame && !this.#shared.signal.aborted) this.render(this.#frame);
  }

  /**
   * Ask for the picture: at once for another one, for the same one when spans were added and some time has passed.
   *
   * @param {Frame} frame
   */
  #refresh({ state, paused }) {
    const what = this.#what();
    const key = `${what.kind} ${what.trace_id}`;
    const spans = state.totals?.spans ?? 0;
    const asked = this.#asked;
    if (key === asked.key) {
      if (asked.open || paused || spans === asked.spans) return;
      const wait = asked.at + Math.max(EVERY_MS, asked.tookMs * PART) - performance.now();
      if (wait > 0) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(
          () => this.el.isConnected && !this.el.closest("[hidden]") && this.#again(),
          wait,
        );
        return;
      }
    }
    this.#ask(what, key, spans);
  }

  /**
   * @param {What} what
   * @param {string} key
   * @param {number} spans
   */
  async #ask(what, key, spans) {
    const turn = this.#asked.turn + 1;
    const began = performance.now();
    this.#asked = { key, spans, at: began, tookMs: 0, open: true, turn };
    const ours = () => turn === this.#asked.turn && !this.#shared.signal.aborted;
    try {
      const answer = this.#shared.request("graph", { ...what });
      const picture = await late(answer, () => ours() && setText(this.#summary, BUSY));
      if (!ours()) return;
      this.#picture = /** @type {Picture} */ (picture);
      this.#strip.clear();
      this.#list(this.#picture);
      const { nodes, left_out } = this.#picture;
      const shown = `${count(this.#picture.spans)} spans as ${count(nodes.length)} nodes`;
      setFacts(this.#summary, [
        nodes.length > 0 && shown,
        this.#picture.trace_id && `trace ${plain(this.#picture.trace_id).slice(0, 8)}`,
        left_out.length > 0 && `left out: ${left_out.map(plain).join(", ")}`,
      ]);
    } catch (error) {
      if (!ours()) return;
      setText(this.#summary, "");
      this.#strip.show(error);
    }
    this.#asked = { ...this.#asked, at: performance.now(), tookMs: performance.now() - began, open: false };
    this.#again();
  }

  /** @param {Picture} picture */
  #list({ nodes }) {
    this.#body.replaceChildren(
      ...nodes.map((node) => {
        const open = h("button", { type: "button", class: "ll-link" }, plain(node.label));
        open.addEventListener("click", () => this.#open(node), { signal: this.#shared.signal });
        const { spans, p50_s, p95_s, tokens, errors } = node;
        const figures = [
          count(spans),
          duration(p50_s),
          duration(p95_s),
          tokens === null ? NA : count(tokens),
          count(errors),
        ];
        return h(
          "tr",
          {},
          h("td", {}, lookOf(node).label),
          h("th", { scope: "row" }, open),
          ...figures.map((f) => h("td", {}, f)),
        );
      }),
    );
  }

  /** @param {number | null} index */
  #look(index) {
    const node = this.#picture?.nodes[index ?? -1];
    if (!this.#picture || !node || index === null)
      setFacts(this.#details, ["Point at a node for its figures; a click opens its newest trace."]);
    else
      setFacts(this.#details, [
        `${lookOf(node).label}: ${plain(node.label)}`,
        ...facts(node),
        ...leads(this.#picture, index).slice(0, 8),
      ]);
  }

  /** @param {GraphNode} node */
  #open(node) {
    const { trace_id, span_id, start_ms, end_ms } = node;
    this.#opened = node;
    this.#shared.onShow({ trace_id, span_id, start_ms, end_ms, parent_id: null, name: described(node) });
    this.#shared.store.set({ tab: "traces" });
  }
}
