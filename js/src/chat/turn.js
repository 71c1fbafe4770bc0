/** One turn on the page: who said it, what, and what it cost. Only what has changed is drawn again. */

import { h, setAttribute, setFacts, setText } from "../dom.js";
import { count, duration, percent, plain, rate } from "../format.js";
import { Growing } from "./markdown.js";
import { elements } from "./safe.js";

/** @import { Turn } from "./transcript.js" */

/**
 * @typedef {{
 *   copy(text: string): void, edit(turn: Turn, text: string): Promise<boolean>, regenerate(turn: Turn): void,
 * }} Actions What a turn's buttons do; `edit` tells whether the text was taken.
 */

const ENDINGS = { stopped: "\u25a0 stopped", failed: "\u2715 broke off", done: "", running: "" };

export class TurnView {
  #body = h("div", { class: "ll-said" });
  #open = h("div", { class: "ll-open" });
  #facts = h("span", { class: "ll-facts", "data-field": "facts" });
  #model = h("span", { class: "ll-note" });
  #error = h("p", { class: "ll-strip", "data-kind": "error", hidden: true });
  #note = h("p", { class: "ll-note", hidden: true });
  #thought = h("div", { class: "ll-raw" });
  #thinking = h(
    "details",
    { class: "ll-thinking", hidden: true },
    h("summary", {}, "Thinking"),
    this.#thought,
  );
  #trace = h("p", { class: "ll-trace", hidden: true });
  #buttons = h("span", { class: "ll-buttons" });
  #growing = new Growing();
  #actions;
  /** @type {Turn} */
  #turn;
  /** @type {HTMLFormElement | null} */
  #editor = null;
  /** @type {Turn | null} A copy of what is drawn. */
  #drawn = null;
  #busy = false;

  /**
   * @param {Turn} turn
   * @param {Actions} actions
   */
  constructor(turn, actions) {
    this.#turn = turn;
    this.#actions = actions;
    const user = turn.role === "user";
    const sign = h("span", { class: "ll-sign", "aria-hidden": "true" }, user ? "\u25b8" : "\u25c6");
    this.el = h(
      "li",
      { class: "ll-turn", "data-role": turn.role },
      h(
        "div",
        { class: "ll-who" },
        sign,
        h("b", {}, user ? "You" : "Model"),
        this.#model,
        user && this.#buttons,
      ),
      this.#thinking,
      this.#body,
      this.#error,
      this.#note,
      !user && h("div", { class: "ll-foot" }, this.#facts, this.#buttons),
      this.#trace,
    );
    this.#button("Copy", "copy", () => actions.copy(this.#turn.text));
    if (user) this.#button("Edit", "edit", () => this.#edit());
    else {
      this.#button("Regenerate", "regenerate", () => actions.regenerate(this.#turn));
      this.#button("Trace", "trace", () => this.#showTrace());
    }
  }

  /**
   * @param {Turn} turn
   * @param {boolean} busy An answer is being written, or nothing can be sent.
   */
  update(turn, busy) {
    this.#turn = turn;
    const last = this.#drawn;
    const same =
      last && /** @type {(keyof Turn)[]} */ (Object.keys(turn)).every((name) => last[name] === turn[name]);
    if (same && this.#busy === busy) return;
    if (!last || last.text !== turn.text || last.state !== turn.state) this.#say(turn);
    this.#drawn = { ...turn };
    this.#busy = busy;
    setAttribute(this.el, "data-state", turn.state);
    setAttribute(this.el, "data-turn", turn.id);
    setText(this.#model, plain(turn.model ?? ""));
    this.#thinking.hidden = turn.reasoning === "";
    setText(this.#thought, turn.reasoning);
    this.#cost(turn);
    this.#error.hidden = turn.error === null;
    if (turn.error) {
      const hint = turn.error.hint ? h("code", {}, plain(turn.error.hint)) : null;
      const what = h("span", { class: "ll-strip-text" }, `\u2715 ${plain(turn.error.what)}`);
      this.#error.replaceChildren(...(hint ? [what, hint] : [what]));
    }
    this.#note.hidden = turn.dropped === 0;
    setText(
      this.#note,
      `${turn.dropped} earlier exchange${turn.dropped === 1 ? "" : "s"} did not fit into the context`,
    );
    for (const button of this.#buttons.querySelectorAll("button")) {
      const { action } = button.dataset;
      button.hidden =
        (action === "trace" && turn.trace_id === null) ||
        (action === "regenerate" && turn.state === "running");
      button.disabled = busy && (action === "edit" || action === "regenerate");
    }
  }

  /** @param {Turn} turn */
  #say(turn) {
    if (turn.role === "user") {
      this.#body.classList.add("ll-raw");
      setText(this.#body, turn.text);
      return;
    }
    const { fresh, closed, open } = this.#growing.take(turn.text, turn.state !== "running");
    if (fresh) this.#body.replaceChildren(this.#open);
    const copy = (/** @type {string} */ text) => this.#actions.copy(text);
    for (const html of closed) this.#open.before(elements(html, copy));
    this.#open.replaceChildren(elements(open, copy));
  }

  /** @param {Turn} turn */
  #cost(turn) {
    if (turn.role === "user") return;
    const { tokens, progress, text, reasoning } = turn;
    if (turn.state === "running") {
      const reading =
        progress !== null && progress < 1 ? `reading the prompt, ${percent(progress)}` : "waiting \u2026";
      const said = text !== "" || reasoning !== "";
      setFacts(this.#facts, [
        said ? "\u25b6 writing" : `\u25cc ${reading}`,
        said && tokens !== null && `${count(tokens)} tokens`,
      ]);
      return;
    }
    setFacts(this.#facts, [
      turn.finish_reason === "length" && turn.state === "done"
        ? "\u25a0 stopped at the token limit"
        : ENDINGS[turn.state],
      `${count(tokens)} tokens`,
      duration(turn.seconds),
      `${rate(turn.tokens_per_s)} tokens/s`,
      `first token ${duration(turn.ttft_s)}`,
    ]);
  }

  #showTrace() {
    const { trace_id: id } = this.#turn;
    const command = `%llama trace ${id}`;
    const copy = h(
      "button",
      { type: "button", class: "ll-button", "data-action": "copy-trace" },
      "Copy command",
    );
    copy.addEventListener("click", () => this.#actions.copy(command));
    this.#trace.replaceChildren("Its trace: ", h("code", {}, command), " ", copy);
    this.#trace.hidden = !this.#trace.hidden;
  }

  #edit() {
    if (this.#editor) return;
    const field = h("textarea", { class: "ll-input", rows: 3, "aria-label": "Edit what you said" });
    field.value = this.#turn.text;
    const send = h("button", { type: "submit", class: "ll-button ll-main" }, "Send again");
    const cancel = h("button", { type: "button", class: "ll-button" }, "Cancel");
    const editor = h("form", { class: "ll-editor" }, field, h("div", { class: "ll-foot" }, send, cancel));
    const close = (/** @type {boolean} */ back) => {
      editor.remove();
      this.#editor = null;
      this.#body.hidden = false;
      if (back) this.#focus("edit");
    };
    const submit = async () => {
      send.disabled = true;
      if (await this.#actions.edit(this.#turn, field.value)) close(false);
      else send.disabled = false;
    };
    editor.addEventListener("submit", (event) => {
      event.preventDefault();
      void submit();
    });
    cancel.addEventListener("click", () => close(true));
    onKeys(field, { Enter: submit, Escape: () => close(true) });
    this.#editor = editor;
    this.#body.hidden = true;
    this.#body.after(editor);
    field.focus();
  }

  /** @param {string} action */
  #focus(action) {
    const button = this.#buttons.querySelector(`[data-action="${action}"]`);
    if (button instanceof HTMLElement) button.focus();
  }

  /**
   * @param {string} label
   * @param {string} action
   * @param {() => void} run
   */
  #button(label, action, run) {
    const button = h("button", { type: "button", class: "ll-button", "data-action": action }, label);
    button.addEventListener("click", run);
    this.#buttons.append(button);
  }
}

/**
 * Keys of a text field: Enter alone, and Escape. A key that composes a character is the input method's.
 *
 * @param {HTMLTextAreaElement} field
 * @param {{ Enter: () => unknown, Escape: () => unknown }} keys
 */
export function onKeys(field, keys) {
  field.addEventListener("keydown", (event) => {
    event.stopPropagation(); // hosts that listen on the page have shortcuts of single letters
    if (event.isComposing || (event.key === "Enter" && event.shiftKey)) return;
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    void keys[event.key]();
  });
}
