/** Elements from data. Text goes in as text nodes only: model names and error messages are other people's. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean | null | undefined>} [attributes] false and null leave one out
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(el, name, value);
  for (const child of children)
    if (child != null && child !== false) el.append(child instanceof Node ? child : `${child}`);
  return el;
}

/**
 * @param {Element} el
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value
 */
export function setAttribute(el, name, value) {
  if (value == null || value === false) el.removeAttribute(name);
  else if (el.getAttribute(name) !== String(value))
    el.setAttribute(name, value === true ? "" : String(value));
}

/**
 * Touches the page only when the text is another one.
 *
 * @param {Element} el
 * @param {string} text
 */
export function setText(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

/**
 * Facts in one line, which breaks between them and not inside.
 *
 * @param {Element} el
 * @param {readonly (string | null | undefined | false)[]} facts
 */
export function setFacts(el, facts) {
  const shown = facts.filter((fact) => typeof fact === "string" && fact !== "");
  const text = shown.join(" \u00b7 ");
  if (el.textContent === text) return;
  const parts = shown.map((fact, i) => (i < shown.length - 1 ? `${fact} \u00b7` : `${fact}`));
  el.replaceChildren(...parts.flatMap((part) => [h("span", { class: "ll-fact" }, part), " "]).slice(0, -1));
}

/**
 * Children of `parent` by key: kept, made or removed, in the order of `items`.
 *
 * @template T
 * @template {HTMLElement} E
 * @param {HTMLElement} parent
 * @param {Map<string, E>} known elements of the last call, changed in place
 * @param {readonly T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => E} make
 * @param {(el: E, item: T) => void} update
 */
export function keyed(parent, known, items, key, make, update) {
  const keep = new Set(items.map(key));
  for (const [id, el] of known) {
    if (!keep.has(id)) {
      el.remove();
      known.delete(id);
    }
  }
  let next = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let el = known.get(id);
    if (!el) {
      el = make(item);
      known.set(id, el);
    }
    if (el === next) next = next.nextElementSibling;
    else parent.insertBefore(el, next);
    update(el, item);
  }
}

/**
 * A key that this widget handles is not the notebook's.
 *
 * @param {Event} event
 */
export function consume(event) {
  event.preventDefault();
  event.stopPropagation();
}

/**
 * Hides the static twin of a widget, which is there for readers without a kernel, until what is returned is removed.
 *
 * @param {string | null} id
 */
export function hideStatic(id) {
  if (id === null) return null;
  const style = h("style", {}, `[data-llamatelemetry-static="${id}"]{display:none}`);
  document.head.append(style);
  return style;
}
