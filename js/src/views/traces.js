/** Traces: the list, and the one that is selected: its waterfall, its devices and its spans in full. */

import { h } from "../dom.js";
import { History } from "../history.js";
import { Lines } from "../lines.js";
import { Store } from "../store.js";
import { Strip } from "../strip.js";
import { Lanes } from "./lanes.js";
import { SpanDetails } from "./spandetails.js";
import { TraceList } from "./tracelist.js";
import { TraceTree } from "./tracetree.js";

/** @import { Frame, Shared } from "../dashboard.js" */
/** @import { Line } from "../lines.js" */
/** @import { Span, WholeSpan } from "../types.js" */

/** @typedef {{ number: number, spans: WholeSpan[], history: History }} Whole An answer of the operation "trace". */

/** The list and a trace are asked for again at most this often. */
const AGAIN_MS = 4000;
/** An arrow key that is held down goes through traces; only the one where it stops is asked for. */
const SETTLED_MS = 120;
/** A request that ends is told after what it holds: what ended so long before may come with it. */
const OVERLAP_MS = 10_000;
const KEPT = 8;
const LISTED = 10_000;

export class Traces {
  el;
  #shared;
  /** What is seen of the trace; `follow` means all of it. */
  #axis = new Store();
  #lines = new Lines();
  #strip;
  #list;
  #tree;
  #lanes;
  #details;
  #panel;
  #hint = h("p", { class: "ll-empty", "data-field": "pick" }, "Select a trace to see its spans.");
  /** @type {Map<string, Whole>} */
  #whole = new Map();
  /** @type {string | null} */
  #trace = null;
  /** @type {string | null} */
  #selected = null;
  /** @type {readonly WholeSpan[]} */
  #spans = [];
  /** @type {ReadonlySet<string>} */
  #ids = new Set();
  #outdated = false;
  #answers = 0;
  #stamp = "";
  #listed = { busy: false, at: Number.NEGATIVE_INFINITY, total: -1, until: 0, answered: false };
  /** What is being asked for, and what was refused; one question at a time. */
  #asking = { trace: "", at: Number.NEGATIVE_INFINITY, refused: "", span: "" };
  #since = 0;

  /** @param {Shared} shared */
  constructor(shared) {
    this.#shared = shared;
    this.#strip = new Strip(shared.signal);
    this.#list = new TraceList(shared, () => this.#tree.focus());
    this.#tree = new TraceTree(shared, this.#axis);
    this.#lanes = new Lanes(shared, this.#axis, this.#tree.axis, (t) => this.#pick(t));
    this.#details = new SpanDetails(shared, (trace) =>
      this.#strip.follow(shared.request("otlp", { trace_id: trace })),
    );
    this.#panel = h("div", { class: "ll-panel ll-trace" }, this.#tree.el, this.#lanes.el, this.#details.el);
    this.el = h(
      "section",
      { class: "ll-traces", "aria-label": "Traces" },
      this.#list.el,
      this.#strip.el,
      this.#hint,
      this.#panel,
    );
    this.#axis.subscribe(shared.redraw, shared.signal);
  }

  /** @param {Frame} frame */
  render(frame) {
    const { history, selected, paused } = frame;
    if (!paused || this.#lines.all.size === 0) {
      this.#lines.live(history.spans.values());
      this.#askList(history);
    }
    this.#choose(frame);
    const full = this.#lines.all.size >= LISTED ? "the newest are here" : "";
    this.#list.render(this.#lines, this.#trace, this.#listed.answered ? full : "older ones are asked for");
    this.#hint.hidden = this.#trace !== null || this.#lines.all.size === 0;
    this.#panel.hidden = this.#trace === null;
    if (this.#trace === null) return;
    this.#askTrace(this.#trace);
    this.#tree.render(this.#spans);
    if (selected !== this.#selected) this.#tree.reveal();
    this.#selected = selected;
    const span = this.#spans.find((one) => one.span_id === selected);
    const width = this.#tree.width;
    if (width >= 120) {
      const range = this.#tree.range;
      this.#lanes.render({
        history: this.#samples(history, range),
        devices: history.devices,
        range,
        origin: this.#spans[0]?.start_ms ?? 0,
        width,
        band: span ? [span.start_ms, span.end_ms] : null,
      });
    }
    this.#askSpan(span);
    this.#details.render(span);
  }

  /**
   * The trace of the selected span, and what is known of it; nothing is made anew while that is the same.
   *
   * @param {Frame} frame
   */
  #choose({ history, selected, until }) {
    const here = selected !== null && this.#ids.has(selected);
    const trace = here
      ? this.#trace
      : selected === null
        ? null
        : (history.spans.get(selected)?.trace_id ?? this.#lines.byspan.get(selected) ?? null);
    if (trace !== this.#trace) {
      this.#trace = trace;
      this.#since = performance.now();
      this.#asking.refused = "";
      this.#axis.set({ follow: true, range: null, cursorMs: null });
    }
    const whole = trace === null ? undefined : this.#whole.get(trace);
    const stamp = `${trace} ${history.version} ${until} ${whole?.number}`;
    if (stamp === this.#stamp) return;
    this.#stamp = stamp;
    const known = new Map(whole?.spans.map((span) => [span.span_id, span]));
    const live = [...history.spans.values()].filter(
      (span) => span.trace_id === trace && span.start_ms <= until,
    );
    const fresh = live.filter((span) => !known.has(span.span_id));
    // Of one that was joined with samples since, more is known than the answer said.
    const same = (/** @type {Span} */ span) =>
      (known.get(span.span_id)?.energy_j ?? null) === (span.energy_j ?? null);
    this.#outdated = fresh.length > 0 || !live.every(same);
    const spans = [...known.values(), ...fresh].sort((a, b) => a.start_ms - b.start_ms);
    if (spans.length === this.#spans.length && spans.every((span, i) => span === this.#spans[i])) return;
    this.#spans = spans;
    this.#ids = new Set(spans.map((span) => span.span_id));
  }

  /** @param {History} history */
  async #askList(history) {
    const listed = this.#listed;
    const total = history.totals?.spans ?? -1;
    const now = performance.now();
    if (listed.busy || total === listed.total || now - listed.at < AGAIN_MS) return;
    Object.assign(listed, { busy: true, at: now });
    const request = this.#shared.request("traces", { since_ms: listed.until });
    const answer = await (listed.answered
      ? request.catch((error) => this.#strip.show(error))
      : this.#strip.follow(request));
    listed.busy = false;
    listed.total = total;
    if (answer) {
      this.#lines.told(answer);
      listed.answered = true;
      listed.until = answer.reduce(
        (/** @type {number} */ t, /** @type {Line} */ line) => Math.max(t, line.end_ms - OVERLAP_MS),
        listed.until,
      );
    }
    this.#shared.redraw();
  }

  /** @param {string} trace */
  async #askTrace(trace) {
    const asking = this.#asking;
    const now = performance.now();
    if (asking.trace !== "" || asking.refused === trace) return;
    if (this.#whole.has(trace) && (!this.#outdated || now - asking.at < AGAIN_MS)) return;
    if (now - this.#since < SETTLED_MS) {
      setTimeout(this.#shared.redraw, SETTLED_MS);
      return;
    }
    Object.assign(asking, { trace, at: now });
    const answer = await this.#strip.follow(this.#shared.request("trace", { trace_id: trace }));
    asking.trace = "";
    if (answer) this.#keep(trace, answer);
    else asking.refused = trace;
    this.#shared.redraw();
  }

  /**
   * @param {string} trace
   * @param {any} answer
   */
  #keep(trace, answer) {
    const history = new History();
    const { series, points } = answer;
    const empty = { server: null, totals: null, devices: [], spans: [] };
    history.load({ version: 1, now_ms: points.t_ms.at(-1) ?? 0, window_s: 0, series, points, ...empty }, 1);
    const spans = answer.spans.map((/** @type {WholeSpan} */ span) => ({ ...span, trace_id: trace }));
    this.#whole.delete(trace);
    this.#answers += 1;
    this.#whole.set(trace, { number: this.#answers, spans, history });
    for (const id of this.#whole.keys()) {
      if (this.#whole.size <= KEPT) break;
      this.#whole.delete(id);
    }
  }

  /**
   * Attributes for which there was no room in the trace's answer.
   *
   * @param {WholeSpan | undefined} span
   */
  async #askSpan(span) {
    const trace = this.#trace;
    const inAnswer = trace !== null && span !== undefined && this.#whole.get(trace)?.spans.includes(span);
    if (!inAnswer || span.attributes || this.#asking.span !== "") return;
    this.#asking.span = span.span_id;
    const args = { trace_id: trace, span_id: span.span_id };
    const answer = await this.#strip.follow(this.#shared.request("span", args));
    this.#asking.span = "";
    Object.assign(span, answer ?? { attributes: {}, left_out: 1 });
    this.#shared.redraw();
  }

  /**
   * The live samples where they reach back so far, else those that came with the trace.
   *
   * @param {History} history
   * @param {readonly [number, number]} range
   */
  #samples(history, [from]) {
    const whole = this.#trace === null ? undefined : this.#whole.get(this.#trace);
    return whole && history.rowAt(from) < 0 ? whole.history : history;
  }

  /** @param {number} tMs */
  #pick(tMs) {
    const hits = this.#spans.filter((span) => span.start_ms <= tMs && tMs <= span.end_ms);
    const length = (/** @type {Span} */ span) => span.end_ms - span.start_ms;
    const innermost = hits.sort((a, b) => length(a) - length(b))[0];
    if (innermost) this.#shared.store.set({ selected: innermost.span_id });
  }
}
