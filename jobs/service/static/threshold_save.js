// The moved thresholds are saved as a new policy, which never changes; the next step is a job that computes tiers with it.

import { post, query } from "/static/api.js";
import { h, replace } from "/static/dom.js";

const NAME = /^[a-z][a-z0-9_]{0,59}$/;

/** `values()` are the thresholds that differ from those of the policy `base`, by name; `base` has its name and its digest. */
export function saveForm(base, values) {
  const name = h("input", { type: "text", id: "policy-name", required: true, autocomplete: "off", placeholder: "name", "aria-label": "Name of the new policy" });
  const note = h("input", { type: "text", id: "policy-note", required: true, maxlength: 2000, placeholder: "why", "aria-label": "Note: why the thresholds are moved" });
  const button = h("button", { type: "submit" }, "Save as a new policy");
  const answer = h("div", { role: "status" });
  name.addEventListener("input", () => name.setCustomValidity(name.value === "" || NAME.test(name.value) ? "" : "lower-case letters, digits, underscore; a letter first"));
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const { policy } = await post("/policies", { ...base, name: name.value, note: note.value, thresholds: Object.fromEntries(values()) });
      const job = `/jobs${query({ kind: "tier", policy: name.value })}`;
      replace(answer, h("p", {}, `${policy} is saved. `, h("a", { href: job }, "Compute tiers with it"), ". A corpus spec keeps its own policy until its tiers name this one; its next build goes back to that."));
    } catch (error) {
      if (error.status === undefined) throw error;
      replace(answer, h("p", { class: "failure" }, error.message, error.remedy ? `; ${error.remedy}` : ""));
    }
    button.disabled = false;
  };
  return h("form", { class: "save-policy", hidden: true, submit }, h("h3", {}, "Save the moved thresholds"), h("div", { class: "row" }, name, note, button), answer);
}
