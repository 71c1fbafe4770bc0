/**
 * What the reader has chosen: pause, window, selection, cursor. It lives in the page alone, because a kernel that runs
 * a cell often cannot be reached; nothing here is ever sent.
 */

/**
 * @typedef {{
 *   tab: string, paused: boolean, windowMs: number, follow: boolean, range: readonly [number, number] | null,
 *   selected: string | null, cursorMs: number | null, device: string | null, hidden: ReadonlySet<string>,
 *   shown: ReadonlySet<string>,
 * }} View
 */

export const WINDOWS_MS = /** @type {const} */ ([30_000, 120_000, 600_000, 3_600_000]);
/** The axis never shows less than this while it follows. */
const YOUNGEST_MS = 10_000;

export class Store {
  /** @type {View} */
  #view = {
    tab: "now",
    paused: false,
    windowMs: WINDOWS_MS[1],
    follow: true,
    range: null,
    selected: null,
    cursorMs: null,
    device: null,
    hidden: new Set(),
    shown: new Set(),
  };
  /** @type {Set<() => void>} */
  #listeners = new Set();

  get view() {
    return this.#view;
  }

  /** @param {Partial<View>} change */
  set(change) {
    const keys = /** @type {(keyof View)[]} */ (Object.keys(change));
    if (keys.every((key) => Object.is(this.#view[key], change[key]))) return;
    this.#view = { ...this.#view, ...change };
    for (const listener of this.#listeners) listener();
  }

  /**
   * @param {() => void} listener
   * @param {AbortSignal} signal
   */
  subscribe(listener, signal) {
    this.#listeners.add(listener);
    signal.addEventListener("abort", () => this.#listeners.delete(listener), { once: true });
  }

  /**
   * Show a length of time up to the newest data.
   *
   * @param {number} windowMs
   */
  setWindow(windowMs) {
    this.set({ windowMs, follow: true, range: null });
  }

  /**
   * Hold the axis at a range, or let it follow again.
   *
   * @param {boolean} follow
   * @param {readonly [number, number]} range
   */
  setFollow(follow, range) {
    this.set(follow ? { follow, range: null } : { follow, range });
  }

  /**
   * Whether an owner's area is drawn: its default, unless the reader said otherwise.
   *
   * @param {string} key
   * @param {boolean} byDefault
   */
  isDrawn(key, byDefault) {
    if (this.#view.hidden.has(key)) return false;
    return byDefault || this.#view.shown.has(key);
  }

  /**
   * @param {string} key
   * @param {boolean} drawn
   */
  setDrawn(key, drawn) {
    const hidden = new Set(this.#view.hidden);
    const shown = new Set(this.#view.shown);
    hidden[drawn ? "delete" : "add"](key);
    shown[drawn ? "add" : "delete"](key);
    this.set({ hidden, shown });
  }

  /**
   * The time that is on screen: [from, to] in Unix ms. A young session fills it.
   *
   * @param {number} nowMs kernel time of the newest data
   * @param {number} firstMs of the oldest
   * @returns {readonly [number, number]}
   */
  range(nowMs, firstMs = 0) {
    if (!this.#view.follow && this.#view.range) return this.#view.range;
    const young = Math.min(firstMs, nowMs - YOUNGEST_MS);
    return [Math.max(nowMs - this.#view.windowMs, young), nowMs];
  }
}
