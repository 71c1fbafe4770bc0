/**
 * The tokens' entry: a text as the tokenizer cuts it, or an answer with how likely each of its tokens was.
 *
 * All of it comes in one trait that never changes, so that it works while a cell runs and when the kernel is gone. All text
 * is other people's.
 */

import "./base.css";
import "./tokens.css";
import { h, hideStatic, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";
import { Model } from "./model.js";
import { Theme } from "./theme.js";
import { Detail, piece } from "./tokens/detail.js";
import { chance, logprob, PAGE, Reading } from "./tokens/reading.js";
import { TokenStrip } from "./tokens/strip.js";

/** @import { AnyModel } from "./model.js" */

/**
 * @param {Reading} reading
 * @param {AbortSignal} signal
 */
function body(reading, signal) {
  const detail = new Detail(reading);
  const range = h("span", { class: "ll-note", role: "status", "data-field": "range" });
  const earlier = h(
    "button",
    { type: "button", class: "ll-button", "data-action": "earlier" },
    "\u2039 Earlier",
  );
  const later = h("button", { type: "button", class: "ll-button", "data-action": "later" }, "Later \u203a");
  const table = h("div", {
    class: "ll-scroll",
    tabindex: 0,
    role: "region",
    "aria-label": "Table of tokens",
  });
  const whole = h("details", { class: "ll-table" }, h("summary", {}, "As a table"), table);
  const strip = new TokenStrip(reading, {
    token: (number) => detail.show(reading.at(number)),
    page: () => {
      const [from, to] = strip.range;
      setText(range, `tokens ${count(from + 1)}\u2013${count(to)} of ${count(reading.count)}`);
      for (const [button, off] of /** @type {const} */ ([
        [earlier, strip.page === 0],
        [later, strip.page === reading.pages - 1],
      ]))
        setAttribute(button, "aria-disabled", off ? "true" : null);
      if (whole.open) table.replaceChildren(rows(reading, strip.range));
    },
    signal,
  });
  const turn = (/** @type {1 | -1} */ way) => {
    const to = strip.page + way;
    if (to >= 0 && to < reading.pages) strip.turn(to);
  };
  earlier.addEventListener("click", () => turn(-1), { signal });
  later.addEventListener("click", () => turn(1), { signal });
  whole.addEventListener(
    "toggle",
    () => table.replaceChildren(...(whole.open ? [rows(reading, strip.range)] : [])),
    { signal },
  );
  strip.turn(0);
  return [
    reading.pages > 1 &&
      h("div", { class: "ll-pager", role: "group", "aria-label": `Pages of ${PAGE}` }, earlier, later, range),
    h("div", { class: "ll-reading", "data-alternatives": reading.most }, strip.el, detail.el),
    whole,
    reading.answer && meaning(reading),
  ];
}

/**
 * A page of tokens for a reader who wants rows, or hears them.
 *
 * @param {Reading} reading
 * @param {[number, number]} range
 */
function rows(reading, [from, to]) {
  const names = [
    "#",
    "token",
    "id",
    "kind",
    ...(reading.answer ? ["logprob", "probability", "instead"] : []),
  ];
  const made = Array.from({ length: to - from }, (_, i) => {
    const token = reading.at(from + i);
    const others = token.alternatives.filter(({ chosen }) => !chosen);
    const cells = [
      h("td", {}, count(token.number + 1)),
      h("td", {}, piece(token)),
      h("td", {}, token.id ?? "n/a"),
      h("td", {}, token.kind),
    ];
    if (reading.answer)
      cells.push(
        h("td", {}, logprob(token.logprob)),
        h("td", {}, chance(token.logprob)),
        h("td", {}, ...others.flatMap((one) => [piece(one), ` ${chance(one.logprob)}  `])),
      );
    return h("tr", {}, ...cells);
  });
  return h(
    "table",
    {},
    h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...made),
  );
}

/** @param {Reading} reading What tints and figures mean. */
function meaning(reading) {
  const definitions = reading.titles.flatMap(([name, said]) => [h("dt", {}, name), h("dd", {}, said)]);
  return h(
    "details",
    { class: "ll-table" },
    h("summary", {}, "What the figures mean"),
    h("dl", {}, ...definitions),
  );
}

/** @param {Reading} reading */
function legend(reading) {
  const percent = (/** @type {number} */ edge) => `${Math.round(100 * edge)} %`;
  const edges = reading.likely;
  const steps = ["", ...edges].map((_, level) => {
    const said = level === 0 ? `\u2265 ${percent(edges[0] ?? 0)}` : `< ${percent(edges[level - 1] ?? 0)}`;
    return h("span", { class: "ll-step", "data-level": level || null }, said);
  });
  return h("p", { class: "ll-legend" }, h("span", { class: "ll-note" }, "probability"), ...steps);
}

/**
 * @param {Model} model
 * @param {HTMLElement} el
 * @param {AbortSignal} signal
 */
function show(model, el, signal) {
  const root = h("div", {
    class: "llamatelemetry ll-ui ll-tokens",
    role: "region",
    "aria-label": "llamatelemetry tokens",
    "data-lm-suppress-shortcuts": "true",
  });
  el.append(root);
  const theme = new Theme(root);
  theme.follow(() => {}, signal);
  requestAnimationFrame(() => signal.aborted || theme.read()); // hosts attach what was rendered
  try {
    const reading = new Reading(model.snapshot);
    const sign = h("span", { class: "ll-sign", "aria-hidden": "true" }, reading.answer ? "\u25c6" : "\u25b8");
    root.append(
      h(
        "div",
        { class: "ll-title" },
        h("span", { class: "ll-badge" }, sign, reading.answer ? "answer" : "prompt"),
        h("b", { class: "ll-model", "data-field": "model" }, reading.model || "tokens"),
        h("span", { class: "ll-engine", "data-field": "summary" }, reading.summary),
      ),
    );
    if (reading.missing) root.append(h("p", { class: "ll-note", "data-field": "missing" }, reading.missing));
    if (reading.answer) root.append(legend(reading));
    if (reading.count > 0) root.append(...body(reading, signal).filter((part) => part !== false));
    setAttribute(root, "data-tokens", reading.count);
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    root.replaceChildren(h("p", { role: "alert" }, `\u2715 ${said}`));
  }
  const hiding = hideStatic(model.staticId);
  signal.addEventListener(
    "abort",
    () => {
      hiding?.remove();
      root.remove();
    },
    { once: true },
  );
}

export default {
  /** @param {{ model: AnyModel, el: HTMLElement }} context */
  render({ model, el }) {
    const stop = new AbortController();
    show(new Model(model, stop.signal), el, stop.signal);
    return () => stop.abort();
  },
};
