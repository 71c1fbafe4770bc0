/** A list of any length of which only what is in sight is on the page. */

import { h, keyed } from "./dom.js";

/** Rows above and below what is seen, for a quick finger. */
const BEYOND = 6;

export class Rows {
  #space = h("div", { class: "ll-space" });
  el = h("div", { class: "ll-rows" }, this.#space);
  /** @type {Map<string, HTMLElement>} */
  #shown = new Map();
  #make;
  #update;
  #count = 0;
  #height = 20;

  /**
   * @param {{ make: (index: number) => HTMLElement, update: (el: HTMLElement, index: number) => void, signal: AbortSignal }} options
   *   `update` also when a row comes into sight
   */
  constructor({ make, update, signal }) {
    this.#make = make;
    this.#update = update;
    this.el.addEventListener("scroll", () => this.#draw(), { signal, passive: true });
  }

  /**
   * @param {number} count
   * @param {number} height of every row, px
   */
  render(count, height) {
    this.#count = count;
    this.#height = height;
    this.#space.style.height = `${count * height}px`;
    this.#draw();
  }

  /** @param {number} index */
  reveal(index) {
    const [top, bottom] = [index * this.#height, (index + 1) * this.#height];
    if (top < this.el.scrollTop) this.el.scrollTop = top;
    else if (bottom > this.el.scrollTop + this.el.clientHeight)
      this.el.scrollTop = bottom - this.el.clientHeight;
    this.#draw();
  }

  /** Rows that fit. */
  get page() {
    return Math.max(1, Math.floor(this.el.clientHeight / this.#height) - 1);
  }

  /** The first row that is seen. */
  get first() {
    return Math.floor(this.el.scrollTop / this.#height);
  }

  #draw() {
    const from = Math.max(0, this.first - BEYOND);
    const to = Math.min(
      this.#count,
      Math.ceil((this.el.scrollTop + this.el.clientHeight) / this.#height) + BEYOND,
    );
    keyed(
      this.#space,
      this.#shown,
      Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i),
      String,
      (index) => this.#make(index),
      (el, index) => {
        el.style.transform = `translateY(${index * this.#height}px)`;
        el.style.height = `${this.#height}px`;
        this.#update(el, index);
      },
    );
  }
}
