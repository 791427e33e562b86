// Any question about any kind, written into the page's address so that it can be sent to somebody.

import { Away, get, getText, Problem } from "./api.js";
import { ask, bounds, condition, ranking, roughly, seriesOf, within } from "./answers.js";
import { Chart } from "./chart.js";
import { badge, by, el, options, say, table } from "./dom.js";
import { readKinds } from "./kinds_list.js";
import { keep } from "./live.js";
import { change, chosen, follow, link, pace, read, vo, width } from "./scope.js";
import { counted, exact, moment, named } from "./units.js";
import { followVos, origin } from "./vos.js";

const FUNCTIONS = {
  count: "number of records", sum: "sum", mean: "mean", min: "smallest", max: "largest", rate: "sum per second", last: "latest (snapshots)",
  p50: "median", p90: "90th percentile", p95: "95th percentile", p99: "99th percentile",
};
const ADDS_UP = ["count", "sum", "rate"]; // functions whose groups may be stacked.
const LISTED = 20; // latest records shown.
const LINGER = 60_000; // milliseconds for which what is saved stays readable.
let kinds = [];
let chart = null;

/** The question in the address, with what is missing filled in. */
function question() {
  const parameters = read();
  const kind = kinds.find((one) => one.name === parameters.get("kind")) ?? kinds.find((one) => one.name === "job") ?? kinds[0];
  const measures = [...kind.measures, ...kind.products];
  const wanted = parameters.get("function") in FUNCTIONS ? parameters.get("function") : kind.shape === "snapshot" ? "mean" : "count";
  const measure = (measures.find((one) => one.name === parameters.get("measure")) ?? measures[0])?.name ?? "";
  const dimensions = parameters.getAll("by").filter((name) => kind.dimensions.some((one) => one.name === name));
  const count = wanted === "count" || !measure;
  const given = parameters.get("top");
  return {
    kind, function: count ? "count" : wanted, measure, dimensions: parameters.has("by") ? dimensions : [usual(kind)],
    filters: parameters.getAll("where"), top: ["5", "10", "20", "50"].includes(given) ? given : "10",
    mark: parameters.get("mark") ?? (count || ADDS_UP.includes(wanted) ? "bars" : "lines"),
  };
}

const usual = (kind) => ["site", "host", "state"].find((name) => kind.dimensions.some((one) => one.name === name)) ?? "vo";

function drawForm() {
  if (!kinds.length) return;
  const now = question();
  const fields = (list) => list.map((one) => [one.name, one.name.replaceAll("_", " ")]);
  const dimensions = fields(now.kind.dimensions);
  options(by("kind"), kinds.map((one) => [one.name, one.name]), now.kind.name);
  options(by("function"), Object.entries(FUNCTIONS).filter(([name]) => name !== "last" || now.kind.shape === "snapshot"), now.function);
  options(by("measure"), [...now.kind.measures, ...now.kind.products].map((one) => [one.name, `${one.name.replaceAll("_", " ")}${one.unit === "1" ? "" : `, ${one.unit}`}`]), now.measure);
  by("measure").disabled = now.function === "count";
  options(by("by"), [["-", "nothing"], ...dimensions], now.dimensions[0] ?? "-");
  options(by("by-second"), [["-", "nothing"], ...dimensions.filter(([name]) => name !== now.dimensions[0])], now.dimensions[1] ?? "-");
  by("by-second").disabled = !now.dimensions.length;
  options(by("filter-field"), [...dimensions, ...fields(now.kind.measures)]);
  by("top").value = now.top;
  by("mark").value = now.mark;
  say(by("question-doc"), now.kind.doc);
  drawFilters(now);
}

function drawFilters(now) {
  const remove = (filter) => change({ where: now.filters.filter((one) => one !== filter) });
  by("filters").replaceChildren(...now.filters.map((filter) => el("li", { class: "chip" }, el("span", { text: filter }),
    el("button", { type: "button", class: "chip-remove", "aria-label": `Remove filter ${filter}`, text: "×", click: () => remove(filter) }))));
}

async function answer(signal) {
  kinds = await readKinds(signal);
  drawForm();
  const now = question();
  const { start, end } = chosen();
  const where = [...now.filters, ...(vo() ? [condition("vo", vo())] : [])];
  const measures = now.function === "count" ? "count" : `${now.function}:${now.measure}`;
  const asked = { kind: now.kind.name, measures, by: now.dimensions.join(), where, start, end, top: now.top };
  by("answer-json").href = `/v1/query?${new URLSearchParams(flat({ ...asked, width: width(90, 10) }))}`;
  await Promise.all([
    within(by("answer-empty").parentElement, async () => showAnswer(now, await ask(asked, width(now.mark === "bars" ? 75 : 200, 10), signal))),
    within(by("records").parentElement, async () => showRecords(now.kind, await get(`/v1/records/${encodeURIComponent(now.kind.name)}`, { where, start, end, limit: LISTED }, signal))),
  ]);
}

/** Saves the answer: a link alone would ask of no VO, and be refused where somebody has to choose one. */
async function save(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab or window is wanted.
  event.preventDefault();
  const { href } = event.currentTarget;
  const text = await within(by("answer-empty").parentElement, () => getText(href));
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href: url, download: `${new URL(href).searchParams.get("kind")}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), LINGER); // browsers read it after the click.
}

const flat = (parameters) => Object.entries(parameters).flatMap(([name, value]) => [value].flat().filter((one) => one !== "").map((one) => [name, one]));

function showAnswer(now, { over, whole: all }) {
  const empty = !all.rows.length;
  by("answer-empty").hidden = !empty;
  by("answer-chart").hidden = by("answer-table").hidden = empty;
  badge(by("answer-simulated"), empty ? "" : origin(vo()));
  say(by("answer-empty-text"), `No ${now.kind.name} records meet this in the chosen time range.`);
  const rough = roughly(all) ? `; approximate: ${roughly(all)}` : "";
  const cycles = all.incomplete ? `; ${counted(all.incomplete, "incomplete cycle")} left out` : "";
  say(by("answer-note"), `${moment(all.query.start, false)} to ${moment(all.query.end, false)}; ${counted(all.groups, "group")}, ${Math.max(1, Math.round(all.took_ms))} ms${cycles}${rough}`);
  if (empty) return;
  chart ??= new Chart(by("answer-chart"), { title: "Answer", height: 320 });
  chart.title = `${FUNCTIONS[now.function]} ${now.function === "count" ? "" : `of ${now.measure}`} of ${now.kind.name}`;
  chart.show({ ...bounds(over), mark: now.mark, unit: over.units[0], series: seriesOf(over, all, now.dimensions) });
  const pick = (row) => link("/explore", { ...Object.fromEntries([...read()].filter(([name]) => name !== "where")), where: [...now.filters, ...now.dimensions.map((name, i) => condition(name, row.group[i]))] });
  const share = ["count", "sum"].includes(now.function);
  by("answer-table").replaceChildren(ranking(all, now.dimensions, { caption: roughly(all) ? "Approximate figures" : "Exact totals", share, pick }));
}

function showRecords(kind, { records }) {
  if (!records.length) {
    by("records").replaceChildren(el("div", { class: "empty" }, el("p", { text: "No record in this time range meets the filters." })));
    return;
  }
  // Most fields of a wide kind are empty in most records, and a table of nothing is wide too.
  const isKnown = (name) => records.some(({ fields }) => fields[name] !== null && fields[name] !== "");
  const names = Object.keys(records[0].fields).filter((name) => !["revision", "cycle_size"].includes(name) && isKnown(name));
  const units = new Map(kind.measures.map((one) => [one.name, one.unit]));
  const head = [...names.map((name) => ({ text: name.replaceAll("_", " "), number: units.has(name) })), { text: "producer" }, { text: "received" }, { text: "id" }];
  const cell = (name, value) => (kind.times.includes(name) && value ? moment(value).replace(" UTC", "") : units.has(name) && value !== null ? exact(value, units.get(name)) : named(value));
  by("records").replaceChildren(table("Latest records; times in UTC", head, records.map((record) => [
    ...names.map((name) => cell(name, record.fields[name])).map((text) => el("span", { text, title: text.length > 30 ? text : undefined })), record.producer, moment(record.received).replace(" UTC", ""), el("code", { text: record.id }),
  ])));
}

const clean = { by: null, where: null, measure: null, function: null, mark: null };
by("kind").addEventListener("change", () => change({ ...clean, kind: by("kind").value }));
by("function").addEventListener("change", () => change({ kind: by("kind").value, function: by("function").value, mark: null }));
for (const name of ["measure", "top", "mark"]) by(name).addEventListener("change", () => change({ [name]: by(name).value }));
for (const id of ["by", "by-second"]) by(id).addEventListener("change", () => change({ by: [by("by").value, by("by").value === "-" ? "" : by("by-second").value].filter((name, i) => name !== "-" || !i) }));
by("question").addEventListener("submit", (event) => event.preventDefault());
by("answer-json").addEventListener("click", (event) => save(event).catch((error) => {
  // The panel says what the server did not want, and the page that it is away.
  if (!(error instanceof Problem || error instanceof Away)) throw error;
}));
by("filter-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const operator = by("filter-operator").value;
  const value = by("filter-value").value;
  const filter = operator.endsWith("=") ? condition(by("filter-field").value + operator.slice(0, -1), value) : by("filter-field").value + operator + value;
  by("filter-value").value = "";
  change({ where: [...new Set([...read().getAll("where"), filter])] });
});

async function suggest() {
  const field = by("filter-field").value;
  const kind = question().kind;
  if (!kind.dimensions.some((one) => one.name === field)) return by("filter-values").replaceChildren();
  const { values } = await get(`/v1/values/${encodeURIComponent(kind.name)}/${encodeURIComponent(field)}`, { limit: 200 });
  return by("filter-values").replaceChildren(...values.map((value) => el("option", { value: value ?? "" })));
}

by("filter-value").addEventListener("focus", () => suggest().catch(() => by("filter-values").replaceChildren())); // suggestions are a convenience.
const update = keep(answer, pace);
let before = location.search;
follow(() => {
  drawForm();
  if (location.search !== before) update();
  before = location.search;
});
followVos(update); // the badges depend on them.
