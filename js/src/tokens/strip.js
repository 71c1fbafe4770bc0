/** A page of tokens in reading order: one of them is at hand, by arrow keys or by pointer. */

import { consume, h, setAttribute } from "../dom.js";
import { piece } from "./detail.js";
import { described, logprob, PAGE } from "./reading.js";

/** @import { Reading, Token } from "./reading.js" */

export class TokenStrip {
  #reading;
  #onToken;
  #onPage;
  page = 0;
  /** The token that the keyboard is at. */
  at = 0;
  el = h("div", {
    class: "ll-strip-tokens",
    role: "listbox",
    "aria-label": "Tokens",
    "aria-orientation": "horizontal",
  });
  /** @type {HTMLElement[]} */
  #chips = [];

  /**
   * @param {Reading} reading
   * @param {{ token: (number: number) => void, page: () => void, signal: AbortSignal }} options `token`: which is at hand
   */
  constructor(reading, { token, page, signal }) {
    this.#reading = reading;
    this.#onToken = token;
    this.#onPage = page;
    const chip = (/** @type {Event} */ event) =>
      event.target instanceof Element ? event.target.closest("[data-token]") : null;
    const number = (/** @type {Element} */ el) => Number(/** @type {HTMLElement} */ (el).dataset["token"]);
    const over = (/** @type {Event} */ event) => {
      const el = chip(event);
      if (el) token(number(el));
    };
    const take = (/** @type {Event} */ event) => {
      const el = chip(event);
      if (el) this.#choose(number(el));
    };
    this.el.addEventListener("pointerover", over, { signal });
    this.el.addEventListener("pointerleave", () => token(this.at), { signal });
    this.el.addEventListener("focusin", take, { signal });
    this.el.addEventListener("click", (event) => /** @type {HTMLElement | null} */ (chip(event))?.focus(), {
      signal,
    });
    this.el.addEventListener("keydown", (event) => this.#onKey(event), { signal });
  }

  /** Numbers of the tokens on this page: from, and up to. @returns {[number, number]} */
  get range() {
    const from = this.page * PAGE;
    return [from, Math.min(this.#reading.count, from + PAGE)];
  }

  /** @param {number} page */
  turn(page) {
    this.page = Math.min(this.#reading.pages - 1, Math.max(0, page));
    const [from, to] = this.range;
    /** @type {Node[]} */
    const made = [];
    this.#chips = [];
    for (let number = from; number < to; number += 1) {
      const token = this.#reading.at(number);
      const el = this.#chip(token);
      this.#chips.push(el);
      made.push(el);
      if (token.runs.some((run, i) => i % 2 === 1 && run.includes("\u23ce"))) made.push(h("br"));
    }
    this.el.replaceChildren(...made);
    this.el.scrollTop = 0;
    this.#choose(from);
    this.#onPage();
  }

  /** @param {Token} token */
  #chip(token) {
    return h(
      "div",
      {
        role: "option",
        class: "ll-token",
        tabindex: -1,
        "aria-selected": "false",
        "aria-description": described(token),
        "data-token": token.number,
        "data-kind": token.kind,
        "data-level": token.level || null,
      },
      piece(token),
      token.logprob !== null && h("span", { class: "ll-sure" }, logprob(token.logprob)),
      h("span", { class: "ll-id" }, token.id ?? "\u2013"),
    );
  }

  /** @param {number} number */
  #choose(number) {
    const [from] = this.range;
    for (const chosen of this.el.querySelectorAll('[aria-selected="true"]')) {
      setAttribute(chosen, "aria-selected", "false");
      setAttribute(chosen, "tabindex", -1);
    }
    const el = this.#chips[number - from];
    if (!el) return;
    this.at = number;
    setAttribute(el, "aria-selected", "true");
    setAttribute(el, "tabindex", 0);
    this.#onToken(number);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [from, to] = this.range;
    const here = this.at;
    /** @type {Record<string, () => number>} */
    const moves = {
      ArrowRight: () => here + 1,
      ArrowLeft: () => here - 1,
      ArrowDown: () => this.#beside(here - from, 1) + from,
      ArrowUp: () => this.#beside(here - from, -1) + from,
      Home: () => from,
      End: () => to - 1,
      PageDown: () => to,
      PageUp: () => from - PAGE,
    };
    const move = moves[event.key];
    if (!move) return;
    consume(event);
    this.#go(move());
  }

  /** @param {number} number */
  #go(number) {
    const to = Math.min(this.#reading.count - 1, Math.max(0, number));
    const page = Math.floor(to / PAGE);
    if (page !== this.page) this.turn(page);
    this.#chips[to - page * PAGE]?.focus();
  }

  /**
   * The chip in the next line that is nearest.
   *
   * @param {number} index on this page
   * @param {1 | -1} way
   */
  #beside(index, way) {
    const start = this.#chips[index];
    if (!start) return index;
    const middle = start.offsetLeft + start.offsetWidth / 2;
    let best = index;
    let least = Number.POSITIVE_INFINITY;
    /** @type {number | null} */
    let line = null;
    for (let i = index + way; i >= 0 && i < this.#chips.length; i += way) {
      const el = /** @type {HTMLElement} */ (this.#chips[i]);
      if (el.offsetTop === start.offsetTop) continue;
      line ??= el.offsetTop;
      if (el.offsetTop !== line) break;
      const away = Math.abs(el.offsetLeft + el.offsetWidth / 2 - middle);
      if (away < least) [best, least] = [i, away];
    }
    return best;
  }
}
