/**
 * The dashboard: one model, one store, one frame loop; the views draw what a frame says.
 *
 * While it is on a page it hides the static picture of the same dashboard, which is there for readers without a kernel.
 */

import "./style.css";
import { h, setText } from "./dom.js";
import { History } from "./history.js";
import { Model } from "./model.js";
import { Store, WINDOWS_MS } from "./store.js";
import { Theme } from "./theme.js";
import { Memory } from "./views/memory.js";
import { Now } from "./views/now.js";
import { Rates } from "./views/rates.js";
import { Waterfall } from "./views/waterfall.js";
import { asSnapshot, decode } from "./wire.js";

/** @import { AnyModel } from "./model.js" */
/** @import { Device, Server, Totals } from "./types.js" */

/**
 * @typedef {{ store: Store, theme: Theme, signal: AbortSignal, onPick: (tMs: number) => void }} Shared
 * @typedef {{ server: Server | null, totals: Totals | null, devices: readonly Device[] }} State
 * @typedef {{
 *   history: History, state: State, range: readonly [number, number], width: number, theme: Theme,
 *   band: readonly [number, number] | null, row: number, cursorRow: number, selected: string | null,
 *   paused: boolean, quietS: number | null,
 * }} Frame
 */

const QUIET_S = 5;
const MIN_WIDTH = 280;

/** @param {{ model: AnyModel, el: HTMLElement }} context */
function render({ model: given, el }) {
  const stop = new AbortController();
  const { signal } = stop;
  const root = h("div", { class: "llamatelemetry", "data-lm-suppress-shortcuts": "true" });
  el.append(root);
  const model = new Model(given, signal);
  const history = new History();
  const store = new Store();
  const theme = new Theme(root);
  let heardAt = performance.now();
  /** @type {{ state: State, nowMs: number } | null} What was there when the reader paused. */
  let frozen = null;
  let asked = 0;

  const onPick = (/** @type {number} */ t) => {
    const hit = [...history.spans.values()]
      .filter((s) => s.start_ms <= t && t <= s.end_ms)
      .sort((a, b) => (b.depth ?? 0) - (a.depth ?? 0))[0];
    store.set({ selected: hit?.span_id ?? null });
  };
  const shared = { store, theme, signal, onPick };
  const views = [
    new Now(),
    new Memory(shared),
    new Rates(shared, { group: "tokens", title: "Tokens per second", height: 84, counted: false }),
    new Rates(shared, { group: "slots", title: "Slots", height: 72, counted: true, time: true }),
    new Waterfall(shared),
  ];
  const [now, ...panels] = views;
  root.append(/** @type {Now} */ (now).el, controls(store, signal, () => visible()), ...panels.map((view) => view.el));

  let queued = false;
  let seen = true;
  const schedule = () => {
    if (queued || !seen || signal.aborted) return;
    queued = true;
    requestAnimationFrame(() => {
      queued = false;
      if (!signal.aborted) draw();
    });
  };

  /** @returns {readonly [number, number]} */
  const visible = () => store.range(frozen?.nowMs ?? history.nowMs);

  const draw = () => {
    const { paused, selected, cursorMs } = store.view;
    const live = { server: history.server, totals: history.totals, devices: history.devices };
    if (paused) frozen ??= { state: live, nowMs: history.nowMs };
    else frozen = null;
    const chart = root.querySelector(".ll-chart");
    const width = Math.max(MIN_WIDTH - 40, Math.floor(chart?.clientWidth ?? root.clientWidth));
    const range = visible();
    const row = history.rowAt(frozen?.nowMs ?? Number.POSITIVE_INFINITY);
    const span = selected === null ? undefined : history.spans.get(selected);
    const quiet = (performance.now() - heardAt) / 1000;
    /** @type {Frame} */
    const frame = {
      history,
      state: frozen?.state ?? live,
      range,
      width,
      theme,
      band: span ? [span.start_ms, span.end_ms] : null,
      row,
      cursorRow: cursorMs === null ? row : history.rowAt(cursorMs),
      selected,
      paused,
      quietS: quiet > QUIET_S ? Math.floor(quiet) : null,
    };
    for (const view of views) view.render(frame);
  };

  const load = () => {
    const snapshot = asSnapshot(model.snapshot);
    if (snapshot) {
      if (history.seq === 0) store.set({ windowMs: nearest((snapshot.window_s || 120) * 1000) });
      history.load(snapshot, model.seq);
    }
    schedule();
  };
  model.onSnapshot(load);
  model.onMessage((content, buffers) => {
    const message = decode(content, buffers);
    if (!message) return;
    heardAt = performance.now();
    history.apply(message);
    if (history.needsSnapshot && performance.now() - asked > 2000) {
      asked = performance.now();
      model.requestSnapshot();
    }
    schedule();
  });
  store.subscribe(schedule, signal);
  theme.follow(schedule, signal);
  const size = new ResizeObserver(schedule);
  size.observe(root);
  const sight = new IntersectionObserver((entries) => {
    seen = entries.some((entry) => entry.isIntersecting);
    schedule();
  });
  sight.observe(root);
  // Data that stopped coming must be said, too; once in a few seconds is enough.
  const timer = setInterval(schedule, 3000);
  const hide = hideStatic(model.staticId);
  signal.addEventListener(
    "abort",
    () => {
      size.disconnect();
      sight.disconnect();
      clearInterval(timer);
      hide?.remove();
      root.remove();
    },
    { once: true },
  );
  load();
  return () => stop.abort();
}

/**
 * @param {Store} store
 * @param {AbortSignal} signal
 * @param {() => readonly [number, number]} visible
 */
function controls(store, signal, visible) {
  const pause = h("button", { type: "button", class: "ll-button", "data-action": "pause" }, "Pause");
  const follow = h("button", { type: "button", class: "ll-button", "data-action": "follow" }, "Follow");
  pause.addEventListener("click", () => store.set({ paused: !store.view.paused }), { signal });
  follow.addEventListener("click", () => store.setFollow(!store.view.follow, visible()), { signal });
  const windows = WINDOWS_MS.map((ms) => {
    const label = ms < 60_000 ? `${ms / 1000} s` : `${ms / 60_000} min`;
    const button = h("button", { type: "button", class: "ll-button", "data-window": ms }, label);
    button.addEventListener("click", () => store.setWindow(ms), { signal });
    return button;
  });
  const show = () => {
    const { paused, follow: following, windowMs } = store.view;
    setText(pause, paused ? "Resume" : "Pause");
    pause.setAttribute("aria-pressed", String(paused));
    follow.setAttribute("aria-pressed", String(following));
    windows.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(WINDOWS_MS[i] === windowMs));
    });
  };
  store.subscribe(show, signal);
  show();
  const group = h("div", { class: "ll-group", role: "group", "aria-label": "Window" }, ...windows);
  return h("div", { class: "ll-controls", role: "toolbar", "aria-label": "Dashboard" }, pause, follow, group);
}

/** @param {number} ms */
function nearest(ms) {
  return WINDOWS_MS.find((window) => window >= ms) ?? WINDOWS_MS[2];
}

/** @param {string | null} id */
function hideStatic(id) {
  if (id === null) return null;
  const style = h("style", {}, `[data-llamatelemetry-static="${id}"]{display:none}`);
  document.head.append(style);
  return style;
}

export default { render };
