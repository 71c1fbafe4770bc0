/**
 * Messages of llamatelemetry_jupyter/feed.py, decoded and checked. What does not fit is `null`, never an exception:
 * a lost or torn message costs a moment of the picture, not the picture.
 */

/** @import { Message, Series, Snapshot } from "./types.js" */

/**
 * @param {unknown} content
 * @param {readonly (DataView | ArrayBuffer | ArrayBufferView)[]} [buffers]
 * @returns {Message | null}
 */
export function decode(content, buffers = []) {
  if (!isRecord(content) || typeof content.seq !== "number") return null;
  const { seq } = content;
  switch (content.type) {
    case "frame":
      return frame(content, seq, buffers[0]);
    case "spans":
      return {
        type: "spans",
        seq,
        spans: Array.isArray(content.spans) ? content.spans : [],
        totals: isRecord(content.totals) ? /** @type {any} */ (content.totals) : null,
        server: "server" in content ? /** @type {any} */ (content.server) : undefined,
        devices: Array.isArray(content.devices) ? content.devices : null,
        sinceMs: "since_ms" in content ? time(content.since_ms) : undefined,
      };
    case "snapshot": {
      const snapshot = asSnapshot(content.snapshot);
      return snapshot && { type: "snapshot", seq, snapshot };
    }
    default:
      return null;
  }
}

/**
 * @param {Record<string, unknown>} content
 * @param {number} seq
 * @param {DataView | ArrayBuffer | ArrayBufferView | undefined} buffer
 * @returns {Message | null}
 */
function frame(content, seq, buffer) {
  const rows = content.rows;
  if (buffer === undefined || typeof rows !== "number" || !Number.isInteger(rows) || rows < 1) return null;
  const data = float64(buffer);
  const width = data.length / rows - 1;
  if (!Number.isInteger(width) || width < 0) return null;
  const layout = typeof content.layout === "number" ? content.layout : null;
  return { type: "frame", seq, layout, rows, width, data };
}

/**
 * Little-endian doubles at any offset: a widget's buffer is a view that need not be aligned.
 *
 * @param {DataView | ArrayBuffer | ArrayBufferView} buffer
 */
export function float64(buffer) {
  const view = ArrayBuffer.isView(buffer)
    ? new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength)
    : new DataView(buffer);
  const out = new Float64Array(Math.floor(view.byteLength / 8));
  for (let i = 0; i < out.length; i++) out[i] = view.getFloat64(i * 8, true);
  return out;
}

/** @param {unknown} value @returns {number | null} */
export function time(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/**
 * @param {unknown} value
 * @returns {Snapshot | null}
 */
export function asSnapshot(value) {
  if (!isRecord(value) || value.version !== 1 || !Array.isArray(value.series)) return null;
  return /** @type {any} */ (value);
}

/**
 * CRC-32 of the series' ids joined by newlines (Python: `zlib.crc32`): which list a frame's columns belong to.
 *
 * @param {readonly Series[]} series
 */
export function layoutOf(series) {
  let crc = ~0;
  for (const byte of new TextEncoder().encode(series.map((s) => s.id).join("\n"))) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
function isRecord(value) {
  return typeof value === "object" && value !== null;
}
