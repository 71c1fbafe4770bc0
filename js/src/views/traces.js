/** Traces: the list, and the waterfall of the one that is selected. */

import { h } from "../dom.js";

/** @import { Frame, Shared } from "../dashboard.js" */

export class Traces {
  el = h("section", { class: "ll-traces", "aria-label": "Traces" });
  #shared;

  /** @param {Shared} shared */
  constructor(shared) {
    this.#shared = shared;
  }

  /** @param {Frame} frame */
  render(frame) {
    this.el.textContent = `${frame.history.spans.size} ${this.#shared.store.view.tab}`;
  }
}
