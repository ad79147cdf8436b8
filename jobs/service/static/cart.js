// The selection cart: episodes that the user collects, kept by the browser for each corpus. What is done with them: cart_actions.js.

import { get } from "/static/api.js";
import { manifestForm, reviewForm } from "/static/cart_actions.js";
import { byId, h, replace } from "/static/dom.js";
import { hours, whole } from "/static/format.js";
import { showDialog } from "/static/keys.js";

const COLUMNS = ["uid", "source", "episode_id", "tier", "duration_s"];
export const MOST = 10000; // episodes, as a manifest of named episodes takes
let user = { role: "read" };
let isKept = true; // whether the browser has stored what is in the cart
let storageKey = "";
const SHOWN = 200; // rows of the dialog
let chosen = new Map(); // uid -> row
const listeners = new Set();

export function openCart(corpusUid, me) {
  user = me;
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
  try {
    localStorage.setItem(storageKey, JSON.stringify([...chosen.values()]));
    isKept = true;
  } catch {
    // its storage is full, or switched off: the cart lives as long as the page
    isKept = false;
  }
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

/** All of the rows, or none where they would be too many. */
export function setInCart(rows, isIn) {
  const added = isIn ? new Set(rows.map(({ uid }) => uid).filter((uid) => !chosen.has(uid))).size : 0;
  if (chosen.size + added > MOST) {
    showDialog("Cart", h("p", { role: "alert" }, `The cart takes ${whole(MOST)} episodes and has ${whole(chosen.size)}; ${whole(added)} more do not fit.`));
    tellListeners();
    return;
  }
  for (const row of rows) {
    // a row of another page may have the uid alone
    if (isIn && !chosen.has(row.uid)) chosen.set(row.uid, Object.fromEntries(COLUMNS.map((name) => [name, row[name] ?? null])));
    else if (!isIn) chosen.delete(row.uid);
  }
  write();
}

/** Every episode of a selection; `chosen` are parameters of REST. */
export async function addSelection(chosen) {
  const rows = [];
  let cursor = null;
  do {
    const page = await get("/episodes", { ...chosen, limit: 1000, cursor });
    rows.push(...page.episodes);
    cursor = page.cursor;
  } while (cursor);
  setInCart(rows, true);
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
  const uids = () => [...chosen.keys()];
  // made once: a text that is typed survives a change of the cart
  const actions = [user.role === "admin" ? manifestForm(uids) : null, user.role === "read" ? null : reviewForm(uids)];
  const draw = () => {
    const rows = [...chosen.values()];
    const total = rows.reduce((sum, row) => sum + (row.duration_s ?? 0), 0) / 3600;
    if (!rows.length) {
      replace(body, h("p", { class: "muted" }, "The cart is empty. Tick episodes, or press f on one."));
      return;
    }
    const left = Math.max(rows.length - SHOWN, 0);
    const remove = (row) => h("button", { type: "button", "aria-label": `Remove ${row.episode_id}`, click: () => setInCart([row], false) }, "×");
    replace(
      body,
      h("p", {}, `${whole(rows.length)} episodes, ${hours(total)}`),
      isKept ? null : h("p", { class: "failure" }, "The browser has no room to store the cart: it is lost when this page is left."),
      h(
        "p",
        { class: "row" },
        h("button", { type: "button", class: "primary", click: download }, "Export CSV"),
        h("button", { type: "button", click: () => setInCart(rows, false) }, "Empty the cart"),
      ),
      actions,
      h(
        "ul",
        { class: "cart" },
        rows.slice(0, SHOWN).map((row) =>
          h("li", {}, h("a", { href: `/episodes/${encodeURIComponent(row.uid)}` }, row.episode_id ?? row.uid), h("span", { class: "muted" }, row.source), remove(row)),
        ),
      ),
      left ? h("p", { class: "muted" }, `and ${whole(left)} more`) : null,
    );
  };
  listeners.add(draw);
  draw();
  showDialog("Cart", body).addEventListener("close", () => listeners.delete(draw));
}
