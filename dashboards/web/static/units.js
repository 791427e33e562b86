// Numbers and times as people read them: short in charts, exact on hover, always with their unit, always in UTC.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const EXACT = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
const BINARY = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi"];
const DECIMAL = ["", "k", "M", "G", "T", "P", "E"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Units of which so many make another one: sums are integers, people read that one. */
const PARTS = {
  m1: [1000, "1"],
  u1: [1_000_000, "1"],
  ms: [1000, "s"],
  us: [1_000_000, "s"],
  mHS06: [1000, "HS06"],
  mHS23: [1000, "HS23"],
  "mHS06.s": [1000, "HS06.s"],
  "mHS23.s": [1000, "HS23.s"],
  "uHS06.s": [1_000_000, "HS06.s"],
  "uHS23.s": [1_000_000, "HS23.s"],
  "msi2k.s": [1000, "si2k.s"],
};

/** Three or four significant digits, never in powers of ten. */
function digits(number) {
  const size = Math.abs(number);
  if (size === 0) return "0";
  if (size >= 100) return WHOLE.format(number);
  if (size < 0.001) return number.toPrecision(2);
  return String(Number(number.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3)));
}

function prefixed(number, base, prefixes, unit) {
  let power = 0;
  while (Math.abs(number) >= base * 0.9995 && power < prefixes.length - 1) {
    number /= base;
    power += 1;
  }
  return `${digits(number)}${power || unit ? " " : ""}${prefixes[power]}${unit}`.trim();
}

/** How many of a unit make what people read, and its name: [1000, "HS23.s"] for "mHS23.s". */
export const readable = (unit) => (unit in PARTS ? PARTS[unit] : [1, unit]);

/** An integer of thousandths or millionths, to the last of them: "15.3" for 15300. */
function divided(value, parts) {
  const size = BigInt(value) < 0n ? -BigInt(value) : BigInt(value);
  const rest = String(size % BigInt(parts)).padStart(String(parts).length - 1, "0").replace(/0+$/, "");
  return `${BigInt(value) < 0n ? "-" : ""}${WHOLE.format(size / BigInt(parts))}${rest && `.${rest}`}`;
}

function duration(seconds) {
  const size = Math.abs(seconds);
  if (size < 120) return `${digits(seconds)} s`;
  if (size < 7200) return `${digits(seconds / 60)} min`;
  return size < 3.6e9 ? `${digits(seconds / 3600)} h` : prefixed(seconds / 3600, 1000, DECIMAL, "h");
}

/** A value for a chart's axis or a table: "12.4 GiB", "3.5 h", "41 %", "1,204". */
export function short(value, unit = "1") {
  if (value === null || value === undefined) return "–";
  if (unit in PARTS) return short(Number(value) / PARTS[unit][0], PARTS[unit][1]);
  const number = Number(value);
  if (unit === "%") return `${digits(number * 100)} %`;
  if (unit === "1") return Math.abs(number) < 1e6 ? digits(number) : prefixed(number, 1000, DECIMAL, "");
  if (unit === "s") return duration(number);
  if (unit === "B" || unit === "B/s") return prefixed(number, 1024, BINARY, unit);
  return prefixed(number, 1000, DECIMAL, unit);
}

/** The whole value: every digit of an integer, with its base unit. */
export function exact(value, unit = "1") {
  if (value === null || value === undefined) return "unknown";
  if (unit === "%") return `${EXACT.format(Number(value) * 100)} %`;
  const inexact = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) ? "about " : "";
  const isWhole = typeof value === "bigint" || Number.isInteger(value);
  const [parts, name] = readable(unit);
  const text = parts === 1 ? (isWhole ? WHOLE : EXACT).format(value) : isWhole ? divided(value, parts) : EXACT.format(value / parts);
  return inexact + (name === "1" ? text : `${text} ${name}`);
}

/** "1,204,551": counters are shown whole. */
export const whole = (value) => (value === null || value === undefined ? "–" : WHOLE.format(value));

/** How many of what: "1 group", "1,204 groups". */
export const counted = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

const two = (number) => String(number).padStart(2, "0");

/** "14:05:31" */
export function clock(time, seconds = true) {
  const date = new Date(time);
  return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}${seconds ? `:${two(date.getUTCSeconds())}` : ""}`;
}

/** "12 Mar" */
export function day(time) {
  const date = new Date(time);
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`;
}

/** "12 Mar 2026 14:05:31 UTC" */
export function moment(time, seconds = true) {
  const date = new Date(time);
  return `${day(time)} ${date.getUTCFullYear()} ${clock(time, seconds)} UTC`;
}

/** "8 s", "3 min", "2.5 h", "4 d": how long ago or how old. */
export function age(milliseconds) {
  const seconds = Math.max(0, milliseconds / 1000);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${digits(Math.round(seconds / 360) / 10)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** The name of a group's value: "" and null have words of their own. */
export function named(value) {
  if (value === null || value === undefined) return "unknown";
  if (value === "") return "(none)";
  if (value === true) return "yes";
  if (value === false) return "no";
  return String(value);
}
