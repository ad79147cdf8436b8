// A selection of the page Episodes as the `where` of a manifest, as far as SQL over `episodes` can say it. The tier of an episode is that of most of
// its timesteps, and `tier` of a manifest is that of a segment: such a filter has no SQL.

const TEXTS = ["source", "dataset", "embodiment", "licence_class", "split", "source_split", "action_source", "eef_frame"];
const NUMBERS = ["length", "duration_s", "action_coverage", "source_rate_hz"];
const OPERATORS = { eq: "=", ne: "<>", lt: "<", le: "<=", gt: ">", ge: ">=" };

function literal(column, value) {
  if (NUMBERS.includes(column)) return String(Number(value));
  return `'${value.replaceAll("'", "''")}'`;
}

function term([column, operator, value]) {
  if (operator === "null") return `${column} IS ${value === "true" ? "" : "NOT "}NULL`;
  return `${column} ${OPERATORS[operator]} ${literal(column, value)}`;
}

/** {where}, or {reason} why there is none. `filters` are [column, operator, value]. Several `eq` of one column mean any of them. */
export function whereOf(filters, q) {
  if (q) return { reason: "a search for words has no SQL" };
  const other = filters.find(([column]) => !TEXTS.includes(column) && !NUMBERS.includes(column));
  if (other) return { reason: `the column ${other[0]} is not one of the table episodes` };
  const odd = filters.find(([column, operator, value]) => NUMBERS.includes(column) && operator !== "null" && !Number.isFinite(Number(value)));
  if (odd) return { reason: `${odd[2]} is no number of SQL` };
  const isChoice = ([, operator, value]) => operator === "eq" || (operator === "null" && value === "true");
  const choices = Map.groupBy(filters.filter(isChoice), ([column]) => column);
  const terms = [...[...choices.values()].map((each) => `(${each.map(term).join(" OR ")})`), ...filters.filter((each) => !isChoice(each)).map(term)];
  return { where: terms.join(" AND ") };
}
