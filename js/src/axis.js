/** The one time axis: its ticks, and where all panels begin and end. */

/** Left gutter for the y axes' labels and right margin, CSS px, the same in every panel. */
export const GUTTER = 64;
export const MARGIN = 12;

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];

/**
 * Round local times in a range, as many as fit without crowding.
 *
 * @param {number} fromMs
 * @param {number} toMs
 * @param {number} widthPx
 * @returns {number[]} Unix ms
 */
export function timeTicks(fromMs, toMs, widthPx) {
  const room = Math.max(2, Math.floor(widthPx / 84));
  const days = Math.ceil((toMs - fromMs) / 86_400_000 / room);
  const step = (STEPS_S.find((s) => (toMs - fromMs) / 1000 / s <= room) ?? days * 86400) * 1000;
  // Hours begin where the reader's clock says, also in zones that are off by half an hour.
  const zone = new Date(fromMs).getTimezoneOffset() * 60_000;
  const ticks = [];
  for (let t = Math.ceil((fromMs - zone) / step) * step + zone; t <= toMs; t += step) ticks.push(t);
  return ticks;
}

/**
 * Times at round distances from `origin` in a range, down to microseconds.
 *
 * @param {number} origin Unix ms
 * @param {readonly [number, number]} range
 * @param {number} widthPx
 * @returns {number[]} Unix ms
 */
export function ticksFrom(origin, [from, to], widthPx) {
  const least = (to - from) / Math.max(2, Math.floor(widthPx / 84));
  const unit = 10 ** Math.floor(Math.log10(Math.max(least, 1e-3)));
  const step = unit * ([1, 2, 5].find((factor) => unit * factor >= least) ?? 10);
  const ticks = [];
  for (let n = Math.ceil((from - origin) / step); origin + n * step <= to; n++) ticks.push(origin + n * step);
  return ticks;
}

/**
 * Ticks from 0 up to `max` in round steps, at most `room` of them; `base` 1024 for bytes.
 *
 * @param {number} max
 * @param {number} room
 * @param {1000 | 1024} base
 * @param {number} smallest step that makes sense (1 for things that are counted)
 */
export function valueTicks(max, room, base = 1000, smallest = 0) {
  if (!(max > 0)) return [0];
  const magnitude = base === 1024 ? 2 : 10;
  const steps = base === 1024 ? [1] : [1, 2, 5];
  let unit = magnitude ** Math.floor(Math.log(max / room) / Math.log(magnitude));
  let step = unit;
  search: for (;;) {
    for (const factor of steps) {
      step = Math.max(unit * factor, smallest);
      if (max / step <= room) break search;
    }
    unit *= magnitude;
  }
  const ticks = [];
  for (let value = 0; value <= max * 1.0001; value += step) ticks.push(value);
  return ticks;
}
