/**
 * The critical path of a trace: at every moment from its start to its end the one span that the end had to wait for.
 *
 * From the end backwards: a span waited last for the child that ended last, before that for the child that ended last
 * before this one began, and so on; what lies between them is the span's own time.
 */

import { forest } from "./tree.js";

/** @import { Span } from "./types.js" */
/** @typedef {readonly [number, number]} Piece From and to, Unix ms. */

/** Ends and starts nearer than this are one moment: nanoseconds have gone through doubles. */
const SAME_MS = 0.001;

/**
 * @param {readonly Span[]} spans of one trace
 * @returns {Map<string, Piece[]>} By span the pieces of its own time on the path, each in order of time.
 */
export function criticalPath(spans) {
  const { roots, children } = forest(spans);
  /** @type {Map<string, Piece[]>} */
  const path = new Map();
  /** @type {{ span: Span, until: number }[]} */
  const waiting = [];
  const end = roots.reduce((last, { span }) => Math.max(last, span.end_ms), 0);
  // Roots beside each other follow each other, as children of a span do.
  waitedFor(
    roots.map(({ span }) => span),
    end,
    (span, until) => waiting.push({ span, until }),
  );
  /** @type {Set<string>} */
  const seen = new Set();
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const { span, until } = next;
    if (seen.has(span.span_id)) continue;
    seen.add(span.span_id);
    /** @type {Piece[]} */
    const own = [];
    let cursor = until;
    const below = children.get(span.span_id) ?? [];
    const last = waitedFor(below, until, (child, to, from) => {
      if (cursor - to > SAME_MS) own.push([to, cursor]);
      cursor = from;
      waiting.push({ span: child, until: to });
    });
    if (last - span.start_ms > SAME_MS) own.push([span.start_ms, last]);
    path.set(span.span_id, own.reverse());
  }
  return path;
}

/**
 * Spans that follow each other, the last first; one that runs on beyond `until` ends there.
 *
 * @param {readonly Span[]} spans
 * @param {number} until
 * @param {(span: Span, to: number, from: number) => void} found
 * @returns {number} when the first of them began
 */
function waitedFor(spans, until, found) {
  const byEnd = spans
    .map((span) => ({ span, to: Math.min(span.end_ms, until) }))
    .sort((a, b) => b.to - a.to || a.span.start_ms - b.span.start_ms);
  let cursor = until;
  for (const { span, to } of byEnd) {
    if (to > cursor + SAME_MS || to - span.start_ms <= 0) continue;
    found(span, Math.min(to, cursor), span.start_ms);
    cursor = span.start_ms;
  }
  return cursor;
}
