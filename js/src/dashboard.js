/**
 * The dashboard's entry: one history per widget, one store and one frame loop per view of it.
 *
 * Messages can come before a view exists, so they are collected where the model is initialised. While a view is on a
 * page it hides the static picture of the same dashboard, which is there for readers without a kernel.
 */

import "./style.css";
import { consume, h, hideStatic, setAttribute, setText } from "./dom.js";
import { History } from "./history.js";
import { Model } from "./model.js";
import { Store, WINDOWS_MS } from "./store.js";
import { spanKind, Theme } from "./theme.js";
import { Graph } from "./views/graph.js";
import { Memory } from "./views/memory.js";
import { Now } from "./views/now.js";
import { Rates } from "./views/rates.js";
import { Traces } from "./views/traces.js";
import { Waterfall } from "./views/waterfall.js";
import { asSnapshot, decode } from "./wire.js";

/** @import { AnyModel, OnProgress } from "./model.js" */
/** @import { Device, Server, Span, Totals } from "./types.js" */

/**
 * @typedef {{
 *   store: Store, theme: Theme, signal: AbortSignal, onPick: (tMs: number) => void, onShow: (span: Span) => void,
 *   visible: () => readonly [number, number],
 *   request: (op: string, args?: Record<string, unknown>, onProgress?: OnProgress) => Promise<any>,
 * }} Shared What a view may use besides what it draws.
 * @typedef {{ el: HTMLElement, render(frame: Frame): void }} View A part of the page; drawn while its tab is shown.
 * @typedef {{ id: string, label: string, views: readonly View[] }} Tab
 * @typedef {{
 *   server: Server | null, totals: Totals | null, devices: readonly Device[], sinceMs: number | null,
 * }} State
 * @typedef {{
 *   history: History, state: State, range: readonly [number, number], until: number, width: number, theme: Theme,
 *   band: readonly [number, number] | null, row: number, cursorRow: number, selected: string | null,
 *   paused: boolean, quietS: number | null,
 * }} Frame What the views draw: `row` is the newest that is shown, `cursorRow` the one that figures are read from,
 *   `until` the newest time that is shown.
 */

const QUIET_S = 5;
/** A snapshot is asked for at most this often. */
const ASK_MS = 5000;

/** What the front end knows of one widget, for all of its views. */
class Live {
  history = new History();
  heardAt = performance.now();
  /** @type {Set<() => void>} */
  #views = new Set();
  #asked = Number.NEGATIVE_INFINITY;
  #model;

  /** @param {Model} model */
  constructor(model) {
    this.#model = model;
    model.onSnapshot(() => this.#load());
    model.onMessage((content, buffers) => this.#receive(content, buffers));
    this.#load();
  }

  /**
   * @param {() => void} changed
   * @param {AbortSignal} signal
   */
  watch(changed, signal) {
    this.#views.add(changed);
    signal.addEventListener("abort", () => this.#views.delete(changed), { once: true });
  }

  #load() {
    const snapshot = asSnapshot(this.#model.snapshot);
    if (!snapshot) return;
    this.heardAt = performance.now();
    this.history.load(snapshot, this.#model.seq);
    for (const changed of this.#views) changed();
  }

  /**
   * @param {unknown} content
   * @param {readonly DataView[]} buffers
   */
  #receive(content, buffers) {
    const message = decode(content, buffers);
    if (!message) return;
    this.heardAt = performance.now();
    this.history.apply(message);
    if (this.history.needsSnapshot && performance.now() - this.#asked > ASK_MS) {
      this.#asked = performance.now();
      this.#model.requestSnapshot();
    }
    for (const changed of this.#views) changed();
  }
}

/**
 * @param {Live} live
 * @param {Model} model
 * @param {HTMLElement} el
 * @param {AbortSignal} signal
 */
function show(live, model, el, signal) {
  const { history } = live;
  const root = h("div", {
    class: "llamatelemetry",
    role: "region",
    "aria-label": "llamatelemetry dashboard",
    "data-lm-suppress-shortcuts": "true",
  });
  el.append(root);
  const store = new Store();
  store.set({ windowMs: WINDOWS_MS.find((ms) => ms >= history.windowMs) ?? WINDOWS_MS[2] });
  const theme = new Theme(root);
  /** @type {{ state: State, nowMs: number, rowMs: number } | null} What was there when the reader paused. */
  let frozen = null;

  const visible = () => store.range(frozen?.nowMs ?? (history.nowMs || Date.now()), history.firstMs);
  /** @type {Shared} */
  const shared = {
    store,
    theme,
    signal,
    visible,
    request: (op, args, onProgress) => model.request(op, args, onProgress),
    onPick: (t) => store.set({ selected: spanAt(history.spans.values(), t)?.span_id ?? null }),
    onShow: ({ span_id, start_ms, end_ms }) => {
      const half = Math.max(store.view.windowMs, (end_ms - start_ms) * 1.2) / 2;
      const middle = (start_ms + end_ms) / 2;
      store.set({ follow: false, range: [middle - half, middle + half], selected: span_id });
    },
  };
  const now = new Now();
  // All on one time axis and with one selection: what is chosen in one is shown in the others.
  /** @type {readonly Tab[]} */
  const tabs = [
    {
      id: "now",
      label: "Now",
      views: [
        new Memory(shared),
        new Rates(shared, { group: "tokens", title: "Tokens per second", height: 96, counted: false }),
        new Rates(shared, { group: "slots", title: "Slots", height: 94, counted: true, time: true }),
        new Waterfall(shared),
      ],
    },
    { id: "traces", label: "Traces", views: [new Traces(shared)] },
    { id: "graph", label: "Graph", views: [new Graph(shared)] },
  ];
  const pages = tabs.map(({ id, label, views }) =>
    h(
      "div",
      { class: "ll-page", role: "tabpanel", "aria-label": label, "data-page": id },
      ...views.map((v) => v.el),
    ),
  );
  root.append(now.el, controls(store, signal, visible, tabs), ...pages);

  let later = 0;
  const draw = () => {
    const { paused, selected, cursorMs } = store.view;
    const { server, totals, devices, sinceMs } = history;
    const state = { server, totals, devices, sinceMs };
    frozen = paused ? (frozen ?? { state, nowMs: history.nowMs, rowMs: history.t.at(-1) ?? 0 }) : null;
    const until = frozen?.nowMs ?? Number.POSITIVE_INFINITY;
    const row = history.rowAt(frozen?.rowMs ?? until);
    const span = selected === null ? undefined : history.spans.get(selected);
    const quietS = (performance.now() - live.heardAt) / 1000;
    const width = root.querySelector(".ll-page:not([hidden]) .ll-chart")?.clientWidth ?? chartWidth(root);
    if (width < 120) {
      // JupyterLab takes the page apart for a moment while it changes its theme; no observer tells when it is back.
      clearTimeout(later);
      later = setTimeout(schedule, 100);
      return;
    }
    if (!theme.known) theme.read();
    /** @type {Frame} */
    const frame = {
      history,
      state: frozen?.state ?? state,
      range: visible(),
      until,
      width,
      theme,
      band: span ? [span.start_ms, span.end_ms] : null,
      row,
      cursorRow: cursorMs === null ? row : Math.min(row, history.rowAt(cursorMs)),
      selected,
      paused,
      quietS: quietS > QUIET_S ? Math.floor(quietS) : null,
    };
    now.render(frame);
    tabs.forEach((tab, i) => {
      const page = pages[i];
      if (page) page.hidden = tab.id !== store.view.tab;
      if (tab.id === store.view.tab) for (const view of tab.views) view.render(frame);
    });
    setAttribute(root, "data-seq", history.seq);
    setAttribute(root, "data-rows", history.t.length);
    setAttribute(root, "data-drawn", theme.dark ? "dark" : "light");
  };

  let queued = false;
  let seen = true;
  const schedule = () => {
    if (queued || !seen || signal.aborted) return;
    queued = true;
    requestAnimationFrame(() => {
      queued = false;
      if (!signal.aborted && root.isConnected) draw();
    });
  };
  live.watch(schedule, signal);
  store.subscribe(schedule, signal);
  // At once: style sheet and canvases change their colours in the same frame.
  theme.follow(() => void (seen ? draw() : schedule()), signal);
  const size = new ResizeObserver(schedule);
  size.observe(root);
  const sight = new IntersectionObserver((entries) => {
    seen = entries.some((entry) => entry.isIntersecting);
    schedule();
  });
  sight.observe(root);
  root.addEventListener(
    "keydown",
    (event) => {
      const { selected, cursorMs, follow } = store.view;
      if (event.key !== "Escape" || (selected === null && cursorMs === null && follow)) return;
      consume(event);
      store.set({ selected: null, cursorMs: null, follow: true, range: null });
    },
    { signal },
  );
  // That data stopped coming has to be said although nothing comes that would say it.
  const timer = setInterval(schedule, 3000);
  const hiding = hideStatic(model.staticId);
  signal.addEventListener(
    "abort",
    () => {
      size.disconnect();
      sight.disconnect();
      clearInterval(timer);
      clearTimeout(later);
      hiding?.remove();
      root.remove();
    },
    { once: true },
  );
  schedule();
}

/**
 * @param {Store} store
 * @param {AbortSignal} signal
 * @param {() => readonly [number, number]} visible
 * @param {readonly Tab[]} tabs
 */
function controls(store, signal, visible, tabs) {
  const pause = h("button", { type: "button", class: "ll-button", "data-action": "pause" });
  const follow = h("button", { type: "button", class: "ll-button", "data-action": "follow" }, "Follow");
  setAttribute(follow, "title", "Keep the newest data in view; drag in a chart to look closer");
  pause.addEventListener("click", () => store.set({ paused: !store.view.paused }), { signal });
  follow.addEventListener("click", () => store.setFollow(!store.view.follow, visible()), { signal });
  const windows = WINDOWS_MS.map((ms) => {
    const label = ms < 60_000 ? `${ms / 1000} s` : `${ms / 60_000} min`;
    const button = h("button", { type: "button", class: "ll-button", "data-window": ms }, label);
    button.addEventListener("click", () => store.setWindow(ms), { signal });
    return button;
  });
  const places = tabs.map(({ id, label }) => {
    const tab = h("button", { type: "button", class: "ll-tab", role: "tab", "data-tab": id }, label);
    tab.addEventListener("click", () => store.set({ tab: id }), { signal });
    return tab;
  });
  const strip = h("div", { class: "ll-tabs", role: "tablist", "aria-label": "Views" }, ...places);
  strip.addEventListener(
    "keydown",
    (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined) return;
      consume(event);
      const at = tabs.findIndex(({ id }) => id === store.view.tab);
      const next = (at + step + tabs.length) % tabs.length;
      store.set({ tab: tabs[next]?.id ?? store.view.tab });
      places[next]?.focus();
    },
    { signal },
  );
  const update = () => {
    tabs.forEach(({ id }, i) => {
      const chosen = id === store.view.tab;
      setAttribute(places[i] ?? strip, "aria-selected", String(chosen));
      setAttribute(places[i] ?? strip, "tabindex", chosen ? 0 : -1);
    });
    const { paused, follow: following, windowMs } = store.view;
    setText(pause, paused ? "\u25b6 Resume" : "\u2016 Pause");
    setAttribute(pause, "aria-pressed", String(paused));
    setAttribute(follow, "aria-pressed", String(following));
    windows.forEach((button, i) => {
      setAttribute(button, "aria-pressed", String(following && WINDOWS_MS[i] === windowMs));
    });
  };
  store.subscribe(update, signal);
  update();
  const group = h("div", { class: "ll-group", role: "group", "aria-label": "Time shown" }, ...windows);
  return h(
    "div",
    { class: "ll-controls", role: "toolbar", "aria-label": "View" },
    strip,
    pause,
    group,
    follow,
  );
}

/**
 * How wide a chart beside its figures is, where none is on the page: the sides' width is the style sheet's.
 *
 * @param {HTMLElement} root
 */
function chartWidth(root) {
  const style = getComputedStyle(root);
  return root.clientWidth - Number.parseFloat(style.paddingLeft) - Number.parseFloat(style.paddingRight);
}

/**
 * The request at a moment, because it holds the figures; else the innermost span.
 *
 * @param {Iterable<Span>} spans
 * @param {number} tMs
 */
function spanAt(spans, tMs) {
  const hits = [...spans].filter((span) => span.start_ms <= tMs && tMs <= span.end_ms);
  const innermost = hits.sort((a, b) => a.end_ms - a.start_ms - (b.end_ms - b.start_ms));
  return innermost.find((span) => spanKind(span.name) === "chat") ?? innermost[0];
}

/** A factory, so that what is kept between `initialize` and `render` belongs to one widget. */
export default () => {
  /** @type {Live | null} */
  let live = null;
  return {
    /** @param {{ model: AnyModel }} context */
    initialize({ model }) {
      const stop = new AbortController();
      live = new Live(new Model(model, stop.signal));
      return () => stop.abort();
    },
    /** @param {{ model: AnyModel, el: HTMLElement }} context */
    render({ model, el }) {
      const stop = new AbortController();
      const own = new Model(model, stop.signal);
      live ??= new Live(own);
      show(live, own, el, stop.signal);
      return () => stop.abort();
    },
  };
};
