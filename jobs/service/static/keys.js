// The keyboard: one listener, a table of keys, and the help made from it.

import { byId, h } from "/static/dom.js";

const bindings = new Map(); // key -> {text, act}

export function bind(key, text, act) {
  bindings.set(key, { text, act });
}

function isTyping(target) {
  return target.isContentEditable || ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName);
}

/** Space and arrows keep their meaning on a control that has one of its own. */
function isForControl(event) {
  const { key, target } = event;
  if (isTyping(target)) return !(target.type === "checkbox" && key !== " ");
  return (key === " " || key === "Enter") && ["A", "BUTTON", "SUMMARY"].includes(target.tagName);
}

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || isForControl(event)) return;
    if (document.querySelector("dialog[open]")) return;
    const binding = bindings.get(event.key);
    if (!binding) return;
    event.preventDefault();
    binding.act(event);
  });
  byId("help-button").addEventListener("click", showHelp);
  bind("?", "these keys", showHelp);
}

const NAMES = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

function showHelp() {
  const rows = [...bindings].map(([key, { text }]) => [h("dt", {}, h("kbd", {}, NAMES[key] ?? key)), h("dd", {}, text)]);
  showDialog("Keyboard", h("dl", { class: "keys" }, rows));
}

/** A modal dialog, closed by Escape, its button or a click beside it. */
export function showDialog(title, ...content) {
  const close = h("button", { type: "button", "aria-label": "Close", click: () => dialog.close() }, "×");
  const dialog = h(
    "dialog",
    { "aria-label": title, close: () => dialog.remove(), click: (event) => event.target === dialog && dialog.close() },
    h("div", { class: "dialog" }, h("header", {}, h("h2", {}, title), close), content),
  );
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
