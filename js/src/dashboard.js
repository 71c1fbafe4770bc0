/**
 * The dashboard's entry: one history per widget, one store and one frame loop per view of it.
 *
 * Messages can come before a view exists, so they are collected where the model is initialised. While a view is on a
 * page it hides the static picture of the same dashboard, which is there for readers without a kernel.
 */

import "./style.css";
import { ANSWERS } from "./answers.js";
import { asSnapshot, own, record } from "./believed.js";
import { Controls } from "./controls.js";
import { consume, h, hideStatic, setAttribute } from "./dom.js";
import { duration } from "./format.js";
import { TimeAxis } from "./gestures.js";
import { History } from "./history.js";
import { Model, Refused } from "./model.js";
import { Store, WINDOWS_MS } from "./store.js";
import { Strip } from "./strip.js";
import { spanKind, Theme } from "./theme.js";
import { Graph } from "./views/graph.js";
import { Memory } from "./views/memory.js";
import { Now } from "./views/now.js";
import { Rates } from "./views/rates.js";
import { Traces } from "./views/traces.js";
import { Waterfall } from "./views/waterfall.js";
import { decode } from "./wire.js";

/** @import { AnyModel, OnProgress } from "./model.js" */
/** @import { Device, Server, Span, Totals } from "./types.js" */

/**
 * @typedef {{
 *   store: Store, axis: TimeAxis, theme: Theme, signal: AbortSignal, onPick: (tMs: number) => void, onShow: (span: Span) => void,
 *   visible: () => readonly [number, number], redraw: () => void,
 *   request: (op: string, args?: Record<string, unknown>, onProgress?: OnProgress) => Promise<any>,
 * }} Shared What a view may use besides what it draws.
 * @typedef {{ el: HTMLElement, render(frame: Frame): void }} View A part of the page; drawn while its tab is shown.
 * @typedef {{ id: string, label: string, views: readonly View[] }} Tab
 * @typedef {{
 *   server: Server | null, totals: Totals | null, devices: readonly Device[], sinceMs: number | null,
 * }} State
 * @typedef {{ word: string, why: string }} Lost Why what is shown is no longer so: two words, and what to type.
 * @typedef {{
 *   history: History, state: State, range: readonly [number, number], until: number, width: number, theme: Theme,
 *   band: readonly [number, number] | null, row: number, cursorRow: number, selected: string | null,
 *   paused: boolean, quietS: number | null, lost: Lost | null,
 * }} Frame What the views draw: `row` is the newest that is shown, `cursorRow` the one that figures are read from,
 *   `until` the newest time that is shown.
 */

const QUIET_S = 5;
/** The shortest range that can be looked at: samples are no nearer than that. */
const LEAST_MS = 50;
/** So long without a word from the kernel, and what is shown is no picture of now. */
const LOST_S = 15;
/** What to type when something cannot be shown. */
const AGAIN = "%llama dashboard";
/** A snapshot is asked for at most this often. */
const ASK_MS = 5000;

/** What the front end knows of one widget, for all of its views. */
class Live {
  history = new History();
  heardAt = performance.now();
  /** What came and could not be read, since the last snapshot that could. */
  lost = { count: 0 };
  /** Whether the kernel has ended: a host tells that its connection has changed, not how, and only a message proves life. */
  gone = false;
  /** @type {Set<() => void>} */
  #views = new Set();
  #asked = Number.NEGATIVE_INFINITY;
  #model;

  /** @param {Model} model */
  constructor(model) {
    this.#model = model;
    model.onSnapshot(() => this.#load());
    model.onMessage((content, buffers) => this.#receive(content, buffers));
    model.onConnection(() => {
      this.gone = true;
      for (const changed of this.#views) changed();
    });
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

  /** @param {number} count Parts of what came could not be read: the page says so. */
  missed(count) {
    this.lost.count += count;
    for (const changed of this.#views) changed();
  }

  #heard() {
    this.heardAt = performance.now();
    this.gone = false;
  }

  #load() {
    const given = this.#model.snapshot;
    const lost = { count: 0 };
    const snapshot = asSnapshot(given, lost);
    // Before Python fills it, the trait is empty.
    if (!snapshot && Object.keys(record(given) ?? { strange: true }).length > 0) this.missed(1);
    if (!snapshot) return;
    this.lost = lost;
    this.#heard();
    this.history.load(snapshot, this.#model.seq);
    for (const changed of this.#views) changed();
  }

  /**
   * @param {unknown} content
   * @param {readonly DataView[]} buffers
   */
  #receive(content, buffers) {
    const lost = { count: 0 };
    const message = decode(content, buffers, lost);
    if (lost.count > 0) this.missed(lost.count);
    if (!message) return;
    this.#heard();
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
    class: "llamatelemetry ll-ui",
    role: "region",
    "aria-label": "llamatelemetry dashboard",
    "data-lm-suppress-shortcuts": "true",
    "data-recorded": model.recorded,
  });
  el.append(root);
  const store = new Store();
  const known = WINDOWS_MS.find((ms) => ms >= history.windowMs) ?? WINDOWS_MS[2];
  store.set({ windowMs: model.recorded ? history.windowMs : known });
  const theme = new Theme(root);
  /** @type {{ state: State, nowMs: number, rowMs: number } | null} What was there when the reader paused. */
  let frozen = null;

  const visible = () => store.range(frozen?.nowMs ?? (history.nowMs || Date.now()), history.firstMs);
  const whole = () => /** @type {const} */ ([history.firstMs, frozen?.nowMs ?? history.nowMs]);
  /** @type {Shared} */
  const shared = {
    store,
    axis: new TimeAxis(store, { range: visible, whole, least: LEAST_MS }),
    theme,
    signal,
    visible,
    redraw: () => schedule(),
    request: async (op, args, onProgress) => {
      if (live.gone) throw ended();
      const answer = await model.request(op, args, onProgress);
      const check = own(ANSWERS, op);
      if (!check) return answer;
      const lost = { count: 0 };
      const made = check(answer, lost);
      if (lost.count > 0) live.missed(lost.count);
      if (made === null)
        throw new Refused(`the kernel's answer to "${op}" has a shape that is not known here`, AGAIN);
      return made;
    },
    onPick: (t) => store.set({ selected: spanAt(history.spans.values(), t)?.span_id ?? null }),
    onShow: ({ span_id, start_ms, end_ms }) => {
      const half = Math.max(store.view.windowMs, (end_ms - start_ms) * 1.2) / 2;
      const middle = (start_ms + end_ms) / 2;
      store.set({ follow: false, range: [middle - half, middle + half], selected: span_id });
    },
  };
  const now = new Now(signal);
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
  const controls = new Controls(shared, history, tabs, now.line, () => schedule());
  const strip = new Strip(signal);
  root.append(now.el, strip.el, controls.el, ...pages);
  let told = "";
  /** Say what is missing on the page; the reader may take that away until it is something else. @param {string} what */
  const tell = (what) => {
    if (what === told) return;
    told = what;
    if (what === "") strip.clear();
    else strip.show(new Refused(what, AGAIN));
  };

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
      quietS: quietS > QUIET_S && !model.recorded ? Math.floor(quietS) : null,
      lost: model.recorded ? null : lost(live.gone, Math.floor(quietS)),
    };
    const { count } = live.lost;
    const notes =
      count > 0
        ? [`${count} ${count === 1 ? "part" : "parts"} of what the kernel sent could not be read`]
        : [];
    /** What breaks takes nothing else with it. @param {View} view */
    const part = (view) => {
      try {
        view.render(frame);
      } catch (error) {
        notes.push(`${view.el.getAttribute("aria-label") ?? "a part"} could not be drawn: ${error}`);
      }
    };
    part(now);
    controls.render(live.gone);
    setAttribute(root, "data-lost", frame.lost !== null);
    tabs.forEach((tab, i) => {
      const page = pages[i];
      if (page) page.hidden = tab.id !== store.view.tab;
      if (tab.id === store.view.tab) tab.views.forEach(part);
    });
    tell(notes.join("; "));
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
  model.onConnection(() => model.abandon(ended()));
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

function ended() {
  return new Refused("The kernel was restarted or has ended", AGAIN);
}

/**
 * @param {boolean} gone
 * @param {number} quietS
 * @returns {Lost | null}
 */
function lost(gone, quietS) {
  if (gone)
    return {
      word: "kernel gone",
      why: `restarted or ended; this is how it stood; run the cell again: ${AGAIN}`,
    };
  if (quietS < LOST_S) return null;
  return {
    word: "no data",
    why: `for ${duration(quietS)}: a cell holds the kernel, or it is gone; run the cell again: ${AGAIN}`,
  };
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
