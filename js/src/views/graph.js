/** The session or one trace as a graph. */

import { h } from "../dom.js";

/** @import { Frame, Shared } from "../dashboard.js" */

export class Graph {
  el = h("section", { class: "ll-graph", "aria-label": "Graph" });
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
