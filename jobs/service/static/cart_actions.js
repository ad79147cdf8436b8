// What is done with the episodes of the cart: a manifest of them, or one review for each.

import { newId, post, query } from "/static/api.js";
import { h, replace, TIERS } from "/static/dom.js";
import { whole } from "/static/format.js";

const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const AT_ONCE = 100; // reviews of one request
const KINDS = { tier_override: "set the tier", exclude: "exclude", accept: "accept", caption_fix: "correct the caption", note: "note" };

/** A form that sends once at a time, and shows the problem of the server in its place. */
function form(title, fields, button, send) {
  const answer = h("div", { role: "status" });
  const submit = h("button", { type: "submit" }, button);
  const onSubmit = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await send((...content) => replace(answer, content));
    } catch (error) {
      if (error.status === undefined) throw error;
      replace(answer, h("p", { class: "failure" }, error.message, error.remedy ? `; ${error.remedy}` : ""));
    } finally {
      submit.disabled = false;
    }
  };
  return h("form", { class: "cart-form", submit: onSubmit }, h("h3", {}, title), h("div", { class: "row" }, fields, submit), answer);
}

/** `uids()` are those in the cart when the form is sent. */
export function manifestForm(uids) {
  const name = h("input", { type: "text", id: "manifest-name", required: true, "aria-label": "Name of the manifest", placeholder: "name", autocomplete: "off" });
  name.addEventListener("input", () => name.setCustomValidity(name.value === "" || NAME.test(name.value) ? "" : "lower-case letters, digits, dot, dash, underscore"));
  return form("Manifest of these episodes", name, "Build", async (show) => {
    const job = await post("/jobs", { key: newId(), job: { kind: "manifest", name: name.value, uids: uids() } });
    show(h("p", {}, h("a", { href: `/jobs${query({ job: job.id })}` }, `Job ${job.id}`), " builds it."));
  });
}

export function reviewForm(uids) {
  const value = h("span", {});
  const kind = h("select", { id: "review-kind", "aria-label": "Kind of review" }, Object.entries(KINDS).map(([name, text]) => h("option", { value: name }, text)));
  const draw = () => replace(value, kind.value === "tier_override" ? h("select", { "aria-label": "Tier" }, TIERS.map((tier) => h("option", { value: tier }, tier))) : h("input", { type: "text", "aria-label": "Text of the review", required: ["caption_fix", "note"].includes(kind.value), maxlength: 4000 }));
  kind.addEventListener("change", draw);
  draw();
  // a review keeps its id until another one is written: what is sent again after a failure is stored once
  let [written, ids] = ["", new Map()];
  return form("Review all of them", [kind, value], "Save", async (show) => {
    const own = { kind: kind.value, value: value.firstChild.value };
    if (written !== JSON.stringify(own)) [written, ids] = [JSON.stringify(own), new Map()];
    const answers = await sendReviews(uids(), own, (uid) => ids.get(uid) ?? ids.set(uid, newId()).get(uid));
    show(reviewAnswers(answers));
  });
}

/** [uid, what became of its review]. The requests are stored each as a whole or not at all, and a refused one stops no other. */
async function sendReviews(uids, { kind, value }, idOf) {
  const answers = [];
  for (let start = 0; start < uids.length; start += AT_ONCE) {
    const part = uids.slice(start, start + AT_ONCE);
    const reviews = part.map((uid) => ({ review_id: idOf(uid), uid, start: null, end: null, kind, value, supersedes: null }));
    try {
      const { receipts } = await post("/reviews", { reviews });
      const isPending = new Map(receipts.map((each) => [each.review_id, each.is_pending]));
      answers.push(...part.map((uid) => [uid, isPending.get(idOf(uid)) ? "stored; the next job that writes publishes it" : "stored"]));
    } catch (error) {
      if (error.status === undefined) throw error;
      answers.push(...part.map((uid) => [uid, `not stored: ${error.message}`]));
    }
  }
  return answers;
}

function reviewAnswers(answers) {
  const stored = answers.filter(([, text]) => text.startsWith("stored")).length;
  return [h("p", { class: stored < answers.length ? "failure" : null }, `${whole(stored)} of ${whole(answers.length)} reviews are stored.`), h("details", {}, h("summary", {}, "Each episode"), h("ul", { class: "review-answers" }, answers.map(([uid, text]) => h("li", {}, h("code", {}, uid), ` ${text}`))))];
}
