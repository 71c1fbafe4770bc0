/** Where a reader writes: the message, and with which parameters it is answered. */

import { h, setAttribute, setText } from "../dom.js";
import { onKeys } from "./turn.js";

/** @typedef {Record<string, number | string>} Parameters What is set; the rest is the server's choice. */

/** Name, label, step, least, largest. @type {readonly (readonly [string, string, string, number, number | null])[]} */
const NUMBERS = [
  ["temperature", "Temperature", "any", 0, null],
  ["top_p", "Top p", "any", 0, 1],
  ["max_tokens", "Max tokens", "1", 1, null],
  ["seed", "Seed", "1", 0, 2 ** 32 - 1],
];

export class Composer {
  #field = h("textarea", { class: "ll-input", rows: 2, "aria-label": "Message", "data-field": "message" });
  #button = h("button", { type: "button", class: "ll-button ll-main", "data-action": "send" });
  #help = h("span", { class: "ll-note" }, "Enter sends \u00b7 Shift+Enter: new line \u00b7 Escape stops");
  #system = h("textarea", { class: "ll-input", rows: 2, "data-parameter": "system" });
  #inputs = NUMBERS.map(([name, , step, min, max]) =>
    h("input", {
      class: "ll-input", type: "number", "data-parameter": name, step, min, max, placeholder: name === "max_tokens" ? "512" : "default",
    }),
  ); // biome-ignore format: one line
  #details;
  #running = false;
  #shown = "";

  /**
   * @param {{ send(text: string): Promise<boolean>, stop(): void }} actions `send` tells whether the text was taken.
   */
  constructor(actions) {
    const fields = this.#inputs.map((input, i) => h("label", {}, NUMBERS[i]?.[1], input));
    this.#details = h(
      "details",
      { class: "ll-parameters" },
      h("summary", {}, "Parameters"),
      h("div", { class: "ll-fields" }, ...fields),
      h("label", {}, "System prompt", this.#system),
    );
    this.el = h(
      "div",
      { class: "ll-composer" },
      h("div", { class: "ll-write" }, this.#field, this.#button),
      this.#help,
      this.#details,
    );
    const send = async () => {
      if (this.#running || this.#button.disabled || this.#field.value.trim() === "") return;
      this.#button.disabled = true;
      const taken = await actions.send(this.#field.value);
      this.#button.disabled = false;
      if (taken) this.#field.value = "";
    };
    this.#button.addEventListener("click", () => {
      if (this.#running) actions.stop();
      else void send();
      this.#field.focus();
    });
    onKeys(this.#field, { Enter: send, Escape: () => this.#running && actions.stop() });
    // Hosts that listen on the page have shortcuts of single letters.
    this.#details.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());
    this.update(false, false);
  }

  /**
   * @param {boolean} running
   * @param {boolean} gone Nothing can be sent any more.
   */
  update(running, gone) {
    this.#running = running;
    setText(this.#button, running ? "\u25a0 Stop" : "Send");
    setAttribute(this.#button, "data-action", running ? "stop" : "send");
    for (const field of [this.#field, this.#button, this.#system, ...this.#inputs])
      setAttribute(field, "inert", gone);
  }

  focus() {
    this.#field.focus();
  }

  /** What is set now. @returns {Parameters} */
  get parameters() {
    const set = this.#inputs.flatMap((input) =>
      input.value.trim() === "" ? [] : [[input.dataset["parameter"], input.valueAsNumber]],
    );
    const system = this.#system.value.trim() === "" ? [] : [["system", this.#system.value]];
    return Object.fromEntries([...set, ...system]);
  }

  /**
   * Show what Python keeps, when it is news and nobody is typing there.
   *
   * @param {unknown} given
   */
  show(given) {
    const told = JSON.stringify(given ?? {});
    if (told === this.#shown || this.#details.contains(document.activeElement)) return;
    this.#shown = told;
    const values = /** @type {Record<string, unknown>} */ (JSON.parse(told));
    for (const input of [this.#system, ...this.#inputs]) {
      const value = values[input.dataset["parameter"] ?? ""];
      input.value = typeof value === "number" || typeof value === "string" ? String(value) : "";
    }
  }
}
