/**
 * What is pressed: tabs, pause, window and follow, which are the page's own and work while a cell runs; and the server's
 * start, restart and stop, which the kernel does when it can.
 */

import { ask } from "./ask.js";
import { consume, h, setAttribute, setText } from "./dom.js";
import { plain } from "./format.js";
import { WINDOWS_MS } from "./store.js";
import { Strip } from "./strip.js";

/** @import { Shared, Tab } from "./dashboard.js" */
/** @import { History } from "./history.js" */
/** @import { Server } from "./types.js" */

/** @typedef {"start" | "restart" | "stop"} Action */

/** @type {readonly [Action, string, string | null][]} Its button, and what is asked before it is done. */
const ACTIONS = [
  ["start", "Start", null],
  ["restart", "Restart", "Restart it?"],
  ["stop", "Stop", "Stop it?"],
];
const EARLIER = "the kernel is busy: what was before comes after the running cell";

/** What is known now, also while the page shows a moment of before. @typedef {Pick<History, "server" | "reachedMs" | "nowMs" | "extend">} Known */

export class Controls {
  el;
  #shared;
  #history;
  #changed;
  #say = h("p", { role: "status", "data-field": "say" });
  #strip;
  #question = h("span", { class: "ll-question" });
  #yes;
  #buttons = h("span", { class: "ll-buttons" });
  #confirm = h("span", { class: "ll-buttons" });
  /** @type {Map<Action, HTMLButtonElement>} */
  #actions = new Map();
  /** What is to be confirmed. @type {Action | null} */
  #asking = null;
  /** What the kernel was asked to do and has not done yet. @type {Action | null} */
  #doing = null;
  #reaching = false;

  /**
   * @param {Shared} shared
   * @param {Known} history
   * @param {readonly Tab[]} tabs
   * @param {HTMLElement} line where it is said what the kernel is at
   * @param {() => void} changed something here that the page should show
   */
  constructor(shared, history, tabs, line, changed) {
    this.#shared = shared;
    this.#history = history;
    this.#changed = changed;
    const { signal } = shared;
    this.#strip = new Strip(signal);
    this.#yes = this.#button("yes", () => this.#asking && this.#do(this.#asking));
    const no = this.#button("no", () => this.#ask(null));
    setText(no, "Cancel");
    this.#confirm.append(this.#question, this.#yes, no);
    for (const [action, label] of ACTIONS) {
      const button = this.#button(action, () => this.#press(action));
      setText(button, label);
      this.#actions.set(action, button);
      this.#buttons.append(button);
    }
    const server = h(
      "div",
      { class: "ll-server", role: "group", "aria-label": "Server" },
      this.#buttons,
      this.#confirm,
    );
    server.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape" || this.#asking === null) return;
        consume(event);
        this.#ask(null);
      },
      { signal },
    );
    const bar = h(
      "div",
      { class: "ll-controls", role: "toolbar", "aria-label": "View and server" },
      tabStrip(shared, tabs),
      ...this.#time(),
      server,
    );
    line.append(this.#say);
    this.el = h("div", { class: "ll-top" }, bar, this.#strip.el);
    this.#ask(null);
  }

  /** @param {boolean} gone Whether there is no kernel that could do anything. */
  render(gone = false) {
    const { server } = this.#history;
    const all = this.#doing === null ? possible(server) : this.#doing === "stop" ? [] : ["stop"];
    const can = gone ? [] : all;
    for (const [action, button] of this.#actions) {
      setAttribute(button, "aria-disabled", String(!can.includes(action)));
    }
    const stop = this.#actions.get("stop");
    if (stop) setText(stop, server?.owned === false ? "Let go" : "Stop");
    if (this.#asking !== null && !can.includes(this.#asking)) this.#ask(null);
  }

  /**
   * @param {string} action
   * @param {() => void} onClick
   */
  #button(action, onClick) {
    const button = h("button", { type: "button", class: "ll-button", "data-action": action });
    // Not disabled, which would take the focus away: it does nothing then.
    const press = () => button.getAttribute("aria-disabled") !== "true" && onClick();
    button.addEventListener("click", press, { signal: this.#shared.signal });
    return button;
  }

  #time() {
    const { store, signal, visible } = this.#shared;
    const pause = this.#button("pause", () => store.set({ paused: !store.view.paused }));
    const follow = this.#button("follow", () => store.setFollow(!store.view.follow, visible()));
    setText(follow, "Follow");
    setAttribute(follow, "title", "Keep the newest data in view; drag in a chart to look closer");
    const windows = WINDOWS_MS.map((ms) => {
      const button = h("button", { type: "button", class: "ll-button", "data-window": ms }, length(ms));
      const choose = () => {
        store.setWindow(ms);
        this.#reach(ms);
      };
      button.addEventListener("click", choose, { signal });
      return button;
    });
    const update = () => {
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
    return [pause, group, follow];
  }

  /** @param {Action} action */
  #press(action) {
    if (ACTIONS.some(([name, , question]) => name === action && question !== null)) this.#ask(action);
    else this.#do(action);
  }

  /** @param {Action | null} action to be confirmed; null: as it was */
  #ask(action) {
    const before = this.#asking;
    const inside = this.#confirm.contains(document.activeElement);
    this.#asking = action;
    const [, label = "", question = ""] = ACTIONS.find(([name]) => name === (action ?? before)) ?? [];
    if (action !== null) {
      setText(this.#question, question ?? "");
      setText(this.#yes, `Yes, ${label.toLowerCase()}`);
    }
    setAttribute(this.#buttons, "data-off", action !== null);
    setAttribute(this.#confirm, "data-off", action === null);
    if (action !== null) this.#yes.focus();
    else if (before !== null && inside) this.#actions.get(before)?.focus();
  }

  /** @param {Action} action */
  async #do(action) {
    this.#ask(null);
    this.#doing = action;
    this.#strip.clear();
    this.render();
    const name = this.#history.server?.name;
    try {
      await this.#request(`server.${action}`, name ? { name } : {});
    } catch (error) {
      this.#strip.show(error);
    } finally {
      if (this.#doing === action) this.#doing = null;
      this.#changed();
    }
  }

  /** @param {number} windowMs What is not here yet of so long is asked for. */
  async #reach(windowMs) {
    if (this.#reaching || this.#history.nowMs - windowMs >= this.#history.reachedMs - 1000) return;
    this.#reaching = true;
    try {
      const snapshot = await this.#request("history", { window_s: windowMs / 1000 }, EARLIER);
      this.#history.extend(snapshot);
    } catch (error) {
      this.#strip.show(error);
    } finally {
      this.#reaching = false;
      this.#changed();
    }
  }

  /**
   * @param {string} op
   * @param {Record<string, unknown>} args
   * @param {string} [busy]
   */
  #request(op, args, busy) {
    return ask(this.#shared.request, op, args, (text) => setText(this.#say, plain(text)), busy);
  }
}

/**
 * What can be done with the server as it is.
 *
 * @param {Pick<Server, "state" | "url" | "owned"> | null} server
 * @returns {readonly Action[]}
 */
export function possible(server) {
  if (!server || server.state === "stopped" || server.state === "crashed") return ["start"];
  if (server.state === "starting" || server.state === "loading") return ["stop"];
  if (server.url === null) return ["start"];
  return server.owned === false ? ["stop"] : ["restart", "stop"];
}

/** @param {number} ms */
function length(ms) {
  if (ms < 60_000) return `${ms / 1000} s`;
  return ms < 3_600_000 ? `${ms / 60_000} min` : `${ms / 3_600_000} h`;
}

/**
 * @param {Shared} shared
 * @param {readonly Tab[]} tabs
 */
function tabStrip({ store, signal }, tabs) {
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
  };
  store.subscribe(update, signal);
  update();
  return strip;
}
