// A bar of parts, drawn beside the numbers that say the same.

import { h } from "/static/dom.js";

/** `parts`: [kind, value]; the kind names the colour. `all` is the value of the whole width. */
export function bar(parts, all) {
  const node = h("span", { class: "bar", "aria-hidden": "true" });
  for (const [kind, value] of parts) {
    if (!value) continue;
    const part = h("span", { class: `bar-part ${kind}` });
    part.style.width = `${(100 * value) / all}%`;
    node.append(part);
  }
  return node;
}
