/**
 * Looking closer at a time axis and moving along it: by drawing a range out, by wheel and by keys, the same in every
 * chart and in the waterfall of a trace.
 */

import { consume, h } from "./dom.js";

/** @import { Store } from "./store.js" */

/** A pointer that moved no farther has clicked. */
const STILL_PX = 4;

/** What is seen of a time axis; all of it, or the newest, while the reader has chosen nothing. */
export class TimeAxis {
  #store;
  #range;
  #whole;
  #least;
  #restsOnWhole;

  /**
   * @param {Store} store
   * @param {{
   *   range: () => readonly [number, number], whole: () => readonly [number, number], least: number,
   *   restsOnWhole?: boolean,
   * }} options Unix ms: what is on screen, what there is to see; the length of the shortest range; whether all of it is
   *   on screen while nothing is chosen
   */
  constructor(store, { range, whole, least, restsOnWhole = false }) {
    this.#store = store;
    this.#range = range;
    this.#whole = whole;
    this.#least = least;
    this.#restsOnWhole = restsOnWhole;
  }

  get range() {
    return this.#range();
  }

  reset() {
    this.#store.setFollow(true, this.range);
  }

  /**
   * Within what there is; more than that is all of it.
   *
   * @param {number} from
   * @param {number} to
   */
  show(from, to) {
    const [first, last] = this.#whole();
    const length = to - from;
    if (length >= last - first)
      return this.#restsOnWhole ? this.reset() : this.#store.setFollow(false, [first, last]);
    if (length < this.#least) return;
    const start = Math.min(Math.max(from, first), last - length);
    this.#store.setFollow(false, [start, start + length]);
  }

  /**
   * @param {number} factor of the range's length
   * @param {number} at Unix ms that stays where it is
   */
  zoom(factor, at) {
    const [from, to] = this.range;
    const length = Math.max((to - from) * factor, this.#least);
    const left = at - ((at - from) / (to - from)) * length;
    this.show(left, left + length);
  }

  /** @param {number} part of the range's length; to later times where it is positive */
  move(part) {
    const [from, to] = this.range;
    const by = (to - from) * part;
    this.show(from + by, to + by);
  }

  /**
   * Plus, minus, 0, and Shift with the arrows.
   *
   * @param {KeyboardEvent} event
   * @param {number} at Unix ms that is looked at closer
   * @returns {boolean} whether it was one of them
   */
  onKey(event, at) {
    const { key, shiftKey } = event;
    const [from, to] = this.range;
    if (key === "+" || key === "=") this.zoom(0.5, Math.min(to, Math.max(from, at)));
    else if (key === "-") this.zoom(2, (from + to) / 2);
    else if (key === "0") this.reset();
    else if (shiftKey && key === "ArrowLeft") this.move(-1 / 8);
    else if (shiftKey && key === "ArrowRight") this.move(1 / 8);
    else return false;
    consume(event);
    return true;
  }
}

/**
 * @param {HTMLElement} el takes the wheel and the pointer; what is drawn out is shown in it
 * @param {TimeAxis} axis
 * @param {{
 *   left: number, inner: () => number, signal: AbortSignal, onCursor: (tMs: number | null) => void,
 *   onPick?: (tMs: number) => void,
 * }} options px: where the axis begins in `el`, and how wide it is
 * @returns {{ dragged: boolean }} whether the pointer's last press drew a range out, and was no click
 */
export function gestures(el, axis, { left, inner, signal, onCursor, onPick }) {
  const state = { dragged: false };
  const brush = h("div", { class: "ll-brush", hidden: true });
  el.append(brush);
  /** @param {MouseEvent} event @returns {number} px from the axis' begin */
  const place = (event) => event.clientX - el.getBoundingClientRect().left - left;
  const timeAt = (/** @type {number} */ px) => {
    const [from, to] = axis.range;
    return from + (Math.min(inner(), Math.max(0, px)) / inner()) * (to - from);
  };
  const inside = (/** @type {number} */ px) => px >= 0 && px <= inner();

  el.addEventListener(
    "wheel",
    (event) => {
      const at = place(event);
      const aside = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
      if (event.ctrlKey && inside(at))
        axis.zoom(1.0015 ** Math.max(-300, Math.min(300, event.deltaY)), timeAt(at));
      else if (!event.ctrlKey && aside !== 0) axis.move(aside / inner());
      else return;
      event.preventDefault();
    },
    { signal, passive: false },
  );
  el.addEventListener(
    "pointermove",
    (event) => {
      const at = place(event);
      onCursor(inside(at) ? timeAt(at) : null);
    },
    { signal },
  );
  el.addEventListener("pointerleave", () => onCursor(null), { signal });
  el.addEventListener("dblclick", () => axis.reset(), { signal });
  el.addEventListener(
    "pointerdown",
    (event) => {
      const start = place(event);
      state.dragged = false;
      if (!inside(start) || event.button !== 0 || event.pointerType === "touch") return;
      const stop = new AbortController();
      const options = { signal: stop.signal };
      signal.addEventListener("abort", () => stop.abort(), options);
      const end = () => {
        stop.abort();
        brush.hidden = true;
      };
      window.addEventListener(
        "pointermove",
        (next) => {
          const at = Math.min(inner(), Math.max(0, place(next)));
          if (Math.abs(at - start) < STILL_PX && !state.dragged) return;
          state.dragged = true;
          brush.hidden = false;
          brush.style.transform = `translateX(${left + Math.min(at, start)}px)`;
          brush.style.width = `${Math.abs(at - start)}px`;
        },
        options,
      );
      window.addEventListener(
        "pointerup",
        (last) => {
          end();
          const at = Math.min(inner(), Math.max(0, place(last)));
          if (state.dragged) axis.show(timeAt(Math.min(at, start)), timeAt(Math.max(at, start)));
        },
        options,
      );
      window.addEventListener("pointercancel", end, options);
    },
    { signal },
  );
  if (onPick) {
    el.addEventListener(
      "click",
      (event) => {
        const at = place(event);
        if (!state.dragged && inside(at)) onPick(timeAt(at));
      },
      { signal },
    );
  }
  return state;
}
