// Why a segment has its tier, in words. The catalog stores each comparison as `TEXT OF THE RULE: COMPARISON`; those of one rule stand together here.

import { h } from "/static/dom.js";
import { number } from "/static/format.js";

/** [{text, comparisons}] in the order of the rules. */
export function reasonGroups(reasons) {
  const groups = new Map();
  for (const { code, text, value, threshold } of reasons) {
    const at = text.lastIndexOf(": ");
    const [rule, comparison] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 2)];
    const key = `${code} ${rule}`;
    if (!groups.has(key)) groups.set(key, { text: rule, comparisons: [] });
    const measured = typeof value === "number" && typeof threshold === "number" ? ` (it is ${number(value)})` : "";
    if (comparison) groups.get(key).comparisons.push(comparison.replace(/\bat_(least|most)\b/g, "at $1") + measured);
  }
  return [...groups.values()];
}

export function reasonList(reasons) {
  const item = ({ text, comparisons }) => {
    if (comparisons.length < 2) return h("li", {}, [text, ...comparisons].join(": "));
    return h("li", {}, text, h("ul", {}, comparisons.map((each) => h("li", {}, each))));
  };
  return h("ul", { class: "reasons" }, reasonGroups(reasons).map(item));
}

/** One line each, for a hint. */
export function reasonText(reasons) {
  return reasonGroups(reasons).map(({ text, comparisons }) => [text, comparisons.join("; ")].filter(Boolean).join(": ")).join("\n");
}
