/** One span in full: its times, figures, attributes, events and links, and what can be taken along. */

import { own } from "../believed.js";
import { h, setAttribute, setFacts, setText } from "../dom.js";
import { bytes, count, duration, plain } from "../format.js";
import { describe } from "./waterfall.js";

/** @import { Shared } from "../dashboard.js" */
/** @import { WholeSpan } from "../types.js" */

/** Longer values are cut on the page until the reader asks; Python cuts them at 20 kB. */
const SHORT = 300;
const MANY = 200;
/** By how much of a request's prompt was recorded. */
const PROMPTS = {
  whole: "with its prompt",
  part: "with the part of its prompt that was recorded",
  none: "with a placeholder for its prompt, which was not recorded",
};
/** Attributes that stand for what OpenTelemetry has beside attributes (semconv.py). @type {Record<string, string>} */
const BESIDE = { "otel.events": "event", "otel.links": "link" };

export class SpanDetails {
  el;
  #signal;
  #title = h("span", { class: "ll-name" });
  #facts = h("p", { class: "ll-details", "data-field": "span" });
  #list = h("dl", { class: "ll-attributes", tabindex: 0, "aria-label": "Attributes" });
  #note = h("p", { class: "ll-note", "data-field": "attributes-note" });
  #said = h("span", { class: "ll-note", role: "status", "data-field": "copied" });
  #text = h("textarea", { class: "ll-copy", readonly: true, hidden: true, "aria-label": "Copy this text" });
  #json = h("button", { type: "button", class: "ll-button", "data-action": "json" }, "Copy JSON");
  #curl = h("button", { type: "button", class: "ll-button", "data-action": "curl" }, "Copy curl");
  /** @type {WholeSpan | undefined} */
  #span;
  #drawn = "";
  #ask;

  /**
   * @param {Shared} shared
   * @param {(trace: string) => Promise<string | undefined>} ask for the trace as OTLP's JSON
   */
  constructor({ signal }, ask) {
    this.#signal = signal;
    this.#ask = ask;
    this.el = h(
      "div",
      { class: "ll-spandetails" },
      h("h3", {}, this.#title, this.#json, this.#curl, this.#said),
      this.#text,
      this.#facts,
      this.#list,
      this.#note,
    );
    setAttribute(this.#json, "title", "The whole trace as OTLP JSON");
    setAttribute(this.#curl, "title", "The same request as a command; without its key");
    this.#json.addEventListener("click", () => this.#copyJson(), { signal });
    this.#curl.addEventListener("click", () => this.#copyCurl(), { signal });
    this.#text.addEventListener("blur", () => this.#clear(), { signal });
  }

  /** @param {WholeSpan | undefined} span the one that is selected */
  render(span) {
    this.el.hidden = span === undefined;
    const stamp = span ? `${span.trace_id} ${span.span_id} ${span.attributes !== undefined}` : "";
    if (!span || (span === this.#span && stamp === this.#drawn)) return;
    if (span.span_id !== this.#span?.span_id) this.#clear();
    this.#span = span;
    this.#drawn = stamp;
    setText(this.#title, plain(span.name));
    setFacts(this.#facts, describe(span));
    this.#curl.hidden = span.curl === undefined;
    this.#fill(span, MANY);
  }

  /**
   * @param {WholeSpan} span
   * @param {number} most
   */
  #fill(span, most) {
    const entries = Object.entries(span.attributes ?? {}).flatMap(([name, value]) =>
      listed(span, name, value),
    );
    this.#list.hidden = entries.length === 0;
    const shown = entries
      .slice(0, most)
      .flatMap(([name, value]) => [
        h("dt", {}, plain(name)),
        h(
          "dd",
          {},
          ...this.#value(
            typeof value === "string" ? value : JSON.stringify(value),
            own(span.cut ?? {}, name),
          ),
        ),
      ]);
    this.#list.replaceChildren(...shown);
    if (entries.length > most) {
      const all = h("button", { type: "button", class: "ll-button" }, `Show all ${count(entries.length)}`);
      all.addEventListener("click", () => this.#fill(span, entries.length), { signal: this.#signal });
      this.#list.append(h("dt"), h("dd", {}, all));
    }
    const notes = [
      !span.attributes && "Attributes are not here yet.",
      span.attributes && entries.length === 0 && "No attributes.",
      span.left_out && `${count(span.left_out)} more attributes are left out: there is room for 200 kB.`,
    ];
    setText(this.#note, notes.filter(Boolean).join(" "));
  }

  /**
   * A value as text, whole when it is short or the reader asks.
   *
   * @param {string} text
   * @param {number | undefined} whole bytes, where Python cut it
   * @returns {Node[]}
   */
  #value(text, whole) {
    const cut =
      whole === undefined
        ? []
        : [h("span", { class: "ll-note" }, ` \u2026 the first 20 kB of ${bytes(whole)}`)];
    if (text.length <= SHORT) return [h("span", {}, printed(text)), ...cut];
    const short = h("span", {}, `${printed(text.slice(0, SHORT))}\u2026 `);
    const button = h("button", { type: "button", class: "ll-button", "aria-expanded": "false" }, "Show all");
    button.addEventListener(
      "click",
      () => {
        const open = button.getAttribute("aria-expanded") !== "true";
        setAttribute(button, "aria-expanded", String(open));
        setText(short, open ? `${printed(text)} ` : `${printed(text.slice(0, SHORT))}\u2026 `);
        setText(button, open ? "Show less" : "Show all");
      },
      { signal: this.#signal },
    );
    return [short, button, ...cut];
  }

  async #copyJson() {
    const text = this.#span && (await this.#ask(this.#span.trace_id));
    if (text) this.#copy(text, `${bytes(text.length)} of JSON`);
  }

  #copyCurl() {
    const curl = this.#span?.curl;
    if (curl) this.#copy(curl.command, `the command ${PROMPTS[curl.prompt]}; KEY is yours to set`);
  }

  /**
   * @param {string} text
   * @param {string} what
   */
  async #copy(text, what) {
    this.#clear();
    try {
      await navigator.clipboard.writeText(text);
      setText(this.#said, `Copied ${what}.`);
    } catch {
      // A page over plain HTTP has no clipboard, and a browser may refuse it: the reader takes the text.
      this.#text.hidden = false;
      this.#text.value = text;
      this.#text.focus();
      this.#text.select();
      setText(this.#said, `Press Ctrl+C (\u2318C) to copy ${what}.`);
    }
  }

  #clear() {
    this.#text.hidden = true;
    this.#text.value = "";
    setText(this.#said, "");
  }
}

/**
 * An attribute, or what stands in it one by one.
 *
 * @param {WholeSpan} span
 * @param {string} name
 * @param {unknown} value
 * @returns {[string, unknown][]}
 */
function listed(span, name, value) {
  const kind = own(BESIDE, name);
  if (!kind || !Array.isArray(value)) return [[name, value]];
  return value.map((one) => {
    const { name: said, t_ns, ...rest } = one ?? {};
    const when =
      typeof t_ns === "number" ? ` at +${duration(Math.max(0, t_ns / 1e6 - span.start_ms) / 1000)}` : "";
    return [`${kind}${said ? ` ${said}` : ""}${when}`, rest];
  });
}

/** Lines of a text stay lines. @param {string} text */
function printed(text) {
  return text.split("\n").map(plain).join("\n");
}
