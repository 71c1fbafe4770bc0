/** The header: which model, in what state, how fast, how full, and what it all came to. */

import { own } from "../believed.js";
import { cut, maximum, total } from "../columns.js";
import { consume, h, setAttribute, setText } from "../dom.js";
import { count, duration, NA, percent, plain, rate, since } from "../format.js";
import { Sparkline } from "../sparkline.js";
import { OWNERS, SPANS, STATES, spanKind } from "../theme.js";

/** @import { Frame, Lost } from "../dashboard.js" */
/** @import { History } from "../history.js" */
/** @import { Look } from "../theme.js" */
/** @import { Server } from "../types.js" */

/** Field, label, and the look of its history where it has one. @type {[string, string, Look?][]} */
const FIGURES = [
  ["tokens_per_s", "decode tokens/s", SPANS["decode"]],
  ["prefill", "prefill tokens/s", SPANS["prefill"]],
  ["ttft", "first token", SPANS["chat"]],
  ["slots", "slots busy", SPANS["queue"]],
  ["kv", "KV cache", OWNERS["kv"]],
  ["power", "power", OWNERS["unknown"]],
  ["calls", "calls"],
  ["input_tokens", "tokens in"],
  ["output_tokens", "tokens out"],
  ["spans", "spans"],
];

/** @typedef {{ el: HTMLButtonElement, value: HTMLElement, note: HTMLElement, spark: Sparkline | null, look: Look | undefined }} Figure */

export class Now {
  el;
  #sign = h("span", { class: "ll-sign", "aria-hidden": "true" });
  #state = h("span", { class: "ll-state", "data-field": "state" });
  #model = h("strong", { class: "ll-model", "data-field": "model" });
  #engine = h("span", { class: "ll-engine", "data-field": "engine" });
  #fresh = h("span", { class: "ll-fresh", "data-field": "fresh" });
  #bar = h("span", { class: "ll-bar-fill" });
  #progress = h(
    "div",
    { class: "ll-bar", role: "progressbar", "aria-label": "Start of the server" },
    this.#bar,
  );
  #definition = h("p", { role: "status", "data-field": "definition" });
  /** One line, always there. */
  line = h("div", { class: "ll-definition" }, this.#definition);
  /** @type {Map<string, Figure>} */
  #figures = new Map();
  /** The figure that is explained. @type {string | null} */
  #explained = null;
  /** @type {Readonly<Record<string, unknown>>} */
  #titles = {};

  /** @param {AbortSignal} signal */
  constructor(signal) {
    const lists = { true: h("ul", { class: "ll-figures" }), false: h("ul", { class: "ll-totals" }) };
    for (const [field, label, look] of FIGURES) {
      const value = h("span", { class: "ll-number", "data-field": field });
      const note = h("span", { class: "ll-note" });
      const spark = look ? new Sparkline() : null;
      const el = h(
        "button",
        {
          type: "button",
          class: "ll-figure",
          tabindex: this.#figures.size === 0 ? 0 : -1,
          "data-figure": field,
        },
        h("span", { class: "ll-label" }, label),
        value,
        note,
        spark?.el,
      );
      el.addEventListener("click", () => this.#explain(this.#explained === field ? null : field), { signal });
      el.addEventListener("focus", () => this.#focused(field), { signal });
      this.#figures.set(field, { el, value, note, spark, look });
      lists[`${look !== undefined}`].append(h("li", {}, el));
    }
    const badge = h("span", { class: "ll-badge", role: "status" }, this.#sign, this.#state);
    const figures = h(
      "div",
      { role: "group", "aria-label": "Figures; press one for what it is" },
      lists.true,
      lists.false,
    );
    this.#definition.addEventListener("click", () => this.#explain(null), { signal });
    figures.addEventListener("keydown", (event) => this.#onKey(event), { signal });
    this.el = h(
      "div",
      { class: "ll-now" },
      h("div", { class: "ll-title" }, badge, this.#model, this.#engine, this.#fresh),
      this.#progress,
      figures,
      this.line,
    );
  }

  /** @param {Frame} frame */
  render(frame) {
    const { history, state, row, paused, quietS, lost } = frame;
    const { server, totals } = state;
    this.#titles = history.titles;
    for (const [field, { el }] of this.#figures) setAttribute(el, "title", this.#definitionOf(field) || null);
    this.#explain(this.#explained);
    // What was read last is not what is now: the state says since when.
    const sinceMs = server?.since_ms ?? state.sinceMs;
    const current = (/** @type {string} */ group, /** @type {string} */ suffix) =>
      sinceMs === null ? valueIn(history, columnOf(history, group, suffix, server), row) : null;
    const busy = current("slots", "/busy") ?? server?.slots_busy ?? null;
    const queued = current("slots", "/queued") ?? server?.queued ?? 0;
    this.#renderState(server, busy, lost);
    const quiet = quietS === null || lost ? "" : `no data for ${duration(quietS)}`;
    setText(this.#fresh, paused ? "paused" : sinceMs === null ? quiet : `readings ${since(sinceMs)}`);

    const live = busy ? current("tokens", "/decode") : null;
    this.#set(
      "tokens_per_s",
      rate(live || server?.decode_tokens_per_s),
      live ? "now" : server?.decode_tokens_per_s != null ? "last call" : "",
    );
    const prefill = server?.prefill_tokens_per_s;
    this.#set("prefill", rate(prefill), prefill != null ? "last call" : "");
    this.#set("ttft", duration(server?.ttft_s), server?.ttft_s != null ? "last call" : "");
    const slots =
      busy === null ? NA : server?.slots ? `${count(busy)} / ${count(server.slots)}` : count(busy);
    this.#set("slots", slots, queued ? `${count(queued)} queued` : "");
    const tokens = current("kv", "") ?? server?.kv_tokens ?? null;
    const capacity = server?.kv_capacity ?? null;
    this.#set(
      "kv",
      tokens !== null && capacity ? percent(tokens / capacity) : count(tokens),
      capacity ? `${count(tokens)} / ${count(capacity)}` : "",
    );
    this.#set("power", ...power(frame, sinceMs));
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
      traces ? `in ${count(traces)} ${traces === 1 ? "trace" : "traces"}` : "",
    );
    this.#renderSparks(frame);
  }

  /**
   * @param {Server | null} server
   * @param {number | null} busy
   * @param {Lost | null} lost
   */
  #renderState(server, busy, lost) {
    if (lost) {
      this.#say(lost.word, server, "unreachable", [lost.why]);
      this.#renderBar(null, null);
      return;
    }
    const word = !server
      ? "no server"
      : server.state === "ready" && busy
        ? "generating"
        : plain(server.state);
    const stage = server?.stage ? plain(server.stage) : null;
    const fraction = server?.fraction ?? null;
    const context = server?.ctx_per_slot ? `${count(server.ctx_per_slot)} tokens per slot` : null;
    /** @type {(string | null | undefined | false)[]} */
    const facts = !server
      ? ["start one: %llama start"]
      : stage
        ? [stage, fraction !== null && percent(fraction)]
        : server.reason
          ? [plain(server.reason), server.remedy && `try: ${plain(server.remedy)}`]
          : [server.engine && plain(server.engine), context];
    this.#say(word, server, word, facts);
    setAttribute(this.#engine, "title", server?.reason ? this.#engine.textContent : null);
    this.#renderBar(stage, fraction);
  }

  /**
   * @param {string} word
   * @param {Server | null} server
   * @param {string} state Key of STATES.
   * @param {readonly (string | null | undefined | false)[]} facts
   */
  #say(word, server, state, facts) {
    setText(this.#state, word);
    setText(this.#sign, own(STATES, state) ?? "\u25cb");
    setAttribute(this.el, "data-state", state);
    setText(this.#model, server ? plain(server.model ?? server.name) : "llamatelemetry");
    setAttribute(this.#model, "title", server?.model ? plain(server.model) : null);
    setText(this.#engine, facts.filter(Boolean).join(" \u00b7 "));
  }

  /**
   * @param {string | null} stage
   * @param {number | null} fraction 0..1
   */
  #renderBar(stage, fraction) {
    setAttribute(this.#progress, "data-on", stage !== null);
    setAttribute(this.#progress, "aria-hidden", stage === null ? "true" : null);
    setAttribute(this.#progress, "aria-valuetext", stage);
    setAttribute(this.#progress, "aria-valuenow", fraction === null ? null : Math.round(fraction * 100));
    setAttribute(this.#progress, "data-unknown", stage !== null && fraction === null);
    this.#bar.style.width = `${Math.min(1, Math.max(0, fraction ?? 1)) * 100}%`;
  }

  /** @param {Frame} frame */
  #renderSparks({ history, state, range, width, theme, until }) {
    const { server } = state;
    /** @param {readonly number[]} columns @param {number} least */
    const line = (columns, least) => {
      const { t, values } = cut(
        history,
        columns.filter((column) => column >= 0),
        range,
      );
      const shown = total(values).map((value, i) => ((t[i] ?? 0) <= until ? value : null));
      return { t, values: shown, max: Math.max(least, maximum([shown])) };
    };
    const dots = (/** @type {"ttft_s" | "prefill_tokens_per_s"} */ field) => {
      const calls = [...history.spans.values()].filter(
        (span) => span[field] != null && span.end_ms <= until && spanKind(span.name) === "chat",
      );
      const values = calls.map((span) => span[field] ?? null);
      const t = calls.map((span) => span.start_ms + (span.ttft_s ?? 0) * 1000);
      return { t, values, max: maximum([values]), dots: true };
    };
    const one = (/** @type {string} */ group, /** @type {string} */ suffix) => [
      columnOf(history, group, suffix, server),
    ];
    const watts = () => history.series.flatMap(({ group }, i) => (group === "power" ? [i] : []));
    const makers = {
      tokens_per_s: () => line(one("tokens", "/decode"), 1),
      prefill: () => dots("prefill_tokens_per_s"),
      ttft: () => dots("ttft_s"),
      slots: () => line(one("slots", "/busy"), server?.slots ?? 1),
      kv: () => line(one("kv", ""), server?.kv_capacity ?? 1),
      power: () => line(watts(), 1),
    };
    for (const [field, make] of Object.entries(makers)) {
      const { spark, look } = this.#figures.get(field) ?? {};
      if (spark && look) spark.render({ version: history.version, range, width, theme, look, make });
    }
  }

  /** @param {string} field */
  #definitionOf(field) {
    const title = this.#titles[field];
    return typeof title === "string" ? plain(title) : "";
  }

  /** @param {string | null} field */
  #explain(field) {
    this.#explained = field;
    for (const [name, { el }] of this.#figures) setAttribute(el, "aria-pressed", String(name === field));
    const label = FIGURES.find(([name]) => name === field)?.[1];
    setText(this.#definition, field === null ? "" : `${label}: ${this.#definitionOf(field) || NA}`);
  }

  /** @param {string} field */
  #focused(field) {
    for (const [name, { el }] of this.#figures) setAttribute(el, "tabindex", name === field ? 0 : -1);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.key === "Escape" && this.#explained !== null) {
      consume(event);
      this.#explain(null);
      return;
    }
    const fields = [...this.#figures.keys()];
    const at = fields.findIndex((field) => this.#figures.get(field)?.el === document.activeElement);
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: fields.length - 1 };
    const to = moves[event.key];
    if (to === undefined || at < 0) return;
    consume(event);
    const field = fields[(to + fields.length) % fields.length] ?? "";
    this.#figures.get(field)?.el.focus();
    if (this.#explained !== null) this.#explain(field);
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
 * What the GPUs draw together, and of how many of them that is.
 *
 * @param {Frame} frame
 * @param {number | null} sinceMs
 * @returns {[string, string]}
 */
function power({ history, state, row }, sinceMs) {
  const gpus = state.devices.filter((device) => device.id !== "host");
  if (gpus.length === 0) return [NA, "no GPU"];
  const told = gpus.flatMap(({ id, power_w, since_ms }) => {
    const column = history.series.findIndex((s) => s.id === `power/${id}`);
    const watts = sinceMs !== null || since_ms != null ? null : (valueIn(history, column, row) ?? power_w);
    return watts == null ? [] : [watts];
  });
  if (told.length === 0) return [NA, ""];
  const all = `${gpus.length} ${gpus.length === 1 ? "GPU" : "GPUs"}`;
  const watts = told.reduce((sum, one) => sum + one, 0);
  return [`${watts.toFixed(0)} W`, told.length < gpus.length ? `${told.length} of ${all}` : all];
}

/**
 * @param {History} history
 * @param {number} column
 * @param {number} row
 */
function valueIn(history, column, row) {
  return column < 0 ? null : history.valueAt(column, row);
}

/**
 * The column of the shown server, else of any.
 *
 * @param {History} history
 * @param {string} group
 * @param {string} suffix
 * @param {Server | null} server
 */
function columnOf(history, group, suffix, server) {
  const fits = history.series.map((s) => s.group === group && s.id.endsWith(suffix));
  const ours = fits.findIndex((fit, i) => fit && history.series[i]?.server === server?.name);
  return ours < 0 ? fits.indexOf(true) : ours;
}
