/** The token at hand: what it is, how likely it was, and what else could have stood there. */

import { h, setFacts } from "../dom.js";
import { count } from "../format.js";
import { chance, logprob } from "./reading.js";

/** @import { Reading, Token } from "./reading.js" */

/** @param {{ runs: readonly string[] }} token Its text, with marks set apart. */
export function piece({ runs }) {
  return h(
    "span",
    { class: "ll-piece" },
    ...runs.map((run, i) => (i % 2 === 0 ? run : h("span", { class: "ll-mark" }, run))),
  );
}

export class Detail {
  #reading;
  #place = h("span", { class: "ll-note", "data-field": "place" });
  #piece = h("p", { class: "ll-big" });
  #facts = h("p", { class: "ll-facts", "data-field": "facts" });
  #rows = h("tbody");
  #table = h(
    "table",
    {},
    h("caption", { class: "ll-sr" }, "The likeliest tokens at this place"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ...["token", "id", "probability", "logprob"].map((name) => h("th", { scope: "col" }, name)),
      ),
    ),
    this.#rows,
  );
  el = h(
    "section",
    { class: "ll-detail", "aria-label": "The token at hand" },
    this.#place,
    this.#piece,
    this.#facts,
    this.#table,
  );

  /** @param {Reading} reading */
  constructor(reading) {
    this.#reading = reading;
    this.#table.hidden = reading.most === 0;
    // Room for the longest list and the one that was taken: nothing moves from one token to the next.
    this.el.style.setProperty("--ll-rows", String(reading.most + 2));
  }

  /** @param {Token} token */
  show(token) {
    this.#place.textContent = `token ${count(token.number + 1)} of ${count(this.#reading.count)}`;
    this.#piece.replaceChildren(piece(token));
    setFacts(this.#facts, [
      token.id === null ? "no id" : `id ${token.id}`,
      this.#reading.word(token.kind),
      token.logprob !== null && `probability ${chance(token.logprob)}`,
      token.logprob !== null && `logprob ${logprob(token.logprob)}`,
    ]);
    this.#rows.replaceChildren(
      ...token.alternatives.map((one) => {
        const bar = h("span", { class: "ll-share", "aria-hidden": "true" });
        bar.style.width = `${one.logprob === null ? 0 : 100 * Math.exp(one.logprob)}%`;
        return h(
          "tr",
          { "data-chosen": one.chosen },
          h("th", { scope: "row" }, one.chosen ? "\u25b8 " : "", piece(one)),
          h("td", {}, one.id ?? ""),
          h("td", { class: "ll-chance" }, bar, h("span", {}, chance(one.logprob))),
          h("td", {}, logprob(one.logprob)),
        );
      }),
    );
  }
}
