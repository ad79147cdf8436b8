// The shell: which page the address names, its navigation, and what is shown when the server cannot answer.

import { get, pause, pinSnapshot, watchConnection } from "/static/api.js";
import { openCart } from "/static/cart.js";
import { byId, h, replace } from "/static/dom.js";
import { bind, listen } from "/static/keys.js";

const PAGES = [
  { name: "Overview", path: "/", module: "/static/overview.js" },
  { name: "Episodes", path: "/episodes", module: "/static/episodes.js" },
  { name: "Thresholds", path: "/thresholds", module: "/static/thresholds.js" },
  { name: "Map", path: "/map", module: "/static/map.js" },
  { name: "Manifests", path: "/manifests", module: "/static/manifests.js" },
  { name: "Jobs", path: "/jobs", module: "/static/jobs.js" },
];
const LOOK_MS = 60_000;
const SESSION_ENDED = "The session has ended. Open the link of a new `eicorpus serve`, or one of POST /api/v1/session-links.";
const NO_PAGE = { name: "No such page" };
const EPISODE = { name: "Episode", module: "/static/episode.js" };

function pageOf(path) {
  if (/^\/episodes\/./.test(path)) return EPISODE;
  return PAGES.find((page) => page.path === path) ?? NO_PAGE;
}

export function notice(...content) {
  replace(byId("notice"), ...content);
}

function showFailure(error) {
  const main = byId("main");
  const lines = [h("h1", {}, "Cannot show this page"), h("p", {}, error.message)];
  if (error.status === 401) lines.push(h("p", {}, SESSION_ENDED));
  else if (error.status === 404 && pageOf(location.pathname) === EPISODE) lines.push(h("p", {}, h("a", { href: "/episodes" }, "All episodes")));
  else if (error.remedy) lines.push(h("p", {}, error.remedy));
  replace(main, h("section", { class: "failure" }, lines));
  if (error.status === undefined) throw error; // a bug of ours belongs into the console
}

/** A line says that the server does not answer, or not this session. The pages listen for "connected" and get again what they failed to get. */
function showConnection(connection) {
  const texts = { lost: "The server does not answer. The page goes on when it does.", ended: SESSION_ENDED };
  replace(byId("connection"), texts[connection] ? h("p", {}, texts[connection]) : null);
  if (connection === "lost") untilAnswered();
  else if (connection === "open" && document.documentElement.dataset.ready === "failed") location.reload();
  else if (connection === "open") document.dispatchEvent(new Event("connected"));
}

async function untilAnswered() {
  for (let status = 0; status === 0; ) {
    await pause();
    status = await get("/corpora").then(
      () => 200,
      (error) => error.status,
    );
  }
}

async function start() {
  const page = pageOf(location.pathname);
  const current = page === EPISODE ? "/episodes" : page.path;
  replace(
    byId("pages"),
    PAGES.map(({ name, path }) => h("a", { href: path, "aria-current": path === current ? "page" : null }, name)),
  );
  document.title = `${page.name} · eicorpus`;
  listen();
  watchConnection(showConnection);
  if (page === NO_PAGE) {
    replace(byId("main"), h("section", { class: "failure" }, h("h1", {}, "No such page"), h("p", {}, h("code", {}, location.pathname), " is no page of this server. ", h("a", { href: "/" }, "Overview"))));
    document.documentElement.dataset.ready = "failed";
    return;
  }
  bind("/", "search", () => {
    const search = byId("search");
    if (search) search.focus();
    else location.assign("/episodes#search");
  });
  try {
    const isBuilding = (message) => notice(h("p", {}, message));
    const [{ corpora }, me] = await Promise.all([get("/corpora"), get("/me")]);
    const [corpus] = corpora;
    openCart(corpus.uid || corpus.name, me);
    const columns = await get("/columns", {}, { onBuilding: isBuilding });
    keepSnapshot(corpus, columns);
    const { show } = await import(page.module);
    await show(byId("main"), { corpus, columns: columns.columns, me });
    document.documentElement.dataset.ready = "true";
  } catch (error) {
    showFailure(error);
    document.documentElement.dataset.ready = "failed";
  }
}

/** The page keeps the snapshot it began with. It is announced once that a newer one exists, and that this one is not served any more. */
function keepSnapshot(corpus, { snapshot, newest_snapshot: newest }) {
  byId("corpus").textContent = `${corpus.name} · snapshot ${snapshot}`;
  notice();
  let announced = "";
  const isFirst = (kind) => announced !== kind && announced !== "gone" && Boolean((announced = kind));
  const reload = () => h("button", { type: "button", id: "reload", click: () => location.reload() }, "Reload");
  const newer = async (number) => {
    if (!isFirst("newer")) return;
    const action = h("span", {}, "It is being prepared.");
    notice(h("p", {}, `Snapshot ${number} exists; this page shows ${snapshot}. `, action));
    await isServed(snapshot);
    action.replaceWith(reload());
  };
  const gone = () => isFirst("gone") && notice(h("p", {}, `Snapshot ${snapshot} of this page is not served any more: the corpus went on, or episodes were erased. `, reload()));
  pinSnapshot(snapshot, { newer, gone });
  if (newest > snapshot) newer(newest);
  // a page that asks for nothing looks now and then, and when it is looked at again; what fails here fails again where it is needed
  const look = () => document.visibilityState === "visible" && get("/columns").catch(() => {});
  document.addEventListener("visibilitychange", look);
  setInterval(look, LOOK_MS);
}

/** Until the server has a snapshot after `number` ready, or cannot say. */
async function isServed(number) {
  try {
    while ((await get("/corpora")).corpora[0].snapshot === number) await pause();
  } catch (error) {
    if (error.status === undefined) throw error;
  }
}

start();
