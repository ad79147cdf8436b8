// Elements are made here. Texts become text nodes, so a name from data is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Whoever has the focus inside keeps it, on the new element with the same `data-focus` or id. */
export function replace(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  const key = focused && (focused.dataset.focus || focused.id);
  if (key && !focused.isConnected) [...element.querySelectorAll("[data-focus], [id]")].find((each) => (each.dataset.focus || each.id) === key)?.focus({ preventScroll: true });
}

export function byId(id) {
  return document.getElementById(id);
}

/** A column: name, key, whether it is a number, and what a cell holds. */
export function table(caption, columns, rows, { hidesCaption = false } = {}) {
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: hidesCaption ? "visually-hidden" : null }, caption),
      h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.number ? "number" : null }, c.name)))),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            columns.map((c, place) =>
              h(
                place === 0 ? "th" : "td",
                { scope: place === 0 ? "row" : null, class: c.number ? "number" : null },
                c.cell(row),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

export function tierMark(tier) {
  return h("span", { class: `tier tier-${TIERS.includes(tier) ? tier : "none"}` }, tier ?? "no tier");
}

export const TIERS = ["high", "low", "actionless", "excluded"];
