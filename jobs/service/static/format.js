// Numbers as text. Every page writes them in the same way.

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function whole(value) {
  return value === null || value === undefined ? "–" : WHOLE.format(value);
}

/** Four significant digits, without an exponent where that stays short. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value; // Infinity
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return WHOLE.format(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 }).format(value);
}

/** A function that writes the numbers of one column: all with as many decimals as four digits of the greatest need. */
export function aligned(values, mostDecimals = 4) {
  const known = values.filter((value) => typeof value === "number");
  const size = Math.max(...known.map(Math.abs), 0);
  if (size === 0 || size < 1e-2 || size >= 1e7) return number;
  const decimals = known.every(Number.isInteger) ? 0 : Math.min(Math.max(3 - Math.floor(Math.log10(size)), 0), mostDecimals);
  const format = new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return (value) => (typeof value === "number" ? format.format(value) : number(value));
}

/** Hours; below one hour minutes or seconds. */
export function hours(value) {
  if (value === null || value === undefined) return "–";
  const short = (part) => new Intl.NumberFormat("en-US", { maximumSignificantDigits: part < 100 ? 2 : 3 }).format(Number(part.toPrecision(9))); // sums of the same hours in another order look the same
  if (value === 0) return "0 h";
  if (value >= 100) return `${whole(value)} h`;
  if (value >= 1.5) return `${short(value)} h`;
  return value * 60 >= 1.5 ? `${short(value * 60)} min` : `${short(value * 3600)} s`;
}

const MOMENT = new Intl.DateTimeFormat("en-GB", { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

/** Seconds of the Unix epoch, in the time zone of the browser. */
export function moment(seconds) {
  return seconds === null || seconds === undefined ? "–" : MOMENT.format(1000 * seconds);
}

export function clockTime(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

export function share(part, all) {
  if (!all) return "–";
  const percent = (100 * part) / all;
  return `${percent.toFixed(percent === 0 || percent >= 99.95 ? 0 : 1)} %`;
}

/** `measurements.idle_share` is shown as `idle_share`. */
export function columnName(name) {
  return name.replace(/^measurements\./, "");
}
