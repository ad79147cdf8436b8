// What reviewers have to do with thresholds: which episodes lie nearest to one, and how far the policy agrees with the reviews.

import { episodePath, get, query } from "/static/api.js";
import { setInCart } from "/static/cart.js";
import { h, replace, table, tierMark } from "/static/dom.js";
import { number, whole } from "/static/format.js";

const COUNT = 50;

/** What `load` answers, or the message of the server, in the place of `node`. */
async function showIn(node, load) {
  node.setAttribute("aria-busy", "true");
  try {
    replace(node, await load());
  } catch (error) {
    if (error.status === undefined) throw error;
    replace(node, h("p", { class: "failure", role: "alert" }, error.message));
  }
  node.removeAttribute("aria-busy");
}

/** A button that lists the episodes at the threshold of `measurement()`. */
export function nearest(measurement) {
  const list = h("div", {});
  const load = async () => {
    const { candidates } = await get("/reviews/sample", { measurement: measurement(), count: COUNT });
    return candidates.length ? candidateTable(measurement(), candidates) : h("p", { class: "muted" }, "No episode has a value that is compared with this threshold.");
  };
  const button = h("button", { type: "button", id: "show-nearest", click: () => showIn(list, load) }, `Show ${COUNT} at the threshold`);
  return { node: h("div", { class: "nearest" }, button, list), clear: () => replace(list) };
}

function candidateTable(measurement, candidates) {
  const link = ({ uid, start }) => h("a", { href: episodePath(uid) + query({ t: start }) }, uid);
  const place = ({ start, end }) => (start === null ? "whole episode" : `${start}–${end}`);
  return [
    table(
      `${whole(candidates.length)} nearest to a threshold of ${measurement} in the policy in force`,
      [
        { name: "Episode", cell: link },
        { name: "Timesteps", cell: place },
        { name: "Value", number: true, cell: (row) => number(row.value) },
        { name: "Threshold", number: true, cell: (row) => number(row.threshold) },
        { name: "Distance", number: true, cell: (row) => number(row.distance) },
      ],
      candidates,
    ),
    h("button", { type: "button", click: () => setInCart(candidates, true) }, "Put them into the cart"),
  ];
}

/** Precision and recall of each tier; read when it is opened. */
export function agreement() {
  const body = h("div", {});
  const load = async () => {
    const { tiers } = await get("/reviews/agreement");
    return agreementTable(tiers);
  };
  return h("details", { id: "agreement", toggle: (event) => event.target.open && (!body.firstChild || body.querySelector(".failure")) && showIn(body, load) }, h("summary", {}, "Agreement of the policy with reviews"), body);
}

function agreementTable(tiers) {
  if (!tiers.some(({ precision, recall }) => precision.total || recall.total)) return h("p", { class: "muted" }, "No published review judges a tier yet.");
  const counts = ({ correct, total }) => `${whole(correct)} of ${whole(total)}`;
  const interval = ({ value, low, high }) => (value === null ? "–" : `${percent(value)} (${percent(low)}–${percent(high)})`);
  return table(
    "Tiers of the policy compared with published reviews, with 95 % intervals",
    [
      { name: "Tier", cell: (row) => tierMark(row.tier) },
      { name: "Precision", number: true, cell: (row) => interval(row.precision) },
      { name: "Segments", number: true, cell: (row) => counts(row.precision) },
      { name: "Recall", number: true, cell: (row) => interval(row.recall) },
      { name: "Segments", number: true, cell: (row) => counts(row.recall) },
    ],
    tiers,
  );
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}
