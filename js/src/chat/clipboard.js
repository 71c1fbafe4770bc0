/** Text for the clipboard, and cells for the notebook: what the host allows. */

import { h } from "../dom.js";

/**
 * @param {string} text
 * @param {HTMLElement} near Where an element may be for a moment.
 * @returns {Promise<boolean>} whether the clipboard has it
 */
export async function copy(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not over plain http, and not where the page's policy forbids it: the older way needs a selection.
    const focused = document.activeElement;
    const field = h("textarea", { class: "ll-sr", "aria-hidden": "true", tabindex: -1 });
    field.value = text;
    near.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return done;
  }
}

/** @typedef {{ kind: "code" | "markdown", source: string }} Cell */

/**
 * Put cells below the one of that id. JupyterLab and Notebook 7 hand their notebook over; other hosts do not.
 *
 * @param {any} manager The widgets' manager.
 * @param {unknown} cellId
 * @param {readonly Cell[]} cells
 * @returns {boolean} whether they are there
 */
export function insertCells(manager, cellId, cells) {
  try {
    const notebook = manager?.context?.model?.sharedModel;
    const at = [...notebook.cells].findIndex((cell) => cell.id === cellId);
    if (at < 0) return false;
    notebook.insertCells(
      at + 1,
      cells.map(({ kind, source }) => ({ cell_type: kind, source, metadata: {} })),
    );
    return true;
  } catch {
    return false; // a host with another notebook, or none
  }
}
