/**
 * A model's Markdown as HTML in which nothing of the model's own HTML is live, block by block as it comes.
 *
 * What this makes is cleaned once more where it becomes elements (safe.js): two walls of different makers.
 */

import { Marked } from "marked";

/** Markdown's inline rules are not linear in the worst case: a longer block is shown as it was written. */
const MAX_BLOCK = 12_000;
/** While the last block is this short, it may still turn out to go on with the one before. */
const BEGINNING = 12;

/** @param {string} text */
const escaped = (text) => text.replace(/[&<>"'`]/g, (sign) => `&#${sign.charCodeAt(0)};`);

/** @param {string} text */
const asWritten = (text) => `<p><span data-raw="">${escaped(text)}</span></p>`;

/**
 * A link that a reader may follow: to the web only.
 *
 * @param {string} href
 */
export const isWeb = (href) => /^https?:\/\/[^\s"'<>`\\]+$/i.test(href);

const marked = new Marked({
  gfm: true,
  renderer: {
    // After an inline <script>, <pre> or <code> marked passes text on as it is, for it lets that tag through: we don't.
    text: (token) => ("escaped" in token && token.escaped ? escaped(token.text) : false),
    html: ({ text, block }) => (block ? asWritten(text) : escaped(text)),
    image: ({ text }) => escaped(text ? `[image: ${text}]` : "[image]"),
    link({ href, tokens }) {
      const inner = this.parser.parseInline(tokens);
      return isWeb(href) ? `<a href="${escaped(href)}">${inner}</a>` : inner;
    },
    code: ({ text, lang }) =>
      `<pre><code data-lang="${escaped(/^[\w+#.-]{0,20}/.exec(lang ?? "")?.[0] ?? "")}">${escaped(text)}</code></pre>`,
    checkbox: ({ checked }) => (checked ? "\u2611 " : "\u2610 "),
  },
});

/** @param {import("marked").Token} token */
function rendered(token) {
  if (token.raw.length > MAX_BLOCK) return asWritten(token.raw);
  try {
    return marked.parser([token]);
  } catch {
    return asWritten(token.raw); // nested deeper than the stack
  }
}

/**
 * Tokens of the blocks in `text`; together their `raw` is the text.
 *
 * @param {string} text
 * @returns {import("marked").Token[]}
 */
function blocks(text) {
  try {
    return text.length > MAX_BLOCK * 2 ? [whole(text)] : marked.lexer(text);
  } catch {
    return [whole(text)];
  }
}

/**
 * @param {string} text
 * @returns {import("marked").Token}
 */
const whole = (text) => ({ type: "html", raw: text, text, block: true, pre: false });

/** A text that grows: what is finished is parsed once, only its end again and again. */
export class Growing {
  /** The text that came so far. */
  text = "";
  #closed = 0;

  /**
   * Take the text as it is now.
   *
   * @param {string} text What goes on with the text of before; anything else begins anew.
   * @param {boolean} ended
   * @returns {{ fresh: boolean, closed: string[], open: string }} HTML of blocks that are finished since the last call, and
   *   of the open end; `fresh`: they are the first.
   */
  take(text, ended) {
    const fresh = this.#closed === 0 || !text.startsWith(this.text);
    if (!text.startsWith(this.text)) this.#closed = 0;
    this.text = text;
    const tokens = blocks(text.slice(this.#closed));
    let open = tokens.length;
    for (let left = 0; !ended && open > 0 && left < BEGINNING; ) {
      open -= 1;
      left += tokens[open]?.raw.trim().length ?? 0;
    }
    const done = tokens.slice(0, open);
    this.#closed += done.reduce((sum, { raw }) => sum + raw.length, 0);
    const closed = done.filter(({ type }) => type !== "space").map(rendered);
    return { fresh, closed, open: tokens.slice(open).map(rendered).join("") };
  }
}
