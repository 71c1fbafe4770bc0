/** Numbers as people read them. `null` and `undefined` are "n/a", never 0. */

export const NA = "n/a";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (value == null || !Number.isFinite(value)) return NA;
  let unit = 0;
  let scaled = Math.abs(value);
  // 1023.95 would be shown as "1,024": it belongs to the next unit.
  while (scaled >= 1023.95 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  const text = unit === 0 ? scaled.toFixed(0) : scaled >= 100 ? scaled.toFixed(0) : scaled.toFixed(1);
  return `${value < 0 ? "−" : ""}${text} ${UNITS[unit]}`;
}

/** @param {number | null | undefined} value whole number with thousands separated */
export function count(value) {
  if (value == null || !Number.isFinite(value)) return NA;
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** @param {number | null | undefined} value */
export function rate(value) {
  if (value == null || !Number.isFinite(value)) return NA;
  return Math.abs(value) >= 1000 ? count(value) : value.toFixed(1);
}

/** @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return NA;
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  const rest = Math.round(seconds) % 60;
  if (minutes < 60) return `${minutes} min ${String(rest).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** @param {number | null | undefined} fraction 0..1 */
export function percent(fraction) {
  if (fraction == null || !Number.isFinite(fraction)) return NA;
  const value = fraction * 100;
  return `${value > 0 && value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

/** @param {number} tMs Unix ms @returns {string} Local time of day. */
export function clock(tMs) {
  const date = new Date(tMs);
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((n) => String(n).padStart(2, "0"))
    .join(":");
}

/** @param {number} tMs Unix ms of the last reading */
export function since(tMs) {
  return `${NA} since ${clock(tMs)}`;
}

/** Other people's text on one line: characters that move a cursor or turn the reading direction are shown as such. */
export function plain(/** @type {unknown} */ text) {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}
