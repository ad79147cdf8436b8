// The form for a new job. Its fields are made from the JSON Schema of each kind, so that a kind of the server needs no code here.

import { get, newId, post } from "/static/api.js";
import { h, replace } from "/static/dom.js";

const ABOUT = {
  build: "Build what is missing or stale of the corpus spec.",
  plan: "List what is up to date, stale or missing. Changes nothing.",
  measure: "Compute measurements that are missing or outdated.",
  tier: "Apply a quality policy to every segment.",
  dedup: "Find episodes that are copies of each other.",
  manifest: "Select segments for training.",
  caption: "Write captions by rules, without a model.",
  latents: "Encode images, as the corpus spec says.",
  text_features: "Encode instructions, as the corpus spec says.",
  export: "Write the catalog as Iceberg tables where the corpus spec says.",
  report: "Write the report of the corpus.",
  verify: "Compare every file with the catalog.",
  compact: "Merge the small files of the catalog.",
};

function titleOf(name) {
  return name.replaceAll("_", " ");
}

/** The part of a schema that is not null, and whether null is allowed. */
function withoutNull(schema) {
  if (!schema.anyOf) return schema;
  return { ...schema, ...schema.anyOf.find((each) => each.type !== "null") };
}

function describe(schema, isRequired) {
  const { default: value, minimum, maximum } = schema;
  const notes = [];
  if (schema.description) notes.push(schema.description);
  if (isRequired) notes.push("required");
  if (minimum !== undefined && maximum !== undefined) notes.push(`${minimum} to ${maximum}`);
  if (typeof value === "number") notes.push(`default ${value}`);
  return notes.join("; ");
}

/** Several values of a closed set: a tick for each. None ticked means all. */
function ticks(name, choices, initial) {
  const boxes = choices.map((value) => h("input", { type: "checkbox", value, checked: initial.includes(value) }));
  const node = h("fieldset", { class: "ticks" }, h("legend", {}, titleOf(name), h("span", { class: "muted" }, ", all when none is ticked")), h("div", {}, boxes.map((box) => h("label", {}, box, h("span", {}, box.value)))));
  return { node, value: () => boxes.filter((box) => box.checked).map((box) => box.value) };
}

/** Words of a list without a closed set, one a line. */
function lines(name, schema, initial) {
  const input = h("textarea", { rows: 3, value: initial.join("\n"), "aria-label": titleOf(name) });
  const value = () => input.value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { node: h("label", { class: "field" }, h("span", {}, titleOf(name), h("span", { class: "muted" }, " one a line")), input), value };
}

function select(values, isRequired, initial) {
  return h("select", {}, isRequired ? null : h("option", { value: "" }, "default"), values.map((value) => h("option", { value, selected: value === initial }, value)));
}

function input(schema, initial) {
  const isNumber = ["number", "integer"].includes(schema.type);
  const node = h("input", { type: isNumber ? "number" : "text", step: schema.type === "integer" ? 1 : "any", min: schema.minimum, max: schema.maximum, maxlength: schema.maxLength, autocomplete: "off", spellcheck: "false", value: initial });
  if (schema.pattern) {
    // the attribute `pattern` reads another dialect of regular expressions than the schema is written in
    const pattern = new RegExp(schema.pattern, "u");
    const check = () => node.setCustomValidity(node.value === "" || pattern.test(node.value) ? "" : `does not match ${schema.pattern}`);
    node.addEventListener("input", check);
    check();
  }
  return node;
}

function field(name, whole, { choices, isRequired, initial }) {
  const schema = withoutNull(whole);
  if (schema.type === "boolean") {
    const box = h("input", { type: "checkbox", checked: initial[0] === "true" });
    return { node: h("label", { class: "tick-field" }, box, titleOf(name)), value: () => box.checked };
  }
  if (schema.type === "array") return choices ? ticks(name, choices, initial) : lines(name, schema, initial);
  const closed = choices ?? schema.enum;
  const control = closed ? select(closed, isRequired, initial[0]) : input(schema, initial[0] ?? "");
  control.required = isRequired;
  const value = () => (control.value === "" ? undefined : control.type === "number" ? control.valueAsNumber : control.value);
  return { node: h("label", { class: "field" }, h("span", {}, titleOf(name), h("span", { class: "muted" }, ` ${describe(schema, isRequired)}`)), control), value };
}

function isChosen(value) {
  return value !== undefined && !(Array.isArray(value) && !value.length);
}

export class JobForm {
  /** `submitted` is called with the job. `initial` are options by name, as an address holds them. */
  constructor({ kinds, choices, problem }, submitted, initial) {
    Object.assign(this, { kinds, choices, submitted, initial, key: newId() });
    const asked = initial.get("kind");
    this.kind = h("select", { id: "job-kind", change: () => this.draw() }, Object.keys(kinds).map((kind) => h("option", { value: kind, selected: kind === asked }, kind)));
    this.about = h("p", { class: "muted" });
    this.options = h("div", { class: "job-options" });
    this.button = h("button", { type: "submit", class: "primary", id: "submit-job" }, "Start");
    this.problem = h("p", { class: "failure", role: "alert" });
    const withoutSpec = problem ? h("p", { class: "failure" }, problem) : null;
    this.node = h("form", { class: "job-form", submit: (event) => this.submit(event) }, withoutSpec, h("label", { class: "field" }, h("span", {}, "Kind"), this.kind), this.about, this.options, this.button, this.problem);
    this.draw();
  }

  draw() {
    const { properties, required = [] } = this.kinds[this.kind.value];
    const names = Object.keys(properties).filter((name) => name !== "kind");
    this.fields = new Map(names.map((name) => [name, field(name, properties[name], { choices: this.choices[name], isRequired: required.includes(name), initial: this.initial.getAll(name) })]));
    this.about.textContent = ABOUT[this.kind.value] ?? "";
    replace(this.options, [...this.fields.values()].map((each) => each.node));
    replace(this.problem);
  }

  get job() {
    const options = [...this.fields].map(([name, { value }]) => [name, value()]).filter(([, value]) => isChosen(value));
    return { kind: this.kind.value, ...Object.fromEntries(options) };
  }

  async submit(event) {
    event.preventDefault();
    this.button.disabled = true;
    try {
      // the key stays until the server has answered: a request that is sent again starts no second job
      const job = await post("/jobs", { key: this.key, job: this.job });
      this.key = newId();
      replace(this.problem);
      this.submitted(job);
    } catch (error) {
      if (error.status) this.key = newId();
      replace(this.problem, error.message, error.remedy ? `; ${error.remedy}` : "");
    }
    this.button.disabled = false;
  }
}

export async function jobForm(submitted, initial) {
  return new JobForm(await get("/job-options"), submitted, initial);
}
