/** Sending a graph away in two steps: what would go where, and only after a yes the rows and the link. */

import { own } from "./believed.js";
import { consume, h, setText } from "./dom.js";
import { count, plain } from "./format.js";
import { BUSY, late } from "./late.js";
import { webUrl } from "./picture.js";

/** @import { Shared } from "./dashboard.js" */

/**
 * @typedef {{
 *   token: string, host: string, rows: Record<string, number>, columns: Record<string, readonly string[]>,
 *   left_out: readonly string[],
 * }} Plan
 */

export class Upload {
  button = h(
    "button",
    { type: "button", class: "ll-button", "data-action": "export", disabled: true },
    "Export to Graphistry",
  );
  #title = h("p", { class: "ll-strong" });
  #list = h("ul");
  #state = h("p", { role: "status", "data-field": "export" });
  #send = h("button", { type: "button", class: "ll-button", "data-action": "confirm" }, "Send it");
  #close = h("button", { type: "button", class: "ll-button", "data-action": "cancel" });
  el = h(
    "div",
    { class: "ll-export", role: "dialog", "aria-label": "Export to Graphistry", tabindex: -1, hidden: true },
    this.#title,
    this.#list,
    this.#state,
    h("div", { class: "ll-controls" }, this.#send, this.#close),
  );
  #shared;
  #onError;
  #what;
  /** Changes with every press: an answer to an earlier one is not shown. */
  #turn = 0;
  /** @type {Plan | null} */
  #plan = null;

  /**
   * @param {Shared} shared
   * @param {() => Record<string, unknown>} what the graph that is shown: arguments of `graph.prepare`
   * @param {(error: unknown) => void} onError
   */
  constructor(shared, what, onError) {
    this.#shared = shared;
    this.#what = what;
    this.#onError = onError;
    const { signal } = shared;
    this.button.addEventListener("click", () => this.#prepare(), { signal });
    this.#send.addEventListener("click", () => this.#upload(), { signal });
    this.#close.addEventListener("click", () => this.#hide(), { signal });
    this.el.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape") return;
        consume(event);
        this.#hide();
      },
      { signal },
    );
  }

  #hide() {
    this.#turn += 1;
    this.#plan = null;
    this.el.hidden = true;
    this.button.focus();
  }

  #prepare() {
    this.#show("Looking at what would be sent; nothing leaves this machine yet.");
    this.#ask("graph.prepare", this.#what(), (/** @type {Plan} */ plan) => {
      this.#plan = plan;
      setText(this.#title, `To ${plain(plan.host)}, as a private graph:`);
      this.#list.replaceChildren(
        ...Object.entries(plan.rows).map(([name, rows]) =>
          h(
            "li",
            {},
            `${count(rows)} ${plain(name)}: ${(own(plan.columns, name) ?? []).map(plain).join(", ")}`,
          ),
        ),
        h("li", {}, `left out: ${plan.left_out.map(plain).join(", ")}`),
      );
      setText(this.#state, "");
      this.#send.hidden = false;
      this.#send.focus();
    });
  }

  #upload() {
    const { token, host } = this.#plan ?? {};
    this.#plan = null;
    this.#send.hidden = true;
    setText(this.#close, "Close");
    this.#close.focus();
    setText(this.#state, "sending");
    this.#ask("graph.upload", { token }, (/** @type {{ url: string }} */ { url }) => {
      const href = webUrl(url);
      const link = h("a", { href, target: "_blank", rel: "noopener noreferrer" }, "Open the graph");
      this.#state.replaceChildren(
        href ? link : "",
        href ? ` on ${plain(host)}` : "sent; its link leads nowhere",
      );
    });
  }

  /** @param {string} text */
  #show(text) {
    setText(this.#title, text);
    this.#list.replaceChildren();
    setText(this.#state, "");
    setText(this.#close, "Cancel");
    this.#send.hidden = true;
    this.el.hidden = false;
    this.#close.focus();
  }

  /**
   * @template T
   * @param {string} op
   * @param {Record<string, unknown>} args
   * @param {(data: T) => void} onAnswer
   */
  async #ask(op, args, onAnswer) {
    this.#turn += 1;
    const turn = this.#turn;
    const ours = () => turn === this.#turn && !this.#shared.signal.aborted;
    const say = (/** @type {string} */ text) => void (ours() && setText(this.#state, text));
    try {
      const answer = this.#shared.request(op, args, (stage) => say(plain(stage)));
      const data = await late(answer, () => this.#state.textContent === "" && say(BUSY));
      if (ours()) onAnswer(data);
    } catch (error) {
      if (!ours()) return;
      this.#hide();
      this.#onError(error);
    }
  }
}
