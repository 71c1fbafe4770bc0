/** The header: which model, in what state, how fast, how full, and what it all came to. */

import { h, setAttribute, setText } from "../dom.js";
import { count, duration, NA, percent, plain, rate, since } from "../format.js";
import { STATES } from "../theme.js";

/** @import { Frame } from "../dashboard.js" */

const FIGURES = /** @type {const} */ ([
  ["tokens_per_s", "tokens/s"],
  ["ttft", "first token"],
  ["slots", "slots busy"],
  ["kv", "KV cache"],
  ["calls", "calls"],
  ["input_tokens", "tokens in"],
  ["output_tokens", "tokens out"],
  ["spans", "spans"],
]);

export class Now {
  el;
  #sign = h("span", { class: "ll-sign", "aria-hidden": "true" });
  #state = h("span", { class: "ll-state", "data-field": "state" });
  #model = h("strong", { class: "ll-model", "data-field": "model" });
  #engine = h("span", { class: "ll-engine", "data-field": "engine" });
  #fresh = h("span", { class: "ll-fresh", "data-field": "fresh" });
  #bar = h("span", { class: "ll-bar-fill" });
  #kvBar = h("span", { class: "ll-bar", "aria-hidden": "true" }, this.#bar);
  /** @type {Map<string, { el: HTMLElement, value: HTMLElement, note: HTMLElement }>} */
  #figures = new Map();

  constructor() {
    const list = h("div", { class: "ll-figures", role: "list" });
    for (const [field, label] of FIGURES) {
      const value = h("span", { class: "ll-number", "data-field": field });
      const note = h("span", { class: "ll-note" });
      const el = h(
        "div",
        { class: `ll-figure ll-figure-${field}`, role: "listitem" },
        h("span", { class: "ll-label" }, label),
        value,
        note,
        field === "kv" && this.#kvBar,
      );
      this.#figures.set(field, { el, value, note });
      list.append(el);
    }
    const badge = h("span", { class: "ll-badge" }, this.#sign, this.#state);
    this.el = h(
      "header",
      { class: "ll-now" },
      h("div", { class: "ll-title" }, badge, this.#model, this.#engine, this.#fresh),
      list,
    );
  }

  /** @param {Frame} frame */
  render({ history, state, row, paused, quietS }) {
    const { server, totals } = state;
    for (const [field, { el }] of this.#figures) {
      const title = history.titles[field];
      setAttribute(el, "title", typeof title === "string" ? plain(title) : null);
    }
    // What was read last is not what is now: the state says since when.
    const sinceMs = server?.since_ms ?? state.sinceMs;
    /** @param {string} group @param {string} suffix */
    const newest = (group, suffix) =>
      sinceMs === null ? latest(history, group, suffix, row, server?.name) : null;
    const busy = newest("slots", "/busy") ?? server?.slots_busy ?? null;
    const queued = newest("slots", "/queued") ?? server?.queued ?? 0;
    const word = !server
      ? "no server"
      : server.state === "ready" && busy
        ? "generating"
        : plain(server.state);
    setText(this.#state, word);
    setText(this.#sign, STATES[word] ?? "\u25cb");
    setAttribute(this.el, "data-state", word);
    setText(this.#model, server ? plain(server.model ?? server.name) : "llamatelemetry");
    setAttribute(this.#model, "title", server?.model ? plain(server.model) : null);
    const hint = server ? null : "start one: %llama start";
    const context = server?.ctx_per_slot ? `${count(server.ctx_per_slot)} tokens per slot` : null;
    setText(
      this.#engine,
      [server?.engine && plain(server.engine), context, hint].filter(Boolean).join(" \u00b7 "),
    );
    const quiet = quietS === null ? "" : `no data for ${duration(quietS)}`;
    setText(this.#fresh, paused ? "paused" : sinceMs === null ? quiet : `readings ${since(sinceMs)}`);

    const live = busy ? newest("tokens", "/decode") : null;
    this.#set(
      "tokens_per_s",
      rate(live || server?.decode_tokens_per_s),
      live ? "now" : server?.decode_tokens_per_s != null ? "last call" : "",
    );
    this.#set("ttft", duration(server?.ttft_s), server?.ttft_s != null ? "last call" : "");
    const slots =
      busy === null ? NA : server?.slots ? `${count(busy)} / ${count(server.slots)}` : count(busy);
    this.#set("slots", slots, queued ? `${count(queued)} queued` : "");
    const tokens = newest("kv", "") ?? server?.kv_tokens ?? null;
    const capacity = server?.kv_capacity ?? null;
    const filled = tokens !== null && capacity ? tokens / capacity : null;
    this.#set(
      "kv",
      filled === null ? count(tokens) : percent(filled),
      capacity ? `${count(tokens)} / ${count(capacity)}` : "",
    );
    this.#kvBar.hidden = filled === null;
    this.#bar.style.width = `${Math.min(100, (filled ?? 0) * 100)}%`;
    this.#set(
      "calls",
      count(totals?.calls ?? 0),
      totals?.errors ? `${count(totals.errors)} error ${totals.errors === 1 ? "span" : "spans"}` : "",
    );
    this.#set("input_tokens", count(totals?.input_tokens ?? 0), "");
    this.#set("output_tokens", count(totals?.output_tokens ?? 0), "");
    const traces = totals?.traces ?? 0;
    this.#set(
      "spans",
      count(totals?.spans ?? 0),
      traces ? `${count(traces)} ${traces === 1 ? "trace" : "traces"}` : "",
    );
  }

  /**
   * @param {string} field
   * @param {string} value
   * @param {string} note
   */
  #set(field, value, note) {
    const figure = this.#figures.get(field);
    if (!figure) return;
    setText(figure.value, value);
    setText(figure.note, note);
  }
}

/**
 * @param {import("../history.js").History} history
 * @param {string} group
 * @param {string} suffix
 * @param {number} row
 * @param {string | undefined} server
 */
function latest(history, group, suffix, row, server) {
  const ours = history.series.findIndex(
    (s) => s.group === group && s.id.endsWith(suffix) && s.server === server,
  );
  const any = history.series.findIndex((s) => s.group === group && s.id.endsWith(suffix));
  const column = ours < 0 ? any : ours;
  return column < 0 ? null : history.valueAt(column, row);
}
