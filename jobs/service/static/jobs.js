// Jobs: start one, follow its log, stop it, and look at earlier ones.

import { get, newId, post, query } from "/static/api.js";
import { byId, h, replace, table } from "/static/dom.js";
import { hours, moment, number, whole } from "/static/format.js";
import { bind } from "/static/keys.js";
import { jobForm } from "/static/job_form.js";
import { FINISHED, JobFollower } from "/static/job_follow.js";

const LIMIT = 25;
const LIST_MS = 5000; // between two looks at the list while a job waits or runs
const SHOWN_LINES = 2000;
const SHOWN_ROWS = 200;

/** What the address says: the job that is looked at, and the job before which the list begins. */
function asked() {
  const search = new URLSearchParams(location.search);
  return { job: search.get("job"), before: search.get("before") };
}

function stateMark(state) {
  return h("span", { class: `state state-${state}` }, state);
}

/** "2.5 min"; of a job that runs, up to now. */
function duration({ started_at_s: start, ended_at_s: end }) {
  return start === null ? "–" : hours(((end ?? Date.now() / 1000) - start) / 3600);
}

/** The options of a job as text: `name=train, val=0.1`. */
function optionsOf({ request }) {
  const shown = (value) => (Array.isArray(value) ? (value.length > 3 ? `${whole(value.length)} values` : value.join(" ")) : String(value));
  return Object.entries(request)
    .filter(([name, value]) => name !== "kind" && value !== null && value !== "" && value !== false && !(Array.isArray(value) && !value.length))
    .map(([name, value]) => `${name}=${shown(value)}`)
    .join(", ");
}

class JobsPage {
  constructor(main, me) {
    this.isAllowed = me.role === "admin";
    this.jobs = [];
    this.current = -1;
    this.keys = {}; // job that ended -> key of the one that runs it again
    this.parts = {
      form: h("div", {}),
      detail: h("section", { class: "job", "aria-label": "Job" }),
      list: h("div", {}),
      pager: h("nav", { class: "row pager", "aria-label": "Pages of jobs" }),
      // one short text for each state; the log itself is not announced
      news: h("p", { role: "status", class: "visually-hidden" }),
    };
    const { form, detail, list, pager, news } = this.parts;
    const isWide = matchMedia("(min-width: 900px)").matches;
    const isPrefilled = new URLSearchParams(location.search).has("kind");
    this.newJob = h("details", { id: "new-job", open: isWide || isPrefilled }, h("summary", {}, "New job"), form);
    replace(main, h("h1", {}, "Jobs"), news, h("div", { class: "browse" }, h("aside", { "aria-label": "New job" }, this.isAllowed ? this.newJob : h("p", { class: "muted" }, `Jobs are started with the role admin; ${me.name} has the role ${me.role}.`)), h("div", { class: "job-column" }, detail, h("section", { "aria-label": "History" }, h("h2", {}, "History"), list, pager))));
    addEventListener("popstate", () => this.load());
    document.addEventListener("connected", () => {
      this.shown = undefined; // the log is followed anew
      this.load();
    });
    addEventListener("pagehide", () => this.follower?.close());
    this.bindKeys();
  }

  bindKeys() {
    bind("j", "next job", () => this.select(this.current + 1));
    bind("k", "previous job", () => this.select(this.current - 1));
    if (!this.isAllowed) return;
    bind("n", "new job", () => {
      this.newJob.open = true;
      byId("job-kind")?.focus();
    });
  }

  go(change) {
    history.pushState(null, "", query({ ...asked(), ...change }) || location.pathname);
    return this.load();
  }

  async load() {
    const { job } = asked();
    await this.loadList();
    if (job !== this.shown) this.open(job);
  }

  async showForm() {
    if (!this.isAllowed) return;
    try {
      const form = await jobForm((job) => this.go({ job: job.id, before: null }), new URLSearchParams(location.search));
      replace(this.parts.form, form.node);
    } catch (error) {
      if (error.status === undefined) throw error;
      replace(this.parts.form, h("p", { class: "failure" }, error.message, error.remedy ? `; ${error.remedy}` : ""));
    }
  }

  async loadList() {
    clearTimeout(this.timer);
    const { before } = asked();
    try {
      const answer = await get("/jobs", { limit: LIMIT, before });
      this.jobs = answer.jobs;
      this.drawList();
      this.drawPager(answer, before);
    } catch (error) {
      // a server that is started again answers the next time
      replace(this.parts.list, h("p", { class: "failure", role: "alert" }, error.message));
    }
    if (this.jobs.some((job) => !FINISHED.includes(job.state))) this.timer = setTimeout(() => this.loadList(), LIST_MS);
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
  }

  drawList() {
    if (!this.jobs.length) {
      replace(this.parts.list, h("p", { class: "empty" }, "No job yet."));
      return;
    }
    const link = (job) =>
      h("a", { href: query({ ...asked(), job: job.id }), "data-focus": job.id, "aria-current": String(job.id) === asked().job ? "true" : null, click: (event) => this.follow(event, job) }, `${job.id} ${job.kind}`, h("span", { class: "under" }, optionsOf(job)));
    replace(
      this.parts.list,
      table(
        "Jobs, newest first",
        [
          { name: "Job", cell: link },
          { name: "State", cell: (job) => stateMark(job.state) },
          { name: "Submitted", cell: (job) => moment(job.created_at_s) },
          { name: "Duration", number: true, cell: duration },
        ],
        this.jobs,
        { hidesCaption: true },
      ),
    );
  }

  follow(event, job) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.go({ job: job.id }).then(() => this.parts.detail.scrollIntoView({ block: "nearest" }));
  }

  get links() {
    return [...this.parts.list.querySelectorAll("tbody a")];
  }

  select(place) {
    const links = this.links;
    if (!links.length) return;
    this.current = Math.min(Math.max(place, 0), links.length - 1);
    links[this.current].focus();
  }

  drawPager({ cursor, removed }, before) {
    const older = h("button", { type: "button", id: "older-jobs", disabled: cursor === null, click: () => this.go({ before: cursor }) }, "Older");
    const newest = h("button", { type: "button", disabled: !before, click: () => this.go({ before: null }) }, "Newest");
    const note = removed ? h("span", { class: "muted" }, `${whole(removed)} older ones were removed`) : null;
    replace(this.parts.pager, cursor === null && !before ? note : [newest, older, note]);
  }

  open(id) {
    this.follower?.close();
    clearInterval(this.clock);
    this.shown = id;
    if (!id) {
      replace(this.parts.detail);
      return;
    }
    this.lines = [];
    this.log = h("pre", { class: "log", tabindex: 0, role: "region", "aria-label": `Log of job ${id}` });
    this.head = h("div", { class: "job-head" });
    this.result = h("div", {});
    replace(this.parts.detail, this.head, this.log, this.result);
    this.state = "";
    this.follower = new JobFollower(id, {
      onLog: (text) => this.addLog(text),
      onState: (job) => this.show(job),
      onProblem: (message) => replace(this.head, h("p", { class: "failure", role: "alert" }, message)),
    });
  }

  addLog(text) {
    // who reads an earlier line keeps it in view
    const isAtEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 4;
    this.lines.push(...text.replace(/\n$/, "").split("\n"));
    const dropped = this.lines.length - SHOWN_LINES;
    this.log.textContent = (dropped > 0 ? [`… ${whole(dropped)} earlier lines`, ...this.lines.slice(-SHOWN_LINES)] : this.lines).join("\n");
    if (isAtEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  show(job) {
    const isOver = FINISHED.includes(job.state);
    const isLost = job.submission_id !== null && (job.problem !== "" || job.waits_for !== "");
    const isStopping = job.state === "cancelling";
    const stop = h("button", { type: "button", id: "cancel-job", disabled: isStopping && !isLost, click: () => this.cancel(job) }, !isStopping ? "Cancel" : isLost ? "Forget" : "Stopping");
    const again = h("button", { type: "button", id: "run-again", click: () => this.runAgain(job) }, "Run again");
    replace(
      this.head,
      h("div", { class: "row between" }, h("h2", {}, `Job ${job.id}: ${job.kind}`), !this.isAllowed ? null : !isOver ? stop : job.state === "succeeded" ? null : again),
      h("p", { class: "facts" }, stateMark(job.state), h("span", {}, moment(job.created_at_s)), h("span", { class: "duration" }, duration(job)), job.attempts > 1 ? h("span", {}, `attempt ${job.attempts}`) : null),
      optionsOf(job) ? h("p", { class: "muted wrap" }, optionsOf(job)) : null,
      job.problem ? h("p", { class: "failure" }, job.problem) : null,
      job.waits_for ? h("p", { class: "muted wrap" }, `Runs with ${job.waits_for}.`) : null,
    );
    this.log.hidden = isOver && !this.lines.length;
    clearInterval(this.clock);
    if (!isOver && job.started_at_s !== null) this.clock = setInterval(() => (this.head.querySelector(".duration").textContent = duration(job)), 1000);
    if (job.state !== this.state) {
      if (this.state) this.parts.news.textContent = `Job ${job.id} ${job.kind}: ${job.state}`;
      this.state = job.state;
      if (this.jobs.find((each) => each.id === job.id)?.state !== job.state) this.loadList();
    }
    if (isOver) replace(this.result, resultOf(job));
    document.documentElement.dataset.job = `${job.id} ${job.state}`;
  }

  async cancel(job) {
    await this.attempt(async () => this.show(await post(`/jobs/${job.id}/cancel`)));
  }

  /** The same request as a new job. Its key is of the job, so that a second click is no second job. */
  async runAgain(job) {
    const key = (this.keys[job.id] ??= newId());
    await this.attempt(async () => this.go({ job: (await post("/jobs", { key, job: job.request })).id, before: null }));
  }

  async attempt(act) {
    try {
      await act();
    } catch (error) {
      if (error.status === undefined) throw error;
      this.head.append(h("p", { class: "failure", role: "alert" }, error.message, error.remedy ? `; ${error.remedy}` : ""));
    }
  }
}

/** What the command answered: numbers and texts as a list, rows as tables, the whole as JSON. */
function resultOf(job) {
  const answer = job.result?.result;
  if (!answer || typeof answer !== "object") return null;
  const parts = Object.entries(answer);
  const isRow = (each) => each && typeof each === "object" && !Array.isArray(each);
  const plain = parts.filter(([, value]) => ["string", "number", "boolean"].includes(typeof value));
  const tables = parts.filter(([, value]) => Array.isArray(value) && value.length && value.every(isRow));
  return [
    h("h3", {}, "Result"),
    job.kind === "manifest" && job.state === "succeeded" ? h("p", {}, h("a", { href: `/manifests${query({ name: job.request.name })}` }, `Manifest ${job.request.name}`)) : null,
    plain.length ? h("dl", { class: "facts-list" }, plain.map(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, cell(value))])) : null,
    tables.map(([name, rows]) => rowsTable(name, rows)),
    h("details", {}, h("summary", {}, "JSON"), h("pre", { class: "log", tabindex: 0, role: "region", "aria-label": "The result as JSON" }, JSON.stringify(answer, null, 2))),
  ];
}

function cell(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return number(value);
  if (typeof value !== "object") return String(value);
  const parts = Object.entries(value).map(([name, each]) => (Array.isArray(value) ? cell(each) : `${name} ${cell(each)}`));
  return parts.join(", ") || "–";
}

function rowsTable(name, rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const caption = `${name.replaceAll("_", " ")}${rows.length > SHOWN_ROWS ? `, the first ${whole(SHOWN_ROWS)} of ${whole(rows.length)}` : ""}`;
  const isNumber = (column) => rows.every((row) => row[column] === null || typeof row[column] === "number");
  return table(caption, columns.map((column) => ({ name: column.replaceAll("_", " "), number: isNumber(column), cell: (row) => cell(row[column]) })), rows.slice(0, SHOWN_ROWS));
}

export async function show(main, { me }) {
  const page = new JobsPage(main, me);
  await Promise.all([page.load(), page.showForm()]);
}
