/**
 * The chat's entry: one transcript per widget, the page of it per view.
 *
 * Python owns what was said (llamatelemetry_jupyter/conversation.py); here are only the pieces that came since it was
 * last told whole. All text is other people's.
 */

import "./style.css";
import "./chat.css";
import { copy, insertCells } from "./chat/clipboard.js";
import { Composer } from "./chat/composer.js";
import { Transcript } from "./chat/transcript.js";
import { TurnView } from "./chat/turn.js";
import { h, hideStatic, keyed, setAttribute, setText } from "./dom.js";
import { plain } from "./format.js";
import { Model, Refused } from "./model.js";
import { Strip } from "./strip.js";
import { STATES, Theme } from "./theme.js";

/** @import { Cell } from "./chat/clipboard.js" */
/** @import { Turn } from "./chat/transcript.js" */
/** @import { AnyModel } from "./model.js" */

const WORDS = { generating: "writing", ready: "ready", unreachable: "kernel gone", stopped: "no server" };
/** Near the end of the transcript, new text is followed. */
const NEAR_PX = 40;
const GONE =
  "The kernel was restarted or has ended: this is how the chat stood. Run the cell again to go on.";

/** What the front end knows of one widget, for all of its views. */
class Live {
  transcript = new Transcript();
  /** @type {Set<() => void>} */
  #views = new Set();
  #model;
  #asking = false;

  /** @param {Model} model */
  constructor(model) {
    this.#model = model;
    model.onChange("turns", () => this.#load());
    model.onChange("about", () => this.#tell());
    model.onMessage((content) => {
      if (this.transcript.apply(content)) this.#tell();
      else if (this.transcript.missing.size) void this.#ask();
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

  #load() {
    this.transcript.load(this.#model.get("turns"));
    this.#tell();
  }

  #tell() {
    for (const changed of this.#views) changed();
  }

  /** A view that came late has missed the beginning: it asks for it, once at a time. */
  async #ask() {
    const [turn] = this.transcript.missing;
    if (this.#asking || turn === undefined) return;
    this.#asking = true;
    try {
      this.transcript.replace(await this.#model.request("chat.turn", { turn }));
      this.#tell();
    } catch {
      this.transcript.missing.delete(turn); // it was replaced meanwhile; the list of turns is on its way
    } finally {
      this.#asking = false;
    }
  }
}

/**
 * @param {Live} live
 * @param {Model} model
 * @param {HTMLElement} el
 * @param {AbortSignal} signal
 */
function show(live, model, el, signal) {
  const { transcript } = live;
  const sign = h("span", { class: "ll-sign", "aria-hidden": "true" });
  const state = h("span", { "data-field": "state" });
  const name = h("b", { class: "ll-model", "data-field": "model" });
  const server = h("span", { class: "ll-engine" });
  const hint = h("p", { class: "ll-empty", "data-field": "hint", hidden: true });
  const omitted = h("p", { class: "ll-note", hidden: true });
  const list = h("ol", { class: "ll-turns" });
  const log = h(
    "div",
    { class: "ll-log", role: "group", tabindex: 0, "aria-label": "Transcript" },
    omitted,
    list,
    hint,
  );
  const said = h("p", { class: "ll-sr", role: "status", "aria-live": "polite" });
  const strip = new Strip(signal);

  /** @param {string} text */
  const copied = async (text) => {
    if (await copy(text, root)) setText(said, "copied");
    else strip.show(new Refused("The browser does not let this page use the clipboard", ""));
  };
  /**
   * @param {string} text
   * @param {Turn | null} at The turn that it replaces, with all that came after it.
   */
  const send = async (text, at = null) => {
    strip.clear();
    following = true;
    const args = { text, at: at?.id ?? null, parameters: composer.parameters };
    return (await strip.follow(ask("chat.send", args))) !== undefined;
  };
  /**
   * @param {string} op
   * @param {Record<string, unknown>} [args]
   */
  const ask = async (op, args) => {
    if (gone) throw new Refused(GONE, "%llama chat");
    return await model.request(op, args);
  };
  const stop = () => void strip.follow(ask("chat.stop"));
  const composer = new Composer({ send, stop });
  const actions = {
    copy: copied,
    edit: async (/** @type {Turn} */ turn, /** @type {string} */ text) => {
      const taken = await send(text, turn);
      if (taken) composer.focus();
      return taken;
    },
    regenerate: (/** @type {Turn} */ turn) => {
      const asked = transcript.turns[transcript.turns.findIndex(({ id }) => id === turn.id) - 1];
      if (asked?.role === "user") void send(asked.text, asked).then(() => composer.focus());
    },
  };
  const toCells = async () => {
    /** @type {{ cells: Cell[], text: string } | undefined} */
    const made = await strip.follow(ask("chat.cells"));
    if (!made) return;
    if (insertCells(model.manager, model.get("cell_id"), made.cells)) tell("The cells are below this one.");
    else if (await copy(made.text, root))
      tell("This host gives no access to its notebook: the cells are in the clipboard as text.");
    else strip.show(new Refused("Neither the notebook nor the clipboard can be reached from here", ""));
  };
  const done = h("span", { class: "ll-note", "data-field": "done" });
  /** @param {string} text */
  const tell = (text) => {
    setText(done, text);
    setText(said, text);
  };
  const tools = h("div", { class: "ll-tools", role: "toolbar", "aria-label": "Conversation" });
  for (const [label, action, run] of /** @type {const} */ ([
    ["Copy as Markdown", "markdown", () => void copied(transcript.markdown())],
    ["Export to cells", "cells", () => void toCells()],
    ["Clear", "clear", () => void strip.follow(ask("chat.clear"))],
  ])) {
    const button = h("button", { type: "button", class: "ll-button", "data-action": action }, label);
    button.addEventListener("click", run, { signal });
    tools.append(button);
  }
  tools.append(done);
  const root = h(
    "div",
    {
      class: "llamatelemetry ll-ui ll-chat",
      role: "region",
      "aria-label": "llamatelemetry chat",
      "data-lm-suppress-shortcuts": "true",
    },
    h("div", { class: "ll-title" }, h("span", { class: "ll-badge" }, sign, state), name, server),
    log,
    strip.el,
    composer.el,
    tools,
    said,
  );
  el.append(root);
  const theme = new Theme(root);
  theme.follow(() => {}, signal);

  /** @type {Map<string, HTMLElement>} */
  const rows = new Map();
  /** @type {WeakMap<HTMLElement, TurnView>} */
  const views = new WeakMap();
  let gone = false;
  let following = true;
  /** @type {number | null} */
  let writing = transcript.running?.id ?? null;

  const draw = () => {
    if (!theme.known) theme.read();
    const about = /** @type {any} */ (model.get("about") ?? {});
    const running = transcript.running;
    const now = gone ? "unreachable" : running ? "generating" : about.model ? "ready" : "stopped";
    setAttribute(root, "data-state", now);
    setText(sign, STATES[now] ?? "?");
    setText(state, WORDS[now]);
    setText(name, plain(about.model ?? "no model"));
    setText(server, about.server ? `server ${plain(about.server)}` : "");
    const why = about.hint;
    hint.hidden = transcript.turns.length > 0 && !why;
    if (why) hint.replaceChildren(`${plain(why.what)}; type `, h("code", {}, plain(why.hint)), " in a cell");
    else setText(hint, "Nothing was said yet.");
    omitted.hidden = !(about.omitted > 0);
    setText(omitted, `${about.omitted} earlier turns are not shown here`);
    keyed(
      list,
      rows,
      transcript.turns,
      ({ id }) => String(id),
      (turn) => {
        const view = new TurnView(turn, actions);
        views.set(view.el, view);
        return view.el;
      },
      (row, turn) => views.get(row)?.update(turn, running !== null || gone),
    );
    composer.update(running !== null, gone);
    composer.show(about.parameters);
    if (following) log.scrollTop = log.scrollHeight;
    const ended = running === null && transcript.turns.find(({ id }) => id === writing);
    if (ended) setText(said, `Model: ${ended.error?.what ?? ended.text}`);
    writing = running?.id ?? null;
    setAttribute(root, "data-turns", transcript.turns.length);
  };

  let queued = false;
  const schedule = () => {
    if (queued || signal.aborted) return;
    queued = true;
    requestAnimationFrame(() => {
      queued = false;
      if (!signal.aborted) draw();
    });
  };
  live.watch(schedule, signal);
  // Hosts tell that the connection has changed, not how: only an answer proves that somebody is there.
  model.onConnection(() => {
    gone = true;
    strip.show(new Refused(GONE, "%llama chat"));
    schedule();
    const back = () => {
      gone = false;
      strip.clear();
      schedule();
    };
    model.request("chat.about").then(back, () => {});
  });
  log.addEventListener(
    "scroll",
    () => {
      following = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
    },
    { signal },
  );
  root.addEventListener("keydown", (event) => event.key === "Escape" && transcript.running && stop(), {
    signal,
  });
  const hiding = hideStatic(model.staticId);
  signal.addEventListener(
    "abort",
    () => {
      hiding?.remove();
      root.remove();
    },
    { once: true },
  );
  schedule();
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
