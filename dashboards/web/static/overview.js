// The first page: the data path, this machine, jobs, dead letters.

import { ask, bounds, condition, ranking, seriesOf, within } from "./answers.js";
import { Chart } from "./chart.js";
import { badge, by } from "./dom.js";
import { showHosts } from "./hosts.js";
import { latestLetters } from "./letters.js";
import { keep } from "./live.js";
import { showPath } from "./path.js";
import { change, chosen, follow, link, pace, read, vo, width } from "./scope.js";
import { followVos, origin } from "./vos.js";

const PULSE = 2000; // milliseconds between readings of the counters.
let jobsChart = null;

by("first-shell").textContent = `curl ${location.origin}/v1/records/job -H 'Content-Type: application/json' -d '{"vo": "local", "site": "HERE",
  "local_job_id": "1", "start": "${new Date(Date.now() - 3.6e6).toISOString()}", "end": "${new Date().toISOString()}", "state": "completed", "wall_time": 3600}'`;
by("first-python").textContent = `from datetime import UTC, datetime, timedelta
from siteward.emit import Emitter
from siteward.kinds.job import Job

end = datetime.now(UTC)
with Emitter() as emitter:
    emitter.emit(Job(vo="local", site="HERE", local_job_id="1", start=end - timedelta(hours=1), end=end,
                     state="completed", wall_time=3600))`;

async function showJobs(signal) {
  const { start, end } = chosen();
  const dimension = by("jobs-by").value;
  const question = { kind: "job", measures: by("jobs-measure").value, by: dimension, start, end, top: 10, where: vo() ? [condition("vo", vo())] : [] };
  await within(by("jobs-chart").parentElement, async () => {
    const { over, whole } = await ask(question, width(75, 15), signal);
    const empty = !whole.rows.length;
    by("jobs-empty").hidden = !empty;
    by("jobs-chart").hidden = by("jobs-table").hidden = empty;
    badge(by("jobs-simulated"), empty ? "" : origin(vo()));
    if (empty) return;
    jobsChart ??= new Chart(by("jobs-chart"), { title: "Jobs finished", height: 260 });
    jobsChart.show({ ...bounds(over), mark: "bars", unit: over.units[0], series: seriesOf(over, whole, [dimension]) });
    const pick = (row) => link("/explore", { kind: "job", by: "state", where: [condition(dimension, row.group[0])] });
    by("jobs-table").replaceChildren(ranking(whole, [dimension], { caption: `Jobs by ${dimension}`, share: true, pick }));
  });
}

function chooseJobs() {
  change({ jobs: by("jobs-measure").value === "count" ? null : by("jobs-measure").value, by: by("jobs-by").value === "state" ? null : by("jobs-by").value });
}

by("jobs-measure").addEventListener("change", chooseJobs);
by("jobs-by").addEventListener("change", chooseJobs);

let before = location.search;
let again = () => {}; // set once the first questions are on their way.
follow(() => {
  by("jobs-measure").value = read().get("jobs") ?? "count";
  by("jobs-by").value = read().get("by") ?? "state";
  by("jobs-explore").href = link("/explore", { kind: "job", by: by("jobs-by").value });
  if (location.search !== before) again();
  before = location.search;
});

keep(async (signal) => {
  const pipeline = await showPath(signal);
  by("first-record").hidden = pipeline.stored.total > 0;
}, () => PULSE);
const hosts = keep(showHosts, pace);
const jobs = keep(showJobs, pace);
keep((signal) => latestLetters(by("letters"), signal), () => 5 * PULSE);
by("host").addEventListener("change", hosts);
again = () => {
  hosts();
  jobs();
};
followVos(() => {
  jobs();
  badge(by("path-simulated"), origin());
});
