// The selection cart: episodes that the user collects, kept by the browser for each corpus.

import { byId, h, replace } from "/static/dom.js";
import { hours, whole } from "/static/format.js";
import { showDialog } from "/static/keys.js";

const COLUMNS = ["uid", "source", "episode_id", "tier", "duration_s"];
let storageKey = "";
let chosen = new Map(); // uid -> row
const listeners = new Set();

export function openCart(corpusUid) {
  storageKey = `eicorpus.cart.${corpusUid}`;
  read();
  addEventListener("storage", (event) => event.key === storageKey && read());
  byId("cart-button").addEventListener("click", showCart);
}

function read() {
  let rows = [];
  try {
    rows = JSON.parse(localStorage.getItem(storageKey) ?? "[]");
  } catch {
    // what cannot be read is an empty cart
  }
  chosen = new Map((Array.isArray(rows) ? rows : []).map((row) => [row.uid, row]));
  tellListeners();
}

function write() {
  localStorage.setItem(storageKey, JSON.stringify([...chosen.values()]));
  tellListeners();
}

function tellListeners() {
  byId("cart-count").textContent = whole(chosen.size);
  for (const listener of listeners) listener();
}

export function onCartChange(listener) {
  listeners.add(listener);
}

export function isInCart(uid) {
  return chosen.has(uid);
}

export function setInCart(rows, isIn) {
  for (const row of rows) {
    if (isIn) chosen.set(row.uid, Object.fromEntries(COLUMNS.map((name) => [name, row[name] ?? null])));
    else chosen.delete(row.uid);
  }
  write();
}

export function csvOf(rows) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    // a spreadsheet reads such a text as a formula
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function download() {
  const address = URL.createObjectURL(new Blob([csvOf([...chosen.values()])], { type: "text/csv" }));
  h("a", { href: address, download: "cart.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 0);
}

function showCart() {
  const body = h("div", {});
  const draw = () => {
    const rows = [...chosen.values()];
    const total = rows.reduce((sum, row) => sum + (row.duration_s ?? 0), 0) / 3600;
    if (!rows.length) {
      replace(body, h("p", { class: "muted" }, "The cart is empty. Tick episodes, or press f on one."));
      return;
    }
    const remove = (row) => h("button", { type: "button", "aria-label": `Remove ${row.episode_id}`, click: () => setInCart([row], false) }, "×");
    replace(
      body,
      h("p", {}, `${whole(rows.length)} episodes, ${hours(total)}`),
      h(
        "p",
        { class: "row" },
        h("button", { type: "button", class: "primary", click: download }, "Export CSV"),
        h("button", { type: "button", click: () => setInCart(rows, false) }, "Empty the cart"),
      ),
      h(
        "ul",
        { class: "cart" },
        rows.map((row) =>
          h("li", {}, h("a", { href: `/episodes/${encodeURIComponent(row.uid)}` }, row.episode_id ?? row.uid), h("span", { class: "muted" }, row.source), remove(row)),
        ),
      ),
    );
  };
  listeners.add(draw);
  draw();
  showDialog("Cart", body).addEventListener("close", () => listeners.delete(draw));
}
