// The machines that the host probe watches: processors, load, memory, disk and network.

import { get } from "./api.js";
import { Chart } from "./chart.js";
import { bounds, condition, within } from "./answers.js";
import { by, el, options, say } from "./dom.js";
import { chosen, width } from "./scope.js";
import { short } from "./units.js";

const COLUMNS = ["mean:cpu_used", "mean:load", "mean:memory_used", "mean:disk_used", "mean:network_received", "mean:network_sent", "mean:processes"];
const LIMITS = ["last:processors", "last:memory_total", "last:disk_total"];
// parts: [name, column, colour]; limit: position in LIMITS of what there is in all.
const CHARTS = [
  { title: "Processors in use", unit: "%", parts: [["in use", 0, 0]], limit: null },
  { title: "Load", unit: "1", parts: [["load", 1, 10]], limit: 0 },
  { title: "Memory in use", unit: "B", parts: [["in use", 2, 2]], limit: 1 },
  { title: "Disk in use", unit: "B", parts: [["in use", 3, 6]], limit: 2 },
  { title: "Network", unit: "B/s", parts: [["received", 4, 0], ["sent", 5, 1]], limit: null },
  { title: "Processes", unit: "1", parts: [["alive", 6, 8]], limit: null },
];
let charts = null;

function frames() {
  return CHARTS.map(({ title }) => {
    const body = el("div");
    const now = el("span", { class: "muted" });
    by("hosts").append(el("div", { class: "chart-block" }, el("h3", { text: `${title} ` }, now), body));
    return { now, chart: new Chart(body, { title, height: 130 }) };
  });
}

/** Reads and shows the figures of one machine. */
export async function showHosts(signal) {
  await within(by("hosts").parentElement, async () => {
    const { start, end } = chosen();
    const question = { kind: "host", start, end, where: ["simulated=false"] };
    const whole = await get("/v1/query", { ...question, measures: LIMITS.join(), by: "host", width: 0, top: 50 }, signal);
    const names = whole.rows.filter((row) => !row.other).map((row) => String(row.group[0]));
    by("host-empty").hidden = names.length > 0;
    by("hosts").hidden = !names.length;
    by("host-choice").hidden = names.length < 2;
    if (!names.length) return;
    options(by("host"), names.map((name) => [name, name]));
    const host = by("host").value;
    say(by("host-title"), names.length > 1 ? "Machines" : "This machine");
    say(by("host-note"), `${host}, from the host probe, whatever the VO`);
    const over = await get("/v1/query", { ...question, measures: COLUMNS.join(), where: ["simulated=false", condition("host", host)], width: width(240, 10) }, signal);
    draw(over, whole.rows.find((row) => row.group[0] === host)?.values ?? []);
  });
}

function draw(over, limits) {
  charts ??= frames();
  const rows = over.rows.map((row) => [Date.parse(row.time), row.values]);
  CHARTS.forEach(({ unit, parts, limit }, i) => {
    const series = parts.map(([name, column, colour]) => ({
      name, colour: `series-${colour}`, filled: parts.length === 1,
      points: rows.filter(([, values]) => values[column] !== null).map(([time, values]) => [time, values[column]]),
    }));
    const most = limit === null ? null : limits[limit];
    charts[i].chart.show({ ...bounds(over), mark: "lines", unit, series, limit: most ? { value: Number(most) } : null });
    const latest = series.map((one) => `${parts.length > 1 ? `${one.name} ` : ""}${short(one.points.at(-1)?.[1], unit)}`).join(", ");
    say(charts[i].now, most ? `${latest} of ${short(most, unit)}${unit === "1" ? " processors" : ""}` : latest);
  });
}
