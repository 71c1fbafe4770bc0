/** Spans as the trees that their parents make. Whatever the parents are, every span is in it once. */

/** @import { Span } from "./types.js" */

/**
 * @typedef {{ span: Span, depth: number, first: boolean, cut: boolean }} Row `first`: the row begins a trace; `cut`: its
 *   parents lead back to itself, and it stands as a root
 * @typedef {{ roots: { span: Span, cut: boolean }[], children: Map<string, Span[]> }} Forest Each list in order of time.
 */

/**
 * Roots are spans whose parent is not among these; a circle of parents is cut at its earliest span.
 *
 * @param {readonly Span[]} spans
 * @returns {Forest}
 */
export function forest(spans) {
  const byTime = [...spans].sort((a, b) => a.start_ms - b.start_ms || b.end_ms - a.end_ms);
  const ids = new Set(byTime.map((span) => span.span_id));
  /** @type {Forest} */
  const { roots, children } = { roots: [], children: new Map() };
  for (const span of byTime) {
    const parent = span.parent_id ?? "";
    if (!ids.has(parent) || parent === span.span_id) roots.push({ span, cut: parent === span.span_id });
    else children.get(parent)?.push(span) ?? children.set(parent, [span]);
  }
  /** @type {Set<string>} */
  const seen = new Set();
  for (const { span } of roots) below(span, children, seen);
  for (const span of byTime) {
    if (seen.has(span.span_id)) continue;
    roots.push({ span, cut: true });
    below(span, children, seen);
  }
  return { roots, children };
}

/**
 * The newest trace first; within it each span before its children, in order of time.
 *
 * @param {readonly Span[]} spans
 * @returns {Row[]}
 */
export function inOrder(spans) {
  const { roots, children } = forest(spans);
  /** @type {Map<string, typeof roots>} */
  const traces = new Map();
  for (const root of roots)
    traces.get(root.span.trace_id)?.push(root) ?? traces.set(root.span.trace_id, [root]);
  const newestFirst = [...traces.values()].sort(
    (a, b) => (b[0]?.span.start_ms ?? 0) - (a[0]?.span.start_ms ?? 0),
  );
  /** @type {Row[]} */
  const rows = [];
  /** @type {Set<string>} */
  const seen = new Set();
  for (const trace of newestFirst) {
    trace.forEach((root, index) => {
      for (const { span, depth } of below(root.span, children, seen))
        rows.push({ span, depth, first: index === 0 && depth === 0, cut: root.cut && depth === 0 });
    });
  }
  return rows;
}

/**
 * A span and all below it, parents first. Not recursive: other libraries' traces may be thousands of levels deep.
 *
 * @param {Span} top
 * @param {ReadonlyMap<string, readonly Span[]>} children
 * @param {Set<string>} seen spans that are passed over, added to
 */
function below(top, children, seen) {
  const found = [];
  const waiting = [{ span: top, depth: 0 }];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    if (seen.has(next.span.span_id)) continue;
    seen.add(next.span.span_id);
    found.push(next);
    for (const child of children.get(next.span.span_id)?.toReversed() ?? [])
      waiting.push({ span: child, depth: next.depth + 1 });
  }
  return found;
}
