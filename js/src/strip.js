/** A panel's own line for what went wrong: what happened, what to type, and a button that takes the line away. */

import { h, setAttribute, setText } from "./dom.js";
import { plain } from "./format.js";
import { BUSY, late } from "./late.js";

export class Strip {
  #text = h("span", { class: "ll-strip-text" });
  #hint = h("code");
  #dismiss = h("button", { type: "button", class: "ll-button", "aria-label": "Dismiss" }, "\u2715");
  el = h("p", { class: "ll-strip", role: "alert", hidden: true }, this.#text, this.#hint, this.#dismiss);
  #waiting = 0;

  /** @param {AbortSignal} signal */
  constructor(signal) {
    this.#dismiss.addEventListener("click", () => this.clear(), { signal });
  }

  /** @param {unknown} error What a request was refused with: its message, and its hint where it has one. */
  show(error) {
    const message = error instanceof Error ? error.message : String(error);
    const hint = error instanceof Error && "hint" in error ? String(error.hint) : "";
    this.#say(`\u2715 ${plain(message)}`, plain(hint), "error");
  }

  /** Take the line away. */
  clear() {
    this.el.hidden = true;
    setText(this.#text, "");
  }

  /**
   * Wait for an answer: the line says so while the kernel is busy, and why where it is refused.
   *
   * @template T
   * @param {Promise<T>} answer
   * @returns {Promise<T | undefined>} `undefined`: refused
   */
  async follow(answer) {
    let waited = false;
    try {
      return await late(answer, () => {
        waited = true;
        this.#waiting += 1;
        if (this.el.hidden) this.#say(BUSY, "", "busy");
      });
    } catch (error) {
      this.show(error);
      return undefined;
    } finally {
      if (waited) this.#waiting -= 1;
      if (this.#waiting === 0 && this.el.dataset["kind"] === "busy") this.clear();
    }
  }

  /**
   * @param {string} text
   * @param {string} hint
   * @param {"error" | "busy"} kind
   */
  #say(text, hint, kind) {
    setAttribute(this.el, "data-kind", kind);
    this.el.hidden = false;
    this.#hint.hidden = hint === "";
    this.#dismiss.hidden = kind === "busy";
    setText(this.#text, text);
    setText(this.#hint, hint);
  }
}
