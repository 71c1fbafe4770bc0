/**
 * Everything the dashboard knows, merged from the snapshot trait and the live messages.
 *
 * Two sources that may overtake each other or get lost are made one by the sequence number for state (totals, server,
 * devices, spans) and by time for samples: a row is kept once, and a snapshot fills the holes that lost frames left.
 */

import { lastAt } from "./levels.js";
import { layoutOf } from "./wire.js";

/** @import { Device, Frame, Message, Server, Series, Snapshot, Span, SpansUpdate, Totals } from "./types.js" */

/** An hour at 10 Hz; of more than 80 series a little less. */
const MAX_ROWS = 36_000;
const MAX_VALUES = 3_000_000;
/** So many more are let in before the oldest are dropped: that moves all rows. */
const SPARE_ROWS = 1000;
const MAX_SPANS = 400;
/** Rows nearer than this are the same sample. */
const SAME_MS = 20;
const OVERTAKEN_MS = 5000;
const COARSE_MS = 1500;
const LEAP_MS = 3_600_000;

export class History {
  /** @type {readonly Series[]} */
  series = [];
  layout = layoutOf([]);
  /** @type {number[]} */
  t = [];
  /** @type {(number | null)[][]} One column per series. */
  columns = [];
  /** @type {Map<string, Span>} In order of arrival. */
  spans = new Map();
  /** @type {Totals | null} */
  totals = null;
  /** @type {Server | null} */
  server = null;
  /** @type {readonly Device[]} */
  devices = [];
  /** When the last reading of anything was, Unix ms, if that is not now: nothing here is current then. @type {number | null} */
  sinceMs = null;
  /** @type {Readonly<Record<string, unknown>>} What the figures of the header are, by field. */
  titles = {};
  /** Kernel time of the newest thing seen, Unix ms; 0 before anything was. */
  nowMs = 0;
  windowMs = 120_000;
  /** Everything after this is here, as far as Python has it, Unix ms; 0 before anything is. */
  reachedMs = 0;
  /** Up to `untilMs` rows are far apart, and only what is wider than `gapMs` is a hole. */
  coarse = { untilMs: 0, gapMs: 0 };
  /** Counts changes; drawings are made anew when it moved. */
  version = 0;
  /** Counts changes other than rows added at the end. */
  generation = 0;
  /** Highest sequence number seen. */
  seq = 0;
  /** True once a frame came whose columns are not ours: only a new snapshot helps. */
  needsSnapshot = false;
  #stateSeq = -1;
  #movedAt = 0;

  /**
   * The trait's or a message's snapshot.
   *
   * @param {Snapshot} snapshot
   * @param {number} seq
   */
  load(snapshot, seq) {
    // The numbers of a new feed begin again: the kernel's clock tells. Within moments a trait may be overtaken.
    const anew = seq < this.#stateSeq && snapshot.now_ms > this.nowMs + OVERTAKEN_MS;
    const newer = anew || seq >= this.#stateSeq;
    if (newer) {
      this.#setSeries(snapshot.series);
      this.#stateSeq = seq;
      this.totals = snapshot.totals ?? this.totals;
      this.server = snapshot.server ?? null;
      this.devices = snapshot.devices ?? [];
      this.sinceMs = snapshot.since_ms ?? null;
      this.titles = snapshot.titles ?? {};
      this.needsSnapshot = false;
    }
    for (const span of snapshot.spans ?? []) {
      if (newer || !this.spans.has(span.span_id)) this.spans.set(span.span_id, span);
    }
    this.#trimSpans();
    this.seq = anew ? seq : Math.max(this.seq, seq);
    this.version += 1;
    this.windowMs = (snapshot.window_s || 120) * 1000;
    this.#reach(snapshot);
    this.#merge(snapshot);
    this.nowMs = Math.max(this.nowMs, snapshot.now_ms);
    this.#movedAt = Date.now();
  }

  /**
   * What was before: a snapshot of a longer time, asked for. It says nothing of now.
   *
   * @param {Snapshot} snapshot
   */
  extend(snapshot) {
    const known = this.spans;
    const before = (snapshot.spans ?? []).filter((span) => !known.has(span.span_id));
    this.spans = new Map([...before.map((span) => /** @type {const} */ ([span.span_id, span])), ...known]);
    this.#trimSpans();
    this.version += 1;
    this.#reach(snapshot);
    this.#merge(snapshot);
  }

  /** @param {Snapshot} snapshot */
  #reach({ now_ms, window_s }) {
    const from = now_ms - (window_s || 120) * 1000;
    this.reachedMs = this.reachedMs === 0 ? from : Math.min(this.reachedMs, from);
  }

  /**
   * A live message; false when it was old or does not fit.
   *
   * @param {Message} message
   */
  apply(message) {
    if (message.type === "snapshot") {
      if (message.seq < this.#stateSeq) return false;
      this.load(message.snapshot, message.seq);
      return true;
    }
    if (message.seq <= this.seq) return false;
    this.seq = message.seq;
    this.version += 1;
    return message.type === "frame" ? this.#append(message) : this.#update(message);
  }

  /** @param {Frame} frame */
  #append(frame) {
    const wrong = frame.layout === null ? frame.width !== this.series.length : frame.layout !== this.layout;
    if (wrong || frame.width !== this.series.length) {
      this.needsSnapshot = true;
      return false;
    }
    for (let row = 0; row < frame.rows; row++) {
      const at = row * (frame.width + 1);
      const t = frame.data[at] ?? Number.NaN;
      if (!(t > (this.t.at(-1) ?? 0))) continue;
      if (this.#leaps(t)) {
        this.needsSnapshot = true; // it has the kernel's own time
        continue;
      }
      this.t.push(t);
      for (let column = 0; column < frame.width; column++) {
        const value = frame.data[at + 1 + column] ?? Number.NaN;
        this.columns[column]?.push(Number.isFinite(value) ? value : null);
      }
      this.#advance(t);
    }
    const most = Math.min(MAX_ROWS, Math.floor(MAX_VALUES / Math.max(1, this.columns.length)));
    if (this.t.length > most + SPARE_ROWS) {
      const extra = this.t.length - most;
      this.t.splice(0, extra);
      for (const column of this.columns) column.splice(0, extra);
      this.generation += 1;
      this.reachedMs = this.t[0] ?? this.reachedMs;
    }
    return true;
  }

  /** @param {SpansUpdate} update */
  #update(update) {
    this.#stateSeq = update.seq;
    if (update.totals) this.totals = update.totals;
    if (update.server !== undefined) this.server = update.server;
    if (update.devices) this.devices = update.devices;
    if (update.sinceMs !== undefined) this.sinceMs = update.sinceMs;
    for (const span of update.spans) {
      this.spans.set(span.span_id, span);
      this.#advance(span.end_ms);
    }
    this.#trimSpans();
    return true;
  }

  /** Time of the oldest thing known, Unix ms; 0 before anything is. */
  get firstMs() {
    let first = this.t[0] ?? Number.POSITIVE_INFINITY;
    for (const span of this.spans.values()) first = Math.min(first, span.start_ms);
    return Number.isFinite(first) ? first : 0;
  }

  /**
   * The value of a column at a row, or the last one before it that is at most `maxRows` rows older.
   *
   * @param {number} column
   * @param {number} row
   * @returns {number | null}
   */
  valueAt(column, row, maxRows = 5) {
    const values = this.columns[column];
    for (let i = row; values && i >= 0 && i > row - maxRows; i--) {
      const value = values[i];
      if (value != null) return value;
    }
    return null;
  }

  /** @param {number} tMs @returns {number} Index of the last row at or before `tMs`, −1 when there is none. */
  rowAt(tMs) {
    return lastAt(this.t, tMs);
  }

  /** @param {readonly Series[]} series */
  #setSeries(series) {
    const layout = layoutOf(series);
    if (layout !== this.layout || series.length !== this.series.length) {
      const old = new Map(this.series.map((s, i) => [s.id, this.columns[i]]));
      this.columns = series.map((s) => old.get(s.id) ?? new Array(this.t.length).fill(null));
    }
    this.series = series;
    this.layout = layout;
  }

  /** @param {Snapshot} snapshot */
  #merge(snapshot) {
    const times = snapshot.points?.t_ms ?? [];
    const place = new Map(snapshot.series.map((s, i) => [s.id, i]));
    const from = this.series.map((s) => place.get(s.id));
    const t = [];
    const columns = /** @type {(number | null)[][]} */ (this.series.map(() => []));
    // Where a hole is worth filling: our own rows further apart than any two of the snapshot.
    let widest = SAME_MS;
    for (let j = 1; j < times.length; j++) widest = Math.max(widest, (times[j] ?? 0) - (times[j - 1] ?? 0));
    const apart = times.length > 1 ? ((times.at(-1) ?? 0) - (times[0] ?? 0)) / (times.length - 1) : 0;
    if (apart > COARSE_MS) {
      // Points come in pairs, the smallest and the largest of a stretch.
      this.coarse = {
        untilMs: Math.max(this.coarse.untilMs, this.t[0] ?? times.at(-1) ?? 0),
        gapMs: apart * 5,
      };
    }
    let i = 0;
    let j = 0;
    while (i < this.t.length || j < times.length) {
      const own = this.t[i] ?? Number.POSITIVE_INFINITY;
      const other = times[j] ?? Number.POSITIVE_INFINITY;
      if (own <= other + SAME_MS) {
        if (other <= own + SAME_MS) j++;
        t.push(own);
        for (let c = 0; c < columns.length; c++) columns[c]?.push(this.columns[c]?.[i] ?? null);
        i++;
        continue;
      }
      const before = this.t[i - 1];
      const inside = before !== undefined && i < this.t.length;
      if (!inside || own - before > Math.min(widest, 2000) + SAME_MS) {
        t.push(other);
        for (let c = 0; c < columns.length; c++) {
          const column = from[c];
          columns[c]?.push(column === undefined ? null : (snapshot.points.values[column]?.[j] ?? null));
        }
      }
      j++;
    }
    this.t = t;
    this.columns = columns;
    this.generation += 1;
    this.#advance(t.at(-1) ?? 0);
  }

  #trimSpans() {
    for (const id of this.spans.keys()) {
      if (this.spans.size <= MAX_SPANS) return;
      this.spans.delete(id);
    }
  }

  /**
   * Time goes on, but not by leaps: spans come from other programs, too, whose clocks may be years ahead.
   *
   * @param {number} tMs
   */
  #advance(tMs) {
    if (tMs <= this.nowMs || this.#leaps(tMs)) return;
    this.nowMs = tMs;
    this.#movedAt = Date.now();
  }

  /** @param {number} tMs */
  #leaps(tMs) {
    return this.nowMs > 0 && tMs > this.nowMs + (Date.now() - this.#movedAt) + LEAP_MS;
  }
}
