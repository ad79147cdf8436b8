// Reviews of an episode: what people have decided on it, and a form to decide more.

import { episodePath, Failure, get, newId, post } from "/static/api.js";
import { h, replace, table, TIERS, tierMark } from "/static/dom.js";
import { spanText } from "/static/episode_tables.js";
import { bind } from "/static/keys.js";

const KINDS = { tier_override: "Tier", exclude: "Exclude", accept: "Accept", caption_fix: "Correct the caption", note: "Note" };
const KEYS = { x: "exclude", a: "accept", c: "caption_fix", n: "note" };
const NEED_TEXT = ["caption_fix", "note"];
const MAY_SEND = ["review", "admin"];
const WITHDRAWN = "withdrawn";

function timeOf(at) {
  return h("time", { datetime: at }, `${at.slice(0, 16).replace("T", " ")} UTC`);
}

function stateOf({ is_in_force: isInForce, is_pending: isPending }) {
  return [isPending ? "pending" : "published", isInForce ? null : "superseded"].filter(Boolean).join(", ");
}

export class ReviewPanel {
  /** `onReviews(reviews)` is called with the list whenever it is read, `onRange(range)` with {start, end} or null. */
  constructor(uid, episode, clock, me, { onReviews, onRange }) {
    Object.assign(this, { uid, episode, clock, me, onReviews, onRange, range: null, reviewId: null, undoIds: new Map() });
    this.list = h("div", {});
    this.status = h("p", { class: "muted", role: "status", id: "review-status" });
    this.maySend = MAY_SEND.includes(me.role);
    const form = this.maySend ? this.form() : h("p", { class: "muted" }, `The role ${me.role} sees reviews and cannot send them.`);
    this.node = h("section", { class: "panel reviews" }, h("h2", {}, "Reviews"), this.list, form, this.status);
    if (this.maySend) this.bindKeys();
  }

  form() {
    const kinds = [h("option", { value: "" }, "Choose a decision"), Object.entries(KINDS).map(([kind, name]) => h("option", { value: kind }, name))];
    const place = (name) => h("input", { type: "number", id: `review-${name}`, min: 0, max: this.clock.length, step: 1, change: () => this.rangeTyped() });
    this.kind = h("select", { id: "review-kind", change: () => this.choose(this.kind.value) }, kinds);
    this.value = h("div", { class: "value" });
    this.start = place("start");
    this.end = place("end");
    this.button = h("button", { type: "submit", class: "primary", disabled: true }, "Send review");
    const act = (text, click) => h("button", { type: "button", click }, text);
    return h(
      "form",
      { "aria-label": "New review", submit: (event) => (event.preventDefault(), this.send()), input: () => this.changed() },
      h("div", { class: "row" }, h("label", { for: "review-kind" }, "Decision"), this.kind),
      this.value,
      h("div", { class: "row" }, h("label", { for: "review-start" }, "Timesteps"), this.start, h("label", { for: "review-end" }, "to"), this.end),
      h("div", { class: "row" }, act("Start here", () => this.startHere()), act("End here", () => this.endHere()), act("Segment", () => this.takeSegment()), act("Whole episode", () => this.setRange(null))),
      this.button,
    );
  }

  bindKeys() {
    TIERS.forEach((tier, place) => bind(String(place + 1), `review: tier ${tier}`, () => this.choose("tier_override", tier)));
    for (const [key, kind] of Object.entries(KEYS)) bind(key, `review: ${KINDS[kind].toLowerCase()}`, () => this.choose(kind));
    bind("[", "review: from this timestep", () => this.startHere());
    bind("]", "review: to this timestep", () => this.endHere());
    bind("s", "review: the segment at the cursor", () => this.takeSegment());
    bind("w", "review: the whole episode", () => this.setRange(null));
  }

  /** Another content is another review. */
  changed() {
    this.reviewId = null;
    this.button.disabled = !this.kind.value;
  }

  /** The form for a decision; its next control gets the focus, so that Enter sends. */
  choose(kind, tier = TIERS[0]) {
    this.kind.value = kind;
    const isText = kind !== "tier_override";
    const control = isText ? h("textarea", { id: "review-value", rows: 2, maxlength: 4000, required: NEED_TEXT.includes(kind) }) : h("select", { id: "review-value" }, TIERS.map((each) => h("option", { value: each, selected: each === tier }, each)));
    if (kind === "caption_fix") control.value = this.captionHere()?.text ?? "";
    const name = { tier_override: "Tier", caption_fix: "Caption", note: "Note" }[kind] ?? "Remark";
    replace(this.value, kind && h("div", { class: "row" }, h("label", { for: "review-value" }, name), control));
    this.changed();
    if (NEED_TEXT.includes(kind)) control.focus();
    else if (kind) this.button.focus();
  }

  captionHere() {
    const at = this.range?.start ?? this.clock.timestep;
    const holds = ({ start, end }) => start === null || (start <= at && at < end);
    return this.episode.captions.find((each) => each.outcome === "ok" && holds(each));
  }

  setRange(range) {
    if (!this.maySend) return;
    this.range = range;
    this.start.value = range?.start ?? "";
    this.end.value = range?.end ?? "";
    this.changed();
    this.onRange(range);
  }

  rangeTyped() {
    const [start, end] = [this.start, this.end].map((each) => (each.value === "" ? null : Number(each.value)));
    this.setRange(start === null && end === null ? null : { start: start ?? 0, end: end ?? this.clock.length });
  }

  startHere() {
    const start = this.clock.timestep;
    const end = this.range?.end ?? 0;
    this.setRange({ start, end: end > start ? end : this.clock.length });
  }

  endHere() {
    const end = this.clock.timestep + 1;
    const start = this.range?.start ?? 0;
    this.setRange({ start: start < end ? start : 0, end });
  }

  takeSegment() {
    const at = this.clock.timestep;
    const segment = this.episode.segments.find(({ start, end }) => start <= at && at < end);
    if (segment) this.setRange({ start: segment.start, end: segment.end });
  }

  /** The same review has the same id, so that one whose answer was lost can be sent again. */
  async send() {
    this.reviewId ??= newId();
    const { start = null, end = null } = this.range ?? {};
    const value = document.getElementById("review-value").value;
    this.button.disabled = true;
    const isStored = await this.submit({ review_id: this.reviewId, uid: this.uid, start, end, kind: this.kind.value, value, supersedes: null });
    if (isStored) this.choose("");
    else this.button.disabled = false;
  }

  /** As `send`: the same undo has the same id. */
  undo({ review_id: supersedes, start, end }) {
    if (!this.undoIds.has(supersedes)) this.undoIds.set(supersedes, newId());
    return this.submit({ review_id: this.undoIds.get(supersedes), uid: this.uid, start, end, kind: "note", value: WITHDRAWN, supersedes });
  }

  async submit(review) {
    try {
      const { receipts } = await post("/reviews", { reviews: [review] });
      this.status.textContent = receipts[0].is_pending ? "Stored. It takes effect with the next command or job that writes to the corpus." : "Stored and published.";
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.status.textContent = error.status ? `Not stored: ${error.message}` : "The server does not answer. Send it again.";
      return false;
    }
    await this.load();
    return true;
  }

  /** The list that cannot be had leaves the rest of the page alone. */
  async load() {
    try {
      const { reviews } = await get(`${episodePath(this.uid)}/reviews`);
      this.draw(reviews);
      this.onReviews(reviews);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      replace(this.list, h("p", { class: "failure", role: "alert" }, `Reviews cannot be read: ${error.message}`));
    }
  }

  draw(reviews) {
    if (!reviews.length) {
      replace(this.list, h("p", { class: "muted" }, "No review yet."));
      return;
    }
    const undoable = (row) => this.maySend && row.is_in_force && !(row.kind === "note" && row.supersedes);
    const decision = (row) => (row.kind === "tier_override" ? tierMark(row.value) : [KINDS[row.kind], row.value && `: ${row.value}`]);
    const columns = [
      { name: "Decision", cell: decision },
      { name: "Timesteps", cell: spanText },
      { name: "By", cell: (row) => [row.author, ", ", timeOf(row.at)] },
      { name: "State", cell: stateOf },
      { name: "", cell: (row) => (undoable(row) ? h("button", { type: "button", class: "plain undo", "aria-label": `Undo the review ${KINDS[row.kind]} by ${row.author}`, click: () => this.undo(row) }, "Undo") : null) },
    ];
    replace(this.list, table("Reviews, newest first", columns, reviews.toReversed(), { hidesCaption: true }));
  }
}
