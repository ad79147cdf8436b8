// Episodes that are like this one, with a contact sheet each. They are asked for when the panel is opened.

import { episodePath, get, sheetAddress } from "/static/api.js";
import { h, replace, tierMark } from "/static/dom.js";
import { number, share } from "/static/format.js";

const LIMIT = 12;

function card({ uid, episode_id: id, source, task, tier, duration_s: seconds, cameras, similarity }) {
  const sheet = cameras.length ? h("img", { src: sheetAddress(uid, cameras[0]), alt: "", loading: "lazy", error: (event) => event.target.remove() }) : null;
  return h("li", {}, h("a", { href: episodePath(uid) }, id ?? uid), h("span", { class: "muted" }, [source, `${number(seconds)} s`].filter(Boolean).join(" · ")), tierMark(tier), h("span", {}, `${share(similarity, 1)} alike`), task && h("p", { class: "muted" }, task), sheet);
}

export function similarPanel(uid) {
  const body = h("div", {}, h("p", { class: "muted", role: "status" }, "Comparing…"));
  const load = async () => {
    try {
      const { has_signature: hasSignature, episodes } = await get(`${episodePath(uid)}/similar`, { limit: LIMIT });
      const none = hasSignature ? "No other episode has a signature." : "The episode has no signature: nothing in it moves, or eicorpus measure has not run.";
      replace(body, episodes.length ? h("ul", { class: "similar" }, episodes.map(card)) : h("p", { class: "muted" }, none));
    } catch (error) {
      if (error.status === undefined) throw error;
      replace(body, h("p", { class: "failure" }, error.message, "; open the panel again to ask again"));
      delete body.dataset.asked;
    }
  };
  return h("details", { class: "panel", id: "similar", toggle: (event) => event.newState === "open" && !body.dataset.asked && ((body.dataset.asked = "true"), load()) }, h("summary", {}, h("h2", {}, "Similar episodes")), body);
}
