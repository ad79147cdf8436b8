// Episodes: facets, search, filters, a sortable table with pages, contact sheets on hover, and the cart.

import { episodePath, get, query } from "/static/api.js";
import { addSelection, isInCart, MOST, onCartChange, setInCart } from "/static/cart.js";
import { byId, h, replace, tierMark } from "/static/dom.js";
import { aligned, columnName, hours, whole } from "/static/format.js";
import { whereOf } from "/static/filter_sql.js";
import { bind, showDialog } from "/static/keys.js";
import { ContactSheet } from "/static/contact_sheet.js";

const FACETS = { source: "Source", embodiment: "Embodiment", tier: "Tier", licence_class: "Licence", split: "Split" };
const SHOWN_VALUES = 8;
const LIMIT = 50;
const OPERATORS = { ge: "≥", le: "≤", gt: ">", lt: "<", eq: "=", ne: "≠" };
const SEARCH_DELAY_MS = 250;

/** What the address says: the whole state of the page. */
export class Selection {
  constructor(search = location.search) {
    const asked = new URLSearchParams(search);
    this.filters = asked.getAll("filter");
    this.q = asked.get("q") ?? "";
    this.sort = asked.get("sort") ?? "uid";
    this.columns = asked.getAll("column");
    this.cursor = asked.get("cursor");
    this.page = Number(asked.get("page") ?? 1);
  }

  /** What decides the order and the choice of episodes, as parameters of REST and of the address alike. */
  get chosen() {
    return { filter: this.filters, q: this.q, sort: this.sort === "uid" ? "" : this.sort };
  }

  get address() {
    return query({ ...this.chosen, column: this.columns, cursor: this.cursor, page: this.page > 1 ? this.page : "" });
  }

  /** Of the first page. */
  changed(change) {
    return Object.assign(new Selection(this.address), { cursor: null, page: 1 }, change);
  }
}

class EpisodesPage {
  constructor(main, columns) {
    this.columns = columns;
    this.numbers = columns.filter((column) => column.kind === "number");
    this.sheet = new ContactSheet();
    this.rows = [];
    this.current = -1;
    this.request = null;
    this.parts = {
      search: h("input", { type: "search", id: "search", placeholder: "Tasks, captions, ids", "aria-label": "Search tasks, captions and ids", input: () => this.searchSoon() }),
      chips: h("div", { class: "chips" }),
      facets: h("div", { class: "facets" }),
      summary: h("p", { class: "summary", role: "status" }),
      tools: h("div", { class: "row tools" }),
      results: h("div", {}),
      pager: h("nav", { class: "row pager", "aria-label": "Result pages" }),
    };
    const { search, chips, facets, summary, tools, results, pager } = this.parts;
    const isWide = matchMedia("(min-width: 900px)").matches;
    replace(
      main,
      h("h1", { class: "visually-hidden" }, "Episodes"),
      h(
        "div",
        { class: "browse" },
        h("aside", { "aria-label": "Filters" }, search, h("details", { open: isWide }, h("summary", {}, "Filters"), facets, this.filterForm())),
        h("section", { "aria-label": "Results" }, h("div", { class: "row between" }, summary, tools), chips, results, pager),
      ),
    );
    addEventListener("popstate", () => this.load());
    document.addEventListener("connected", () => this.load());
    onCartChange(() => this.markCart());
    this.bindKeys();
  }

  bindKeys() {
    bind("j", "next row", () => this.select(this.current + 1));
    bind("k", "previous row", () => this.select(this.current - 1));
    bind("f", "add to the cart, or take out", () => this.toggle(this.rows[this.current]));
    bind("Enter", "open the episode", () => this.rows[this.current] && location.assign(this.addressOf(this.rows[this.current])));
    bind("n", "next page", () => byId("next-page")?.click());
    bind("p", "previous page", () => byId("previous-page")?.click());
  }

  go(selection, { replaces = false } = {}) {
    const address = selection.address || location.pathname;
    if (replaces) history.replaceState(history.state, "", address);
    else history.pushState(null, "", address);
    return this.load();
  }

  searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.go(this.selection.changed({ q: this.parts.search.value }), { replaces: true }), SEARCH_DELAY_MS);
  }

  async load() {
    this.request?.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    const selection = new Selection();
    this.selection = selection;
    if (document.activeElement !== this.parts.search) this.parts.search.value = selection.q;
    this.parts.results.setAttribute("aria-busy", "true");
    try {
      const [page, facets] = await Promise.all([
        get("/episodes", { ...selection.chosen, limit: LIMIT, cursor: selection.cursor, column: selection.columns }, { signal }),
        get("/facets", { filter: selection.filters, q: selection.q, facet: Object.keys(FACETS) }, { signal }),
      ]);
      this.draw(page, facets);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) throw error;
      replace(this.parts.results, h("p", { class: "failure", role: "alert" }, error.message, error.remedy ? `; ${error.remedy}` : ""));
    }
    this.parts.results.removeAttribute("aria-busy");
  }

  draw(page, facets) {
    this.rows = page.episodes;
    this.current = -1;
    this.sheet.hide();
    this.parts.summary.replaceChildren(h("b", {}, whole(page.total)), page.total === 1 ? " episode, " : " episodes, ", hours(page.hours));
    this.drawChips();
    this.drawFacets(facets.facets);
    this.total = page.total;
    this.drawTools();
    this.drawTable();
    this.drawPager(page);
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
  }

  drawChips() {
    const { selection } = this;
    const chips = selection.filters.map((filter) => {
      const [column, operator, value] = parts(filter);
      const text = operator === "null" ? `${columnName(column)} ${value === "true" ? "unknown" : "known"}` : `${columnName(column)} ${OPERATORS[operator]} ${value}`;
      return h("button", { type: "button", class: "chip", "aria-label": `Remove the filter ${text}`, click: () => this.go(selection.changed({ filters: selection.filters.filter((each) => each !== filter) })) }, text, h("span", { "aria-hidden": "true" }, " ×"));
    });
    if (chips.length > 1) chips.push(h("button", { type: "button", class: "plain", click: () => this.go(selection.changed({ filters: [] })) }, "Clear all"));
    replace(this.parts.chips, chips);
  }

  drawFacets(facets) {
    const open = new Set([...this.parts.facets.querySelectorAll("fieldset[data-all]")].map((each) => each.dataset.name));
    replace(this.parts.facets, Object.entries(FACETS).filter(([name]) => facets[name]?.length).map(([name, title]) => this.facet(name, title, facets[name] ?? [], open.has(name))));
  }

  facet(name, title, values, showsAll) {
    const chosen = new Set(this.selection.filters.filter((each) => each.startsWith(`${name}:eq:`) || each === `${name}:null:true`));
    const visible = showsAll ? values : values.filter((each, place) => place < SHOWN_VALUES || chosen.has(filterOf(name, each.value)));
    const set = h("fieldset", { "data-name": name, "data-all": showsAll }, h("legend", {}, title), visible.map((each) => this.facetValue(name, each, chosen)));
    if (visible.length < values.length) {
      const more = h("button", { type: "button", class: "plain", click: () => this.showAll(set, visible.length, this.facet(name, title, values, true)) }, `${whole(values.length - visible.length)} more`);
      set.append(more);
    }
    return set;
  }

  showAll(set, before, whole) {
    set.replaceWith(whole);
    whole.querySelectorAll("input")[before].focus();
  }

  facetValue(name, { value, episodes }, chosen) {
    const filter = filterOf(name, value);
    const toggle = (event) => {
      const own = `${name}:`;
      const isOther = (each) => (value === null ? !each.startsWith(own) : each !== filter && each !== `${own}null:true`);
      const others = this.selection.filters.filter(isOther);
      this.go(this.selection.changed({ filters: event.target.checked ? [...others, filter] : others }));
    };
    const isDrawn = name === "tier";
    return h("label", {}, h("input", { type: "checkbox", "data-focus": filter, checked: chosen.has(filter), change: toggle }), h("span", { class: "name" }, isDrawn ? tierMark(value) : (value ?? "unknown") || "empty"), h("span", { class: "count" }, whole(episodes)));
  }

  filterForm() {
    const column = h("select", { "aria-label": "Column" }, this.numbers.map((each) => h("option", { value: each.name }, labelOf(each))));
    const operator = h("select", { "aria-label": "Comparison" }, ["ge", "le"].map((each) => h("option", { value: each }, OPERATORS[each])));
    const value = h("input", { type: "number", step: "any", required: true, "aria-label": "Value" });
    const submit = (event) => {
      event.preventDefault();
      const filter = `${column.value}:${operator.value}:${value.value}`;
      this.go(this.selection.changed({ filters: [...new Set([...this.selection.filters, filter])] }));
      value.value = "";
    };
    return h("form", { class: "filter", submit }, h("fieldset", {}, h("legend", {}, "Number"), column, h("div", { class: "row" }, operator, value, h("button", { type: "submit" }, "Add"))));
  }

  drawTools() {
    const { selection } = this;
    const own = selection.sort.replace(/^-/, "");
    const sorts = h("select", { id: "sort", change: (event) => this.go(selection.changed({ sort: `-${event.target.value}`.replace("-uid", "uid") })) }, this.columns.filter((each) => each.kind !== "coded" || each.name === own).map((each) => h("option", { value: each.name, selected: each.name === own }, labelOf(each))));
    const add = h("select", { id: "add-column", change: (event) => event.target.value && this.go(selection.changed({ columns: [...selection.columns, event.target.value] })) }, h("option", { value: "" }, "Add column"), this.numbers.filter((each) => !selection.columns.includes(each.name)).map((each) => h("option", { value: each.name }, labelOf(each))));
    add.setAttribute("aria-label", "Add a column");
    const all = h("button", { type: "button", id: "add-all", disabled: !this.total, click: () => this.addAll(all) }, `Add all ${whole(this.total)} to the cart`);
    replace(this.parts.tools, h("label", { for: "sort" }, "Sort by"), sorts, add, all, h("a", { class: "button", href: `/map${query({ filter: selection.filters, q: selection.q })}` }, "On the map"));
  }

  /** Every episode that matches; too many are refused, and a manifest by SQL is offered instead. */
  async addAll(button) {
    if (this.total > MOST) {
      const { where, reason } = whereOf(this.selection.filters.map(parts), this.selection.q);
      const offer = reason ? h("p", {}, `A manifest of all of them cannot be offered: ${reason}.`) : h("p", {}, h("a", { href: `/jobs${query({ kind: "manifest", where })}` }, "Build a manifest of all of them"));
      showDialog("Cart", h("p", { role: "alert" }, `${whole(this.total)} episodes match; the cart takes ${whole(MOST)}. Add a filter.`), offer);
      return;
    }
    button.disabled = true;
    try {
      await addSelection(this.selection.chosen);
    } catch (error) {
      if (error.status === undefined) throw error;
      showDialog("Cart", h("p", { role: "alert" }, error.message));
    }
    button.disabled = false;
  }

  /** The columns of numbers: those asked for, and the one that is sorted by. */
  get shownNumbers() {
    const own = this.selection.sort.replace(/^-/, "");
    const names = new Set(this.selection.columns);
    if (this.numbers.some((each) => each.name === own)) names.add(own);
    names.delete("duration_s");
    return this.numbers.filter((each) => names.has(each.name));
  }

  drawTable() {
    if (!this.rows.length) {
      replace(this.parts.results, h("p", { class: "empty" }, this.selection.filters.length || this.selection.q ? "No episode matches. Remove a filter or a word of the search." : "No episode yet. `eicorpus build` and `eicorpus ingest` add them."));
      return;
    }
    const all = h("input", { type: "checkbox", id: "all-rows", "aria-label": "Put every episode of this page into the cart", change: (event) => setInCart(this.rows, event.target.checked) });
    const head = h(
      "tr",
      {},
      h("th", { scope: "col", class: "tick" }, all),
      this.header("episode_id", "Episode"),
      h("th", { scope: "col", class: "task" }, "Task"),
      this.header("tier", "Tier"),
      this.header("duration_s", "Duration", "s"),
      this.shownNumbers.map((column) => this.header(column.name, columnName(column.name), column.unit)),
    );
    const formats = new Map(["duration_s", ...this.shownNumbers.map((each) => each.name)].map((name) => [name, aligned(this.rows.map((row) => row[name]), name === "duration_s" ? 1 : 4)]));
    const body = h("tbody", {}, this.rows.map((row, place) => this.row(row, place, formats)));
    replace(
      this.parts.results,
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Episodes" }, h("table", { class: "episodes" }, h("caption", { class: "visually-hidden" }, "Episodes of the selection"), h("thead", {}, head), body)),
    );
    this.markCart();
  }

  header(name, title, unit = null) {
    const { sort } = this.selection;
    const isOwn = sort.replace(/^-/, "") === name;
    const direction = isOwn ? (sort.startsWith("-") ? "descending" : "ascending") : null;
    const next = direction === "descending" ? name : direction ? `-${name}` : unit === null ? name : `-${name}`;
    const remove = this.selection.columns.includes(name) && h("button", { type: "button", class: "plain", "aria-label": `Remove the column ${title}`, click: () => this.go(this.selection.changed({ columns: this.selection.columns.filter((each) => each !== name), sort: isOwn ? "uid" : sort })) }, "×");
    const arrow = h("span", { class: "arrow", "aria-hidden": "true" }, { ascending: " ↑", descending: " ↓" }[direction] ?? "");
    return h("th", { scope: "col", class: unit === null ? null : "number", "aria-sort": direction }, h("button", { type: "button", class: "sort", "data-focus": `sort ${name}`, click: () => this.go(this.selection.changed({ sort: next })) }, title, unit ? h("span", { class: "unit" }, ` ${unit}`) : null, arrow), remove);
  }

  addressOf(row) {
    return episodePath(row.uid) + query(this.selection.chosen);
  }

  row(row, place, formats) {
    const tick = h("input", { type: "checkbox", "aria-label": `Put ${row.episode_id ?? row.uid} into the cart`, change: (event) => setInCart([row], event.target.checked) });
    const link = h("a", { href: this.addressOf(row), title: row.uid }, row.episode_id ?? row.uid);
    return h(
      "tr",
      { "data-uid": row.uid, mouseenter: (event) => this.sheet.showSoon(row.uid, event.currentTarget), mouseleave: () => this.sheet.hide(), focusin: () => this.mark(place) },
      h("td", { class: "tick" }, tick),
      h("th", { scope: "row" }, link, h("span", { class: "under" }, [row.source, row.embodiment].filter(Boolean).join(" · "))),
      h("td", { class: "task" }, h("span", { class: "clamp" }, (row.tasks ?? "").replaceAll("\n", "; ") || row.caption || "–")),
      h("td", {}, tierMark(row.tier)),
      [...formats].map(([name, format]) => h("td", { class: "number" }, format(row[name]))),
    );
  }

  drawPager(page) {
    const { selection } = this;
    const isFirst = selection.page === 1 && !selection.cursor;
    // a cursor leads forward only: the way back is the browser's own, or the first page
    const back = () => (history.state?.hasPrevious ? history.back() : this.go(selection.changed({})));
    const forward = () => {
      const next = selection.changed({ cursor: page.cursor, page: selection.page + 1 });
      history.pushState({ hasPrevious: true }, "", next.address);
      this.load().then(() => scrollTo(0, 0));
    };
    if (isFirst && !page.cursor) {
      replace(this.parts.pager);
      return;
    }
    replace(
      this.parts.pager,
      h("button", { type: "button", id: "previous-page", disabled: isFirst, click: back }, "Previous"),
      h("span", { class: "muted" }, `Page ${whole(selection.page)} of ${whole(Math.max(Math.ceil(page.total / LIMIT), 1))}`),
      h("button", { type: "button", id: "next-page", disabled: !page.cursor, click: forward }, "Next"),
    );
  }

  rowElements() {
    return [...this.parts.results.querySelectorAll("tbody tr")];
  }

  select(place) {
    const rows = this.rowElements();
    const row = rows[Math.min(Math.max(place, 0), rows.length - 1)];
    row?.querySelector("th a").focus();
    row?.scrollIntoView({ block: "nearest" });
    if (row) this.sheet.showSoon(row.dataset.uid, row);
  }

  mark(place) {
    this.current = place;
    this.rowElements().forEach((row, other) => row.toggleAttribute("data-current", other === place));
  }

  toggle(row) {
    if (row) setInCart([row], !isInCart(row.uid));
  }

  markCart() {
    const ticks = this.rowElements().map((row) => {
      const tick = row.querySelector("input[type=checkbox]");
      tick.checked = isInCart(row.dataset.uid);
      row.toggleAttribute("data-in-cart", tick.checked);
      return tick.checked;
    });
    const all = byId("all-rows");
    if (!all) return;
    all.checked = ticks.length > 0 && ticks.every(Boolean);
    all.indeterminate = !all.checked && ticks.some(Boolean);
  }
}

function parts(filter) {
  const [, column, operator, value] = /^([^]*?):(eq|ne|null|lt|le|gt|ge):([^]*)$/.exec(filter) ?? [null, filter, "eq", ""];
  return [column, operator, value];
}

function filterOf(name, value) {
  return value === null ? `${name}:null:true` : `${name}:eq:${value}`;
}

function labelOf({ name, unit }) {
  const names = { uid: "id (uid)", episode_id: "episode", duration_s: "duration" };
  return `${names[name] ?? columnName(name)}${unit ? ` (${unit})` : ""}`;
}

export async function show(main, { columns }) {
  const page = new EpisodesPage(main, columns);
  await page.load();
  if (location.hash === "#search") page.parts.search.focus();
}
