/** Memory of one device, stacked by owner; the list beside it names every owner's bytes at the cursor or now. */

import { valueTicks } from "../axis.js";
import { own } from "../believed.js";
import { cut, maximum, split, stack } from "../columns.js";
import { consume, h, keyed, setAttribute, setFacts, setText } from "../dom.js";
import { bytes, clock, NA, percent, plain, since } from "../format.js";
import { Plot } from "../plot.js";
import { OWNERS } from "../theme.js";

/** @import { Frame, Shared } from "../dashboard.js" */
/** @import { Column } from "../columns.js" */
/** @import { Look } from "../theme.js" */
/** @import { Device, OwnerEntry } from "../types.js" */

const HEIGHT = 204;
/** Owners that say nothing about the model: on the host they would dwarf it, so they are listed and not drawn. */
const BACKGROUND = new Set(["other", "unknown", "free"]);

/**
 * @typedef {{
 *   owner: string, key: string, column: number, drawn: boolean, value: number | null, filled: number | null,
 *   estimate: boolean, processes: readonly string[],
 * }} Entry
 */

/** The part of the KV cache that holds tokens: the cache's colour without its pattern. */
const FILLED = { ...(OWNERS["kv"] ?? { label: "", light: "", dark: "" }), pattern: "solid" };

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
  #planBytes = h("span", { class: "ll-value", "data-field": "plan" });
  #planNote = h("span", { class: "ll-note" });
  #plan = h(
    "p",
    { class: "ll-owner ll-plan" },
    h("span", { class: "ll-stroke", "data-dash": "5,3", "aria-hidden": "true" }),
    h("span", { class: "ll-name" }, "plan"),
    this.#planNote,
    this.#planBytes,
  );
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
      h("div", { class: "ll-side" }, this.#list, this.#plan, this.#summary, this.#load),
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
    this.#plan.hidden = !device?.plan;
    if (!device) {
      this.#list.replaceChildren();
      this.#rows.clear();
      setText(this.#summary, "");
      setText(this.#load, "");
      return;
    }
    const entries = this.#entries(frame, device);
    const layers = this.#layers(frame, device, entries);
    const edges = stack(layers.values);
    const planned = this.#planned(device);
    const plan = planned.length > 0 ? sum(planned.map((owner) => device.plan?.[owner] ?? 0)) : null;
    const top = Math.max(maximum(edges.slice(-1)), plan ?? 0);
    // A GPU's axis is its size: how full it is, is the question. The host's follows what is drawn.
    const total = device.id === "host" ? null : device.total_bytes;
    const max = Math.max(total ?? 0, top * (total === null ? 1.12 : 1), 1024);
    const said = entries.map(({ owner, value, estimate }) => `${label(owner)} ${amount(value, estimate)}`);
    if (plan !== null) said.push(`plan ${bytes(plan)}`);
    this.#plot.render({
      key: `${device.id} ${layers.looks.map((look) => `${look.light}${look.pattern}`).join()}`,
      version: history.version,
      t: layers.t,
      // The tallest first: each lower layer is painted over it, so that every area is opaque and keeps its pattern.
      values: edges.toReversed(),
      lines: layers.looks
        .map((look) => ({ fill: theme.fill(look), stroke: theme.color(look), width: 1 }))
        .toReversed(),
      max,
      ticks: valueTicks(max, 4, 1024),
      format: (value) => (value === 0 ? "0" : bytes(value)),
      range,
      width,
      band,
      label: `Memory of ${plain(device.name)}: ${said.join(", ")}`,
      marks: [
        ...(total === null ? [] : [{ value: total, dash: [4, 3], ink: theme.muted }]),
        ...(plan === null
          ? []
          : [{ value: plan, dash: [7, 4], ink: theme.ink, label: `plan ${bytes(plan)}` }]),
      ],
    });
    setText(this.#planBytes, bytes(plan));
    const there = entries.filter(({ owner }) => planned.includes(owner));
    const actual = there.some(({ value }) => value !== null) ? sum(there.map(({ value }) => value)) : null;
    setText(this.#planNote, plan && actual !== null ? difference(actual / plan - 1) : "");
    const owners = planned.map(label).join(", ");
    const title = `the plan of the start for ${owners}; beside it, how far from it these are`;
    setAttribute(this.#plan, "title", title);
    keyed(
      this.#list,
      this.#rows,
      entries.toReversed(),
      (entry) => entry.key,
      (entry) => this.#makeRow(entry),
      (el, entry) => this.#updateRow(el, entry),
    );
    const at = history.t[cursorRow];
    const free = entries.find(({ owner }) => owner === "free")?.value ?? null;
    const then = free !== null && device.total_bytes ? device.total_bytes - free : null;
    const used = cursorRow === row ? device.used_bytes : then;
    // The newest row may be long past: without a reading of now there is none to show.
    const sinceMs = cursorRow === row ? (device.since_ms ?? null) : null;
    const parts = [];
    if (sinceMs !== null) parts.push(since(sinceMs));
    else if (at !== undefined) parts.push(`at ${clock(at)}`);
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
      const newest = sum(here.map((o) => o.bytes));
      const gone = device.since_ms != null && cursorRow === row;
      const value = gone ? null : column >= 0 ? history.valueAt(column, cursorRow) : newest;
      const key = `${device.id}/${owner}`;
      const drawn = this.#isDrawn(device, owner);
      const filling = owner === "kv" ? history.series.findIndex((s) => s.id === `filled/${device.id}`) : -1;
      const filled = gone || filling < 0 ? null : history.valueAt(filling, cursorRow);
      const estimate = here.some((o) => o.source === "estimate");
      const processes = [...new Set(here.flatMap((o) => (o.pid == null ? [] : [process(o)])))];
      found.push({ owner, key, column, drawn, value, filled, estimate, processes });
    }
    return found;
  }

  /**
   * @param {Device} device
   * @param {string} owner
   */
  #isDrawn(device, owner) {
    const byDefault = owner !== "free" && !(device.id === "host" && BACKGROUND.has(owner));
    return this.#shared.store.isDrawn(`${device.id}/${owner}`, byDefault);
  }

  /**
   * The owners that the plan tells of and that are drawn: its line is to be compared with their upper edge.
   *
   * @param {Device} device
   */
  #planned(device) {
    return Object.keys(device.plan ?? {}).filter((owner) => this.#isDrawn(device, owner));
  }

  /**
   * What is stacked, bottom first: the owners that are drawn, of the KV cache its filled part apart.
   *
   * @param {Frame} frame
   * @param {Device} device
   * @param {readonly Entry[]} entries
   * @returns {{ t: number[], values: Column[], looks: Look[] }}
   */
  #layers({ history, range }, device, entries) {
    const drawn = entries.filter((entry) => entry.drawn && entry.column >= 0);
    const filling = history.series.findIndex((s) => s.id === `filled/${device.id}`);
    const columns = drawn.map((entry) => entry.column);
    const { t, values } = cut(history, filling < 0 ? columns : [...columns, filling], range);
    const filled = filling < 0 ? undefined : values.at(-1);
    const layers = drawn.flatMap(({ owner }, i) => {
      const look = OWNERS[owner] ?? OWNERS["unknown"];
      const own = values[i] ?? [];
      if (!look) return [];
      if (owner !== "kv" || !filled) return [{ values: own, look }];
      const [full, empty] = split(own, filled);
      return [
        { values: full, look: FILLED },
        { values: empty, look },
      ];
    });
    return { t, values: layers.map((one) => one.values), looks: layers.map((one) => one.look) };
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
      h("span", { class: "ll-pid" }),
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
    const [swatch, , note, pid, value] = button?.children ?? [];
    if (!button || !(swatch instanceof HTMLCanvasElement) || !note || !pid || !value) return;
    setAttribute(button, "aria-pressed", entry.drawn ? "true" : "false");
    const what = entry.drawn ? "drawn; press to leave it out" : "not drawn; press to draw it";
    const said = [entry.estimate && "estimate", entry.filled !== null && `${bytes(entry.filled)} filled`];
    setAttribute(
      button,
      "title",
      [label(entry.owner), ...said, ...entry.processes, what].filter(Boolean).join("; "),
    );
    setText(note, entry.estimate ? "estimate" : fill(entry));
    const [first = "", ...more] = entry.processes;
    setText(pid, more.length > 0 ? `${entry.processes.length} pids` : first.replace(/ \(.*/, ""));
    setText(value, amount(entry.value, entry.estimate));
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

/** @param {readonly (number | null)[]} values @returns {number} */
function sum(values) {
  return values.reduce((/** @type {number} */ total, value) => total + (value ?? 0), 0);
}

/** @param {number | null} value @param {boolean} estimate */
function amount(value, estimate) {
  return estimate && value !== null ? `\u2248 ${bytes(value)}` : bytes(value);
}

/** @param {Entry} entry How much of a cache is filled. */
function fill({ filled, value }) {
  return filled !== null && value ? `${percent(filled / value)} filled` : "";
}

/** @param {number} part of the plan */
function difference(part) {
  const shown = (Math.abs(part) * 100).toFixed(1);
  return `${shown === "0.0" ? "" : part < 0 ? "\u2212" : "+"}${shown} %`;
}

/** @param {OwnerEntry} owner */
function process({ pid, process: name }) {
  return name ? `pid ${pid} (${plain(name)})` : `pid ${pid}`;
}

/** @param {string} owner */
function label(owner) {
  return own(OWNERS, owner)?.label ?? owner;
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
