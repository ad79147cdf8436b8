// One episode: its videos on one clock, its numbers under the same cursor, and what the catalog knows of it.

import { episodePath, failureOf, frameAddress, get, ofSnapshot, query, request } from "/static/api.js";
import { isInCart, onCartChange, setInCart } from "/static/cart.js";
import { Clock } from "/static/clock.js";
import { byId, h, replace, tierMark } from "/static/dom.js";
import { Selection } from "/static/episodes.js";
import { clockTime, number, whole } from "/static/format.js";
import { bind } from "/static/keys.js";
import { latentLanes } from "/static/latents.js";
import { captionTable, correctionTable, measurementTable, provenance, segmentTable } from "/static/episode_tables.js";
import { drawnInTheme, GUTTER, SeriesPlot, slicesOf } from "/static/plots.js";
import { ReviewPanel } from "/static/reviews.js";
import { similarPanel } from "/static/similar.js";
import { Overlay, Space } from "/static/space.js";
import { Stills } from "/static/stills.js";
import { isFault, timeline } from "/static/timeline.js";

class EpisodePage {
  constructor(main, uid, episode, me) {
    Object.assign(this, { uid, episode, main, range: null, plots: [], overlays: [], stills: [], selection: new Selection() });
    const { length } = episode.episode;
    this.clock = new Clock(episode.rate_hz ?? 10, length ?? 1, () => this.timeChanged());
    this.parts = {
      title: h("header", { class: "episode-head" }),
      videos: h("div", { class: "videos" }),
      play: h("button", { type: "button", id: "play", "aria-label": "Play", click: () => this.clock.toggle() }, "▶"),
      slider: h("input", { type: "range", id: "timestep", min: 0, max: Math.max((length ?? 1) - 1, 0), step: 1, value: 0, "aria-label": "Timestep", input: (event) => this.seek(Number(event.target.value)) }),
      time: h("output", { class: "time", for: "timestep" }),
      speed: h("button", { type: "button", click: () => (this.clock.faster(), this.timeChanged()) }, "1×"),
      tracks: h("div", { class: "tracks" }),
      lanes: h("div", {}),
      latents: h("div", {}),
      series: h("div", {}),
      cursor: h("div", { class: "cursor", "aria-hidden": "true" }),
      range: h("div", { class: "chosen-range", "aria-hidden": "true", hidden: true }),
      space: h("div", { class: "space", role: "img", "aria-label": "Paths of the end effectors in space" }),
      aside: h("div", { class: "episode-side" }),
      corrections: h("div", {}),
    };
    this.reviews = new ReviewPanel(uid, episode, this.clock, me, {
      onReviews: (reviews) => replace(this.parts.corrections, correctionTable(episode, reviews)),
      onRange: (range) => this.showRange(range),
    });
  }

  layout() {
    const { title, videos, play, slider, time, speed, tracks, lanes, latents, series, range, cursor, aside, corrections } = this.parts;
    const transport = h("div", { class: "transport" }, play, h("button", { type: "button", "aria-label": "Previous frame", click: () => this.step(-1) }, "‹"), h("button", { type: "button", "aria-label": "Next frame", click: () => this.step(1) }, "›"), slider, time, speed);
    tracks.append(lanes, latents, series, range, cursor);
    tracks.addEventListener("click", (event) => {
      const { start, end } = event.target.closest(".tier-block")?.dataset ?? {};
      if (start) this.reviews.setRange({ start: Number(start), end: Number(end) });
      this.seekAt(event.clientX);
    });
    replace(this.main, title, h("div", { class: "episode" }, h("div", { class: "episode-main" }, videos, transport, tracks), aside));
    this.head();
    this.addVideos();
    const captions = captionTable(this.episode);
    captions.append(corrections);
    replace(aside, segmentTable(this.episode), this.reviews.node, captions, similarPanel(this.uid), measurementTable(this.episode), provenance(this.episode));
    this.bindKeys();
  }

  head() {
    const { episode, episode: { episode: row } } = this;
    this.cartButton = h("button", { type: "button", id: "add-to-cart", click: () => this.toggleCart() });
    onCartChange(() => this.markCart());
    const task = (row.tasks ?? []).join("; ");
    replace(
      this.parts.title,
      h("div", {}, h("h1", {}, row.episode_id ?? this.uid), h("p", { class: "facts" }, tierMark(episode.tier), h("span", {}, row.source), h("span", {}, row.embodiment), h("span", {}, `${number(row.duration_s)} s`), h("span", {}, `${whole(row.length)} timesteps`)), task && h("p", { class: "muted" }, task)),
      h("nav", { class: "row", "aria-label": "Episodes of the selection", id: "neighbours" }, h("a", { href: `/episodes${query({ ...this.selection.chosen })}` }, "All episodes"), this.cartButton),
    );
    this.markCart();
  }

  markCart() {
    this.cartButton.textContent = isInCart(this.uid) ? "Take out of the cart" : "Add to cart";
    this.cartButton.setAttribute("aria-pressed", String(isInCart(this.uid)));
  }

  toggleCart() {
    setInCart([{ ...this.episode.episode, tier: this.episode.tier }], !isInCart(this.uid));
  }

  addVideos() {
    const { videos } = this.episode;
    if (!videos.length) replace(this.parts.videos, h("p", { class: "missing" }, "The episode has no camera."));
    for (const { camera, href, width, height } of videos) {
      const video = h("video", { src: ofSnapshot(href), muted: true, playsinline: true, preload: "auto", width, height, "aria-label": `Camera ${camera}` });
      video.muted = true;
      const canvas = h("canvas", { width, height, "aria-hidden": "true" });
      const figure = h("figure", { "data-camera": camera }, h("div", { class: "picture" }, video, canvas), h("figcaption", {}, camera));
      video.addEventListener("error", () => this.videoMissing(figure, video, camera));
      this.clock.add(video);
      this.parts.videos.append(figure);
      this.checkCodec(figure, video, camera);
    }
  }

  /** Whether the browser has a decoder is known before it tries: some show a black picture and tell no error. */
  async checkCodec(figure, video, camera) {
    const answer = await request(video.src, { method: "HEAD" }).catch(() => null);
    const type = answer?.ok ? answer.headers.get("Content-Type") : "";
    if (type?.includes("codecs=") && !video.canPlayType(type)) this.showStills(figure, video, camera, type);
  }

  /** The server decodes what the browser does not: frames of the timestep stand in, and the caption says so. */
  showStills(figure, video, camera, type) {
    if (!video.isConnected) return; // done already
    this.clock.remove(video);
    const image = h("img", { alt: `Camera ${camera}`, width: video.getAttribute("width"), height: video.getAttribute("height") });
    video.replaceWith(image);
    const codec = /codecs="([^"]*)"/.exec(type ?? "")?.[1];
    figure.querySelector("figcaption").append(h("span", { class: "stills" }, ` · single frames: this browser does not play this video${codec ? ` (${codec})` : ""}`));
    const stills = new Stills(image, (timestep) => frameAddress(this.uid, camera, timestep), async (address) => {
      this.stills = this.stills.filter((each) => each !== stills);
      const { message } = await orMessage(request(address).then((answer) => (answer.ok ? {} : failureOf(answer))));
      this.videoGone(figure, camera, message ?? "it cannot be shown");
    });
    this.stills.push(stills);
    stills.showAt(this.clock.timestep);
  }

  /** Where its file is there, the server may decode it. */
  async videoMissing(figure, video, camera) {
    this.clock.remove(video);
    const asked = request(video.src, { headers: { Range: "bytes=0-0" } }).then((answer) => (answer.ok ? { type: answer.headers.get("Content-Type") } : failureOf(answer)));
    const { message, type } = await orMessage(asked);
    if (message === undefined) this.showStills(figure, video, camera, type);
    else this.videoGone(figure, camera, message);
  }

  /** The message of the server stands in the place of the video; the rest of the page goes on. */
  videoGone(figure, camera, text) {
    replace(figure, h("p", { class: "missing" }, h("b", {}, "No video"), text), h("figcaption", {}, camera));
  }

  bindKeys() {
    bind(" ", "play, pause", () => this.clock.toggle());
    bind("ArrowRight", "one frame on", () => this.step(1));
    bind("ArrowLeft", "one frame back", () => this.step(-1));
    bind("f", "add to the cart, or take out", () => this.toggleCart());
    bind("j", "next episode of the selection", () => byId("next-episode")?.click());
    bind("k", "previous episode of the selection", () => byId("previous-episode")?.click());
  }

  step(count) {
    this.clock.step(count);
    this.settled();
  }

  seek(timestep) {
    this.clock.seek(timestep);
    this.settled();
  }

  seekAt(x) {
    const { left, width } = this.parts.tracks.getBoundingClientRect();
    const share = (x - left - GUTTER.left) / (width - GUTTER.left - GUTTER.right);
    if (share >= 0 && share <= 1) this.seek(Math.floor(share * this.clock.length));
  }

  /** The clock stands: the address takes the timestep, the scene in space its marks. */
  settled() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const asked = new URLSearchParams(location.search);
      asked.set("t", this.clock.timestep);
      history.replaceState(history.state, "", `?${asked}`);
      this.space?.showAt(this.clock.timestep);
    }, 150);
  }

  timeChanged() {
    const { clock, parts } = this;
    const { timestep } = clock;
    const isStanding = !clock.isPlaying;
    parts.play.textContent = isStanding ? "▶" : "❚❚";
    parts.play.setAttribute("aria-label", isStanding ? "Play" : "Pause");
    parts.speed.textContent = `${clock.speed}×`;
    parts.slider.value = timestep;
    parts.time.textContent = `${clockTime(timestep / clock.rate)} / ${clockTime(clock.duration)} · timestep ${whole(timestep)}`;
    parts.cursor.style.transform = `translateX(${this.x(clock.time * clock.rate)}px)`;
    this.plots.forEach((plot) => plot.showAt(timestep));
    this.overlays.forEach((overlay) => overlay.showAt(timestep));
    this.stills.forEach((stills) => stills.showAt(timestep));
    if (isStanding && this.wasPlaying) this.settled();
    this.wasPlaying = !isStanding;
  }

  /** Where a timestep is in the tracks, in pixels. */
  x(timestep) {
    const { width } = this.size ?? { width: 0 };
    return GUTTER.left + (timestep / this.clock.length) * Math.max(width - GUTTER.left - GUTTER.right, 0);
  }

  showRange(range) {
    this.range = range;
    this.parts.range.hidden = !range;
    if (!range) return;
    this.parts.range.style.left = `${this.x(range.start)}px`;
    this.parts.range.style.width = `${this.x(range.end) - this.x(range.start)}px`;
  }

  watchSize() {
    new ResizeObserver(() => {
      this.size = { width: this.parts.tracks.clientWidth };
      this.showRange(this.range);
      this.timeChanged();
    }).observe(this.parts.tracks);
  }

  async drawSeries() {
    const series = await orMessage(get(`${episodePath(this.uid)}/series`));
    if (series.message) {
      replace(this.parts.lanes, timeline(this.episode, []));
      replace(this.parts.series, h("p", { class: "missing" }, h("b", {}, "No state and action"), series.message));
      return;
    }
    replace(this.parts.lanes, timeline(this.episode, series.invalid));
    const shaded = this.episode.measurements.filter((each) => each.start !== null && isFault(each.name));
    this.plots = slicesOf(series.channels).map((slice, place, all) => new SeriesPlot(slice, series, shaded, place === all.length - 1));
    replace(this.parts.series, this.plots.map((plot) => plot.node));
    await drawnInTheme(() => Promise.all(this.plots.map((plot) => plot.draw())));
  }

  async drawLatents() {
    const { strips, message } = await orMessage(get(`${episodePath(this.uid)}/latents`));
    replace(this.parts.latents, message ? h("p", { class: "missing" }, h("b", {}, "No latents"), message) : latentLanes(strips, this.clock.length));
  }

  async drawGeometry() {
    const geometry = await orMessage(get(`${episodePath(this.uid)}/geometry`));
    if (geometry.message || !geometry.hands.length) return;
    for (const figure of this.parts.videos.querySelectorAll("figure")) {
      const canvas = figure.querySelector("canvas");
      const overlay = new Overlay(canvas, geometry, figure.dataset.camera);
      if (overlay.seen.length) this.overlays.push(overlay);
    }
    const legend = h("p", { class: "legend" }, geometry.hands.map(({ side }) => h("span", { class: `side ${side}` }, side)), h("span", { class: "muted" }, `frame ${geometry.frame}`));
    this.parts.aside.prepend(h("section", { class: "panel" }, h("h2", {}, "In space"), this.parts.space, legend));
    this.space = new Space(this.parts.space, geometry);
    await drawnInTheme(async () => {
      await this.space.draw();
      await this.space.showAt(this.clock.timestep);
    });
  }

  async addNeighbours() {
    const { previous, next } = await orMessage(get(`${episodePath(this.uid)}/neighbours`, this.selection.chosen));
    const link = (uid, id, text) => (uid ? h("a", { id, class: "button", href: episodePath(uid) + query(this.selection.chosen) }, text) : h("span", { class: "button off" }, text));
    byId("neighbours").prepend(link(previous, "previous-episode", "‹ Previous"), link(next, "next-episode", "Next ›"));
  }
}

/** A part that cannot be had leaves the others alone. */
async function orMessage(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error.status === undefined) throw error;
    return { message: error.message };
  }
}

export async function show(main) {
  const uid = decodeURIComponent(location.pathname.replace(/^\/episodes\//, ""));
  const [episode, me] = await Promise.all([get(episodePath(uid)), get("/me")]);
  document.title = `${episode.episode.episode_id ?? uid} · eicorpus`;
  const page = new EpisodePage(main, uid, episode, me);
  page.layout();
  page.watchSize();
  await Promise.all([page.reviews.load(), page.addNeighbours(), page.drawSeries(), page.drawGeometry(), page.drawLatents()]);
  page.clock.seek(Number(new URLSearchParams(location.search).get("t") ?? 0));
}
