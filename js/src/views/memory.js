/** Memory of one device, stacked by owner; the list beside it names every owner's bytes at the cursor or now. */

import { valueTicks } from "../axis.js";
import { cut, maximum, stack } from "../columns.js";
import { consume, h, keyed, setAttribute, setFacts, setText } from "../dom.js";
import { bytes, NA, percent, plain, since } from "../format.js";
import { Plot } from "../plot.js";
import { OWNERS } from "../theme.js";

/** @import { Frame, Shared } from "../dashboard.js" */
/** @import { Device } from "../types.js" */

const HEIGHT = 156;
/** Owners that say nothing about the model: on the host they would dwarf it, so they are listed and not drawn. */
const BACKGROUND = new Set(["other", "unknown", "free"]);

/** @typedef {{ owner: string, key: string, column: number, drawn: boolean, value: number | null, note: string }} Entry */

export class Memory {
  el;
  #shared;
  #plot;
  #title = h("span", {}, "Memory");
  #tabs = h("div", { class: "ll-tabs", role: "tablist", "aria-label": "Device" });
  /** @type {Map<string, HTMLButtonElement>} */
  #tabByDevice = new Map();
  #list = h("ul", { class: "ll-owners" });
  /** @type {Map<string, HTMLLIElement>} */
  #rows = new Map();
  #summary = h("p", { class: "ll-summary", "data-field": "memory" });
  #load = h("p", { class: "ll-load" });
  #empty = h("p", { class: "ll-empty" }, "No memory samples yet.");

  /** @param {Shared} shared */
  constructor(shared) {
    this.#shared = shared;
    this.#plot = new Plot({ ...shared, height: HEIGHT });
    this.el = h(
      "section",
      { class: "ll-panel ll-memory", "aria-label": "Memory by owner" },
      h("h3", {}, this.#title, this.#tabs),
      h("div", { class: "ll-chart" }, this.#plot.el, this.#empty),
      h("div", { class: "ll-side" }, this.#list, this.#summary, this.#load),
    );
    this.#tabs.addEventListener("keydown", (event) => this.#onTabKey(event), { signal: shared.signal });
  }

  /** @param {Frame} frame */
  render(frame) {
    const { history, state, range, width, theme, band, row, cursorRow } = frame;
    const devices = devicesOf(frame);
    const device = devices.find((d) => d.id === this.#shared.store.view.device) ?? devices[0];
    this.#renderTabs(devices, device);
    this.#empty.hidden = device !== undefined;
    this.#plot.el.hidden = device === undefined;
    if (!device) {
      this.#list.replaceChildren();
      this.#rows.clear();
      setText(this.#summary, "");
      setText(this.#load, "");
      return;
    }
    const entries = this.#entries(frame, device);
    const drawn = entries.filter((entry) => entry.drawn && entry.column >= 0);
    const cutout = cut(
      history,
      drawn.map((entry) => entry.column),
      range,
    );
    const edges = stack(cutout.values);
    const top = maximum(edges.slice(-1));
    // A GPU's axis is its size: how full it is, is the question. The host's follows what is drawn.
    const total = device.id === "host" ? null : device.total_bytes;
    const max = Math.max(total ?? 0, top * (total === null ? 1.12 : 1), 1024);
    const looks = drawn
      .map((entry) => OWNERS[entry.owner] ?? OWNERS["unknown"])
      .filter((look) => look !== undefined);
    this.#plot.render({
      key: `${device.id} ${drawn.map((entry) => entry.owner).join()}`,
      version: history.version,
      t: cutout.t,
      // The tallest first: each lower layer is painted over it, so that every area is opaque and keeps its pattern.
      values: edges.toReversed(),
      lines: looks
        .map((look) => ({ fill: () => theme.fill(look), stroke: () => theme.color(look), width: 1 }))
        .toReversed(),
      max,
      ticks: valueTicks(max, 4, 1024),
      format: (value) => (value === 0 ? "0" : bytes(value)),
      range,
      width,
      band,
      label: `Memory of ${plain(device.name)}: ${entries.map((e) => `${label(e.owner)} ${bytes(e.value)}`).join(", ")}`,
      mark: total,
    });
    keyed(
      this.#list,
      this.#rows,
      entries.toReversed(),
      (entry) => entry.key,
      (entry) => this.#makeRow(entry),
      (el, entry) => this.#updateRow(el, entry),
    );
    const used = cursorRow === row ? device.used_bytes : null;
    // The newest row may be long past: without a reading of now there is none to show.
    const sinceMs = cursorRow === row ? (device.since_ms ?? null) : null;
    const parts = [];
    if (sinceMs !== null) parts.push(since(sinceMs));
    if (used !== null && device.total_bytes) {
      parts.push(`${bytes(used)} of ${bytes(device.total_bytes)} used`);
    } else if (device.total_bytes) parts.push(`${bytes(device.total_bytes)} in all`);
    const load = [];
    for (const [group, show] of /** @type {[string, (v: number) => string][]} */ ([
      ["util", (v) => `GPU busy ${percent(v)}`],
      ["power", (v) => `${v.toFixed(0)} W`],
    ])) {
      const column = history.series.findIndex((s) => s.id === `${group}/${device.id}`);
      const value = column < 0 || sinceMs !== null ? null : history.valueAt(column, cursorRow);
      if (value !== null) load.push(show(value));
    }
    setFacts(this.#summary, parts);
    setFacts(this.#load, load);
    setAttribute(this.el, "data-device", state.devices.length ? device.id : null);
  }

  /**
   * @param {Frame} frame
   * @param {Device} device
   * @returns {Entry[]}
   */
  #entries({ history, row, cursorRow }, device) {
    const found = [];
    for (const owner of Object.keys(OWNERS)) {
      const column = history.series.findIndex(
        (s) => s.group === "memory" && s.device === device.id && s.owner === owner,
      );
      const here = device.owners.filter((o) => o.owner === owner);
      if (column < 0 && here.length === 0) continue;
      const sum = here.reduce((total, o) => total + (o.bytes ?? 0), 0);
      const gone = device.since_ms != null && cursorRow === row;
      const value = gone ? null : column >= 0 ? history.valueAt(column, cursorRow) : sum;
      const key = `${device.id}/${owner}`;
      const byDefault = owner !== "free" && !(device.id === "host" && BACKGROUND.has(owner));
      const filled = here.find((o) => o.filled_bytes != null)?.filled_bytes;
      const notes = [];
      if (filled != null && sum && cursorRow === row) notes.push(`${percent(filled / sum)} filled`);
      if (here.some((o) => o.source === "estimate")) notes.push("estimate");
      const drawn = this.#shared.store.isDrawn(key, byDefault);
      found.push({ owner, key, column, drawn, value, note: notes.join(", ") });
    }
    return found;
  }

  /** @param {Entry} entry */
  #makeRow(entry) {
    const swatch = h("canvas", { class: "ll-swatch", width: 28, height: 28, "aria-hidden": "true" });
    const button = h(
      "button",
      { type: "button", class: "ll-owner" },
      swatch,
      h("span", { class: "ll-name" }, label(entry.owner)),
      h("span", { class: "ll-note" }),
      h("span", { class: "ll-value", "data-owner": entry.owner }),
    );
    button.addEventListener(
      "click",
      () => this.#shared.store.setDrawn(entry.key, button.getAttribute("aria-pressed") !== "true"),
      { signal: this.#shared.signal },
    );
    return h("li", {}, button);
  }

  /**
   * @param {HTMLLIElement} el
   * @param {Entry} entry
   */
  #updateRow(el, entry) {
    const [button] = el.children;
    const [swatch, , note, value] = button?.children ?? [];
    if (!button || !(swatch instanceof HTMLCanvasElement) || !note || !value) return;
    setAttribute(button, "aria-pressed", entry.drawn ? "true" : "false");
    const what = entry.drawn ? "drawn; press to leave it out" : "not drawn; press to draw it";
    const facts = [label(entry.owner), entry.note, what].filter(Boolean);
    setAttribute(button, "title", facts.join(": "));
    setText(note, entry.note);
    setText(value, bytes(entry.value));
    this.#paint(swatch, entry.owner);
  }

  /**
   * @param {HTMLCanvasElement} swatch
   * @param {string} owner
   */
  #paint(swatch, owner) {
    const { theme } = this.#shared;
    const look = OWNERS[owner];
    const stamp = String(theme.version);
    if (!look || swatch.dataset.stamp === stamp) return;
    const ctx = swatch.getContext("2d");
    if (!ctx) return;
    swatch.dataset.stamp = stamp;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.fillStyle = theme.fill(look);
    ctx.fillRect(0, 0, 28, 28);
  }

  /**
   * @param {readonly Device[]} devices
   * @param {Device | undefined} selected
   */
  #renderTabs(devices, selected) {
    this.#tabs.hidden = devices.length < 2;
    setText(
      this.#title,
      devices.length === 1 && selected ? `Memory \u00b7 ${plain(selected.name)}` : "Memory",
    );
    keyed(
      this.#tabs,
      this.#tabByDevice,
      devices,
      (device) => device.id,
      (device) => {
        const tab = h("button", { type: "button", role: "tab", class: "ll-tab" });
        tab.addEventListener("click", () => this.#shared.store.set({ device: device.id }), {
          signal: this.#shared.signal,
        });
        return tab;
      },
      (tab, device) => {
        const on = device === selected;
        setText(tab, plain(device.name));
        setAttribute(tab, "aria-selected", on ? "true" : "false");
        setAttribute(tab, "tabindex", on ? 0 : -1);
      },
    );
  }

  /** @param {KeyboardEvent} event */
  #onTabKey(event) {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    consume(event);
    const ids = [...this.#tabByDevice.keys()];
    const selected = [...this.#tabByDevice].findIndex(
      ([, tab]) => tab.getAttribute("aria-selected") === "true",
    );
    const next = ids[(selected + step + ids.length) % ids.length];
    if (next === undefined) return;
    this.#shared.store.set({ device: next });
    this.#tabByDevice.get(next)?.focus();
  }
}

/** @param {string} owner */
function label(owner) {
  return OWNERS[owner]?.label ?? owner;
}

/**
 * Devices of the newest reading; those that only the history knows follow, so that a picture never loses its past.
 *
 * @param {Frame} frame
 * @returns {readonly Device[]}
 */
function devicesOf({ history, state }) {
  const known = new Set(state.devices.map((device) => device.id));
  const devices = [...state.devices];
  for (const { group, device } of history.series) {
    if (group !== "memory" || !device || known.has(device)) continue;
    known.add(device);
    devices.push({ id: device, name: device || NA, total_bytes: null, used_bytes: null, owners: [] });
  }
  return devices;
}
