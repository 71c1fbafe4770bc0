/** The list of traces, one line each: told by Python as columns, and made of the spans that come live. */

import { list, MOST, number, record, text, time } from "./believed.js";
import { plain } from "./format.js";
import { spanKind } from "./theme.js";

/** @import { Lost } from "./believed.js" */
/** @import { Span } from "./types.js" */

/**
 * @typedef {{
 *   trace_id: string, span_id: string, start_ms: number, end_ms: number, duration_s: number, complete: boolean,
 *   calls: number, failed: boolean, input_tokens: number | null, output_tokens: number | null, ttft_s: number | null,
 *   decode_tokens_per_s: number | null, energy_j: number | null, name: string, model: string, cell: string,
 *   error_type: string, said: string,
 * }} Line `said`: its words, for the search
 * @typedef {keyof Omit<Line, "said">} Key
 */

/** Columns of text, which come as places in a table. */
const TEXTS = new Set(["name", "model", "cell", "error_type"]);
const FIGURES = ["calls", "input_tokens", "output_tokens", "ttft_s", "decode_tokens_per_s", "energy_j"];
/** Characters of a cell's id, as in Python (views/traces.py). */
const CELL = 8;

/**
 * The lines of an answer of the operation "traces".
 *
 * @param {unknown} answer
 * @param {Lost} [lost]
 * @returns {Line[] | null}
 */
export function decodeLines(answer, lost = { count: 0 }) {
  const { texts, ...columns } = record(answer) ?? {};
  if (!Array.isArray(columns["trace_id"])) return null;
  const value = (/** @type {string} */ key, /** @type {number} */ i) => columns[key]?.[i];
  return list(
    columns["trace_id"].map((_, i) => i),
    (i) => {
      const [trace_id, span_id] = [text(value("trace_id", i)), text(value("span_id", i))];
      const [start_ms, end_ms] = [time(value("start_ms", i)), time(value("end_ms", i))];
      if (!trace_id || !span_id || start_ms === null || end_ms === null) return null;
      const flags = { complete: value("complete", i) === true, failed: value("failed", i) === true };
      const figures = Object.fromEntries(FIGURES.map((key) => [key, number(value(key, i))]));
      const words = Object.fromEntries([...TEXTS].map((key) => [key, text(texts?.[value(key, i)])]));
      return finished({
        trace_id,
        span_id,
        start_ms,
        end_ms: Math.max(start_ms, end_ms),
        ...flags,
        ...figures,
        ...words,
      });
    },
    MOST.lines,
    lost,
  );
}

/**
 * The line of a trace by those of its spans that are known, with the same figures as Python's.
 *
 * @param {readonly Span[]} spans of one trace, at least one
 * @returns {Line}
 */
export function lineOf(spans) {
  const byTime = [...spans].sort((a, b) => a.start_ms - b.start_ms);
  const root = byTime.find((span) => span.parent_id == null);
  const calls = byTime.filter((span) => spanKind(span.name) === "chat");
  const failed = byTime.find((span) => span.status === "error" && (span === root || calls.includes(span)));
  const head = root ?? calls[0] ?? byTime[0];
  if (!head) throw new RangeError("a trace has a span");
  const said = calls[0] ?? head;
  const sum = (/** @type {"input_tokens" | "output_tokens" | "energy_j"} */ name) => {
    const there = calls.map((call) => call[name]).filter((value) => value != null);
    return there.length > 0 ? there.reduce((a, b) => a + b, 0) : null;
  };
  return finished({
    trace_id: head.trace_id,
    span_id: head.span_id,
    start_ms: head.start_ms,
    end_ms: root ? root.end_ms : Math.max(...byTime.map((span) => span.end_ms)),
    complete: root !== undefined,
    calls: calls.length,
    failed: failed !== undefined,
    input_tokens: sum("input_tokens"),
    output_tokens: sum("output_tokens"),
    ttft_s: said.ttft_s ?? null,
    decode_tokens_per_s: rateOf(calls),
    energy_j: head.energy_j ?? sum("energy_j"),
    name: head.name,
    model: said.model,
    cell: head.cell_id?.slice(0, CELL),
    error_type: failed?.error_type,
  });
}

/** @param {any} line @returns {Line} */
function finished(line) {
  for (const key of TEXTS) line[key] = plain(line[key]);
  line.duration_s = (line.end_ms - line.start_ms) / 1000;
  line.said = [line.name, line.model, line.cell, line.error_type, line.trace_id].join("\n").toLowerCase();
  return line;
}

/** Output tokens per second of decoding: each call's first token is its prefill's. @param {readonly Span[]} calls */
function rateOf(calls) {
  if (calls.length === 1) return calls[0]?.decode_tokens_per_s ?? null;
  let tokens = 0;
  let seconds = 0;
  for (const { output_tokens, decode_tokens_per_s } of calls) {
    if (!decode_tokens_per_s || !output_tokens || output_tokens < 2) continue;
    tokens += output_tokens - 1;
    seconds += (output_tokens - 1) / decode_tokens_per_s;
  }
  return seconds > 0 ? tokens / seconds : null;
}

/**
 * Lines in the order that the reader wants; what is not available is last either way.
 *
 * @param {Iterable<Line>} lines
 * @param {{ key: Key, down: boolean, search: string, status: string }} wanted `status`: all, ok or error
 * @returns {Line[]}
 */
export function chosen(lines, { key, down, search, status }) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...lines].filter(
    (line) =>
      (status === "all" || line.failed === (status === "error")) &&
      words.every((word) => line.said.includes(word)),
  );
  const way = down ? -1 : 1;
  return found.sort((a, b) => {
    const [x, y] = [a[key], b[key]];
    const order = missing(x) - missing(y) || (x === y || missing(x) ? 0 : way * (less(x, y) ? -1 : 1));
    return order || b.start_ms - a.start_ms;
  });
}

/** @param {unknown} value */
function missing(value) {
  return value === null || value === undefined || value === "" ? 1 : 0;
}

/** @param {any} a @param {any} b */
function less(a, b) {
  return a < b;
}

export class Lines {
  /** @type {Map<string, Line>} */
  all = new Map();
  /** Trace of a line's span. @type {Map<string, string>} */
  byspan = new Map();
  /** Counts changes. */
  version = 0;

  /** @param {readonly Line[]} lines What Python knows, which is all of a trace. */
  told(lines) {
    for (const line of lines) this.#set(line);
  }

  /**
   * Spans that came live: the newest only, so a trace of which more is known stays as it is.
   *
   * @param {Iterable<Span>} spans
   */
  live(spans) {
    /** @type {Map<string, Span[]>} */
    const traces = new Map();
    for (const span of spans) traces.get(span.trace_id)?.push(span) ?? traces.set(span.trace_id, [span]);
    for (const [id, found] of traces) {
      const known = this.all.get(id);
      const line = lineOf(found);
      if (!known || (line.calls >= known.calls && (line.complete || !known.complete))) this.#set(line);
    }
  }

  /** @param {Line} line */
  #set(line) {
    const known = this.all.get(line.trace_id);
    const keys = /** @type {(keyof Line)[]} */ (Object.keys(line));
    if (known && keys.every((key) => known[key] === line[key])) return;
    this.all.set(line.trace_id, line);
    this.byspan.set(line.span_id, line.trace_id);
    this.version += 1;
  }
}
