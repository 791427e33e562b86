// From an answer of /v1/query to what is drawn: series over time, and a ranked table with exact totals.

import { get, Problem } from "./api.js";
import { colour, spread } from "./colours.js";
import { el, table } from "./dom.js";
import { exact, named, short } from "./units.js";
import { isSimulated } from "./vos.js";

/** Asks a question twice: over time for the chart, and in one bucket for exact totals per group. */
export async function ask(question, width, signal) {
  const [over, whole] = await Promise.all([
    get("/v1/query", { ...question, width }, signal),
    get("/v1/query", { ...question, width: 0 }, signal),
  ]);
  return { over, whole };
}

/** The group of a row in words. */
export const title = (row) => (row.other ? "Other" : row.group.length ? row.group.map(named).join(" · ") : "all");

function shade(row, dimensions) {
  if (row.other) return "series-other";
  return dimensions.length ? colour(dimensions.join(), row.group.join("\t")) : "series-0";
}

/** Series for a chart in the order of the ranking, Other last. */
export function seriesOf(over, whole, dimensions) {
  const ranking = ranked(whole);
  spread(dimensions.join(), ranking.filter((row) => !row.other).map((row) => row.group.join("\t")));
  const known = new Map(ranking.map((row) => [key(row), { name: title(row), colour: shade(row, dimensions), points: [] }]));
  for (const row of over.rows) {
    const value = row.values[0];
    if (value !== null && row.time) known.get(key(row))?.points.push([Date.parse(row.time), value]);
  }
  return [...known.values()];
}

const key = (row) => (row.other ? "other" : JSON.stringify(row.group));

/** Rows of an answer in one bucket, largest first, Other last. */
export function ranked(whole) {
  return [...whole.rows].sort((a, b) => a.other - b.other || Number(b.values[0] ?? -Infinity) - Number(a.values[0] ?? -Infinity));
}

/** The condition that a dimension has a value, or that it is unknown, as the API takes it. */
export const condition = (dimension, value) => `${dimension}=${String(value ?? "").replace(/[\\|]/g, "\\$&")}`;

/** How far an answer's figures may be off, such as "≈ ±0.1 %"; "" where they are exact. */
export const roughly = ({ errors: [error] }) => (error ? `≈ ±${Number((error * 100).toPrecision(2))} %` : "");

/** The ranked table: swatch, group, share, exact figures; the last line is the answer's own total. */
export function ranking(whole, dimensions, { caption, share, pick }) {
  const [unit] = whole.units;
  const total = Number(whole.totals[0]);
  const head = [
    { text: dimensions.length ? dimensions.map((name) => name.replaceAll("_", " ")).join(" · ") : "all" },
    ...(share ? [{ text: "share", number: true }] : []),
    { text: [whole.columns[0].replace(":", " ").replaceAll("_", " "), roughly(whole)].join(" ").trim(), number: true },
  ];
  const rows = ranked(whole).map((row) => [
    groupCell(row, dimensions, whole, pick),
    ...(share ? [total ? `${((Number(row.values[0]) / total) * 100).toFixed(1)} %` : "–"] : []),
    figure(row.values[0], unit),
  ]);
  const last = [el("b", { text: "Total" }), ...(share ? [""] : []), figure(whole.totals[0], unit)];
  const made = table(caption, head, [...rows, last]);
  made.querySelector("tbody tr:last-child").className = "total";
  return made;
}

function groupCell(row, dimensions, whole, pick) {
  const text = row.other ? `Other (${whole.groups - whole.rows.filter((one) => !one.other).length} more)` : title(row);
  const name = pick && !row.other && dimensions.length && !row.group.includes(null)
    ? el("a", { href: pick(row), text })
    : el("span", { text });
  return el("span", { class: "group" }, el("span", { class: `swatch ${shade(row, dimensions)}`, "aria-hidden": "true" }), name,
    ...(!row.other && dimensions.some((one, i) => one === "vo" && isSimulated(row.group[i] || "-")) ? [el("span", { class: "badge", text: "simulated" })] : []));
}

/** A figure as people read it, with every digit on hover. */
export function figure(value, unit) {
  const text = unit === "1" && Number.isInteger(Number(value)) && value !== null ? exact(value, unit) : short(value, unit);
  return el("span", { text, title: exact(value, unit) });
}

/** Bounds of the window an answer was computed over, milliseconds. */
export function bounds(answer) {
  return { start: Date.parse(answer.query.start), end: Date.parse(answer.query.end), width: answer.query.width * 1000 };
}

/** Runs work and says within a panel what the server did not want; other errors go on. */
export async function within(host, work) {
  try {
    const result = await work();
    host.querySelector(":scope > .problem")?.remove();
    return result;
  } catch (error) {
    if (error instanceof Problem) {
      const note = host.querySelector(":scope > .problem") ?? el("p", { class: "problem", role: "status" });
      note.textContent = error.message;
      host.append(note);
    }
    throw error;
  }
}
