// The contact sheet of an episode, shown beside the row under the pointer or with the keyboard's focus.

import { episodePath, get, sheetAddress } from "/static/api.js";
import { h } from "/static/dom.js";

const DELAY_MS = 180;
const MARGIN_PX = 12;
const ANSWERS_KEPT = 200;

export class ContactSheet {
  constructor() {
    this.cameras = new Map(); // uid -> names of its cameras
    this.picture = h("img", { alt: "", load: () => this.place() });
    this.text = h("figcaption", {});
    this.figure = h("figure", { class: "contact-sheet", hidden: true, "aria-hidden": "true" }, this.picture, this.text);
    document.body.append(this.figure);
  }

  showSoon(uid, row) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.show(uid, row), DELAY_MS);
  }

  hide() {
    clearTimeout(this.timer);
    this.row = null;
    this.figure.hidden = true;
  }

  async show(uid, row) {
    this.row = row;
    const cameras = await this.camerasOf(uid);
    if (this.row !== row || !cameras.length) return;
    this.text.textContent = cameras[0];
    this.picture.onerror = () => (this.figure.hidden = true); // its video is missing
    this.picture.src = sheetAddress(uid, cameras[0]);
    if (this.picture.complete) this.place();
  }

  /** At the right edge, beside its row: the names of the rows stay in view. */
  place() {
    if (!this.row) return;
    this.figure.hidden = false;
    const { height } = this.figure.getBoundingClientRect();
    const { bottom } = this.row.getBoundingClientRect();
    const top = Math.max(Math.min(bottom + MARGIN_PX, innerHeight - height - MARGIN_PX), MARGIN_PX);
    this.figure.style.top = `${top}px`;
  }

  async camerasOf(uid) {
    if (!this.cameras.has(uid)) {
      if (this.cameras.size >= ANSWERS_KEPT) this.cameras.clear();
      const answer = get(episodePath(uid)).then(
        (episode) => episode.videos.map((video) => video.camera),
        () => [],
      );
      this.cameras.set(uid, answer);
    }
    return this.cameras.get(uid);
  }
}
