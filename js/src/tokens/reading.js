/** Tokens as Python sends them (Tokens.snapshot in llamatelemetry_jupyter/views/tokens.py), in words; no page is needed here. */

import { count, NA, plain } from "../format.js";

/**
 * @typedef {{
 *   id: number | null, runs: readonly string[], kind: string, logprob: number | null, level: number,
 * }} Shown A token that stands or could have stood at a place; `runs`: text, mark, text, mark and so on.
 * @typedef {Shown & { number: number, alternatives: readonly (Shown & { chosen: boolean })[] }} Token
 */

export const PAGE = 500;
/** Below this a token could not have come. */
const LEAST = -999;
const SPOKEN = new Map([
  ["\u00b7", "space"],
  ["\u23ce", "newline"],
  ["\u21e5", "tab"],
  ["\u240d", "carriage return"],
]);

/** @param {number | null} value */
export function logprob(value) {
  if (value === null) return NA;
  return value <= LEAST
    ? "\u2212\u221e"
    : value.toFixed(2).replace("-", "\u2212").replace("\u22120.00", "0.00");
}

/** @param {number | null} value of a logprob: its probability */
export function chance(value) {
  if (value === null) return NA;
  const percent = 100 * Math.exp(value);
  return percent >= 9.95 ? `${percent.toFixed(0)} %` : percent >= 0.1 ? `${percent.toFixed(1)} %` : "< 0.1 %";
}

/** @param {{ runs: readonly string[] }} token What a voice can say of it. */
export function spoken({ runs }) {
  const words = runs.flatMap((run, i) =>
    i % 2 === 0 ? run : [...run].map((mark) => (SPOKEN.has(mark) ? ` ${SPOKEN.get(mark)} ` : mark)).join(""),
  );
  return words.join("").replace(/ +/g, " ").trim();
}

/** @param {Token} token A token in one sentence. */
export function described(token) {
  const others = token.alternatives.filter(({ chosen }) => !chosen).slice(0, 3);
  return [
    `${spoken(token)}, ${token.id === null ? "no id" : `id ${token.id}`}`,
    token.kind !== "text" && token.kind,
    token.logprob !== null && `probability ${chance(token.logprob)}, logprob ${logprob(token.logprob)}`,
    others.length > 0 && `instead ${others.map((one) => `${spoken(one)} ${chance(one.logprob)}`).join(", ")}`,
  ]
    .filter(Boolean)
    .join(", ");
}

export class Reading {
  #data;
  /** @type {readonly number[]} */
  likely;

  /** @param {unknown} snapshot @throws {TypeError} for one of another form */
  constructor(snapshot) {
    const data = /** @type {any} */ (snapshot ?? {});
    const columns = [data.pieces, data.tokens, data.logprobs, data.alternatives, data.likely];
    if (data.version !== 1 || !columns.every(Array.isArray))
      throw new TypeError("these tokens are of another version: reload the page, and run the cell again");
    this.#data = data;
    this.likely = data.likely.map(Number);
  }

  get answer() {
    return this.#data.source === "answer";
  }

  get model() {
    return plain(this.#data.model ?? "");
  }

  get summary() {
    return plain(this.#data.summary);
  }

  /** Tokens that are here. @returns {number} */
  get count() {
    return this.#data.tokens.length;
  }

  /** What is not here, in words. */
  get missing() {
    const total = Number(this.#data.total);
    return total > this.count
      ? `The first ${count(this.count)} of ${count(total)} tokens are here; all of them are in the value: _.frame()`
      : "";
  }

  get pages() {
    return Math.max(1, Math.ceil(this.count / PAGE));
  }

  /** What the figures mean: name and definition. @returns {[string, string][]} */
  get titles() {
    return Object.entries(this.#data.titles ?? {}).map(([name, said]) => [plain(name), plain(said)]);
  }

  /** @param {string} kind */
  word(kind) {
    return plain(this.#data.kinds?.[kind] ?? kind);
  }

  /** Most alternatives at one place. */
  get most() {
    return this.#data.alternatives.reduce(
      (/** @type {number} */ most, /** @type {unknown[]} */ one) => Math.max(most, one.length >> 1),
      0,
    );
  }

  /**
   * @param {number} number counted from 0
   * @returns {Token}
   */
  at(number) {
    const { tokens, logprobs, alternatives } = this.#data;
    const own = this.#piece(tokens[number], logprobs[number]);
    const flat = alternatives[number] ?? [];
    const others = Array.from({ length: flat.length >> 1 }, (_, i) => ({
      ...this.#piece(flat[2 * i], flat[2 * i + 1]),
      chosen: false,
    }));
    const same = others.find(({ id, runs }) =>
      own.id === null ? runs.join("") === own.runs.join("") : id === own.id,
    );
    if (same) same.chosen = true;
    else if (others.length > 0) others.push({ ...own, chosen: true });
    return { ...own, number, alternatives: others };
  }

  /**
   * @param {number} index
   * @param {unknown} value
   * @returns {Shown}
   */
  #piece(index, value) {
    const [id, runs, kind] = this.#data.pieces[index] ?? [];
    const known = typeof value === "number" && Number.isFinite(value) ? Math.min(0, value) : null;
    return {
      id: typeof id === "number" ? id : null,
      runs: Array.isArray(runs) ? runs.map(plain) : ["", "?"],
      kind: String(kind ?? "text"),
      logprob: known,
      level: known === null ? 0 : this.likely.filter((edge) => Math.exp(known) < edge).length,
    };
  }
}
