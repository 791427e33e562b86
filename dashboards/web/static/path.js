// The data path as a row of stations, and records per second from the difference of its counters.

import { get } from "./api.js";
import { Chart } from "./chart.js";
import { by, el, say } from "./dom.js";
import { countLetters } from "./frame.js";
import { age, short, whole } from "./units.js";

const KEPT = 300_000; // milliseconds of rates kept, over pages too.
const SHORTEST = 60_000; // milliseconds that the chart shows at least.
const SMOOTH = 3; // samples that a rate looks back.
const PAUSE = 15_000; // milliseconds without a sample that make a gap.
const STORE = "siteward.rates";
let samples = restored(); // {at, emitted, collected, stored}
let chart = null;

function restored() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORE) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => Number.isFinite(one?.at)) : [];
  } catch {
    return [];
  }
}

/** Reads the pipeline and shows it; resolves to it. */
export async function showPath(signal) {
  const pipeline = await get("/v1/pipeline", {}, signal);
  const at = Date.parse(pipeline.now);
  const total = (name) => pipeline.queues.reduce((sum, queue) => sum + (queue[name] ?? 0), 0);
  const now = { at, emitted: pipeline.emitted.total, collected: pipeline.collected.total, stored: pipeline.stored.total };
  remember(now);
  const queued = countsRecords(pipeline) ? total("records") : total("ready") + total("unacked");
  const figures = {
    emitted: now.emitted, queued: isTold(pipeline) ? queued : null, collected: now.collected, stored: now.stored,
    "refused-emitters": pipeline.refused.emitters, "refused-gateway": pipeline.refused.gateway, "dead-letters": pipeline.refused.dead_letters,
  };
  for (const [name, value] of Object.entries(figures)) say(document.querySelector(`[data-figure="${name}"]`), whole(value));
  countLetters(pipeline.refused.dead_letters);
  showRates();
  showQueues(pipeline, at);
  showNotes(pipeline);
  showServices(pipeline.services, at);
  by("branch-emitted").classList.toggle("alarm", pipeline.refused.emitters + pipeline.refused.gateway > 0);
  by("branch-collected").classList.toggle("alarm", pipeline.refused.dead_letters > 0);
  return pipeline;
}

function remember(now) {
  if (samples.length && (samples.at(-1).at > now.at || now.stored + now.emitted < samples.at(-1).stored)) samples = [];
  if (samples.at(-1)?.at === now.at) return;
  samples = [...samples.filter((one) => one.at > now.at - KEPT - 4000), now];
  sessionStorage.setItem(STORE, JSON.stringify(samples));
}

/** Records per second over the last few samples of each; none over a pause or where a counter fell. */
function rates(name) {
  const points = [];
  for (let i = 1; i < samples.length; i += 1) {
    const now = samples[i];
    const before = samples.slice(Math.max(0, i - SMOOTH), i).find((one) => one.at > now.at - PAUSE);
    if (!before || now[name] === null || before[name] === null || now[name] < before[name]) continue;
    const seconds = (now.at - before.at) / 1000;
    points.push([now.at, (now[name] - before[name]) / seconds]);
  }
  return points;
}

function showRates() {
  const end = samples.at(-1).at;
  const series = [["emitted", "series-0", true], ["stored", "series-1", false]].map(([name, colour, filled]) => ({ name, colour, filled, points: rates(name) }));
  const start = Math.max(end - KEPT, Math.min(end - SHORTEST, samples[0].at));
  say(by("rates-window"), `last ${age(end - start)}`);
  chart ??= new Chart(by("rates"), { title: "Records per second", height: 150 });
  chart.show({ start, end, width: 3000, mark: "lines", unit: "1", series });
  for (const name of ["emitted", "collected", "stored"]) {
    const recent = samples.filter((one) => one.at >= end - 10_000);
    const seconds = (recent.at(-1).at - recent[0].at) / 1000;
    const rate = seconds > 0 ? Math.max(0, recent.at(-1)[name] - recent[0][name]) / seconds : 0;
    const known = recent.at(-1)[name] !== null;
    say(document.querySelector(`[data-rate="${name}"]`), !known ? "of all VOs, not shown" : seconds > 0 ? `${short(rate)} /s` : "measuring …");
    by(`station-${name}`).classList.toggle("flowing", rate > 0);
  }
}

/** RabbitMQ counts messages and does not know of records. */
function countsRecords({ queues }) {
  return queues.every((queue) => queue.records !== null);
}

/** Who sees some VOs only is not told how much waits of all of them. */
function isTold({ queues }) {
  return queues.every((queue) => queue.ready !== null);
}

function showQueues({ queues }, now) {
  const oldest = queues.map((queue) => queue.oldest).filter(Boolean).map((text) => Date.parse(text));
  say(document.querySelector('[data-note="oldest"]'), oldest.length ? `oldest ${age(now - Math.min(...oldest))}` : !isTold({ queues }) ? "" : countsRecords({ queues }) ? "nothing waits" : "messages");
  const parked = queues.reduce((sum, queue) => sum + queue.parked, 0);
  const names = queues.map((queue) => `${queue.queue} ${queue.bytes === null ? "" : short(queue.bytes, "B")}`.trim()).join(", ");
  say(document.querySelector('[data-note="queues"]'), [names, parked ? `${whole(parked)} unreadable ${parked === 1 ? "message" : "messages"}` : ""].filter(Boolean).join("; ") || "no queue yet");
  by("station-queued").classList.toggle("flowing", by("station-emitted").classList.contains("flowing"));
  by("station-queued").classList.toggle("waiting", oldest.length > 0 && now - Math.min(...oldest) > 10_000);
}

function showNotes({ outcomes, stored, stopped }) {
  const parts = [["replaced", "newer revision"], ["duplicate", "known already"], ["rejected", "rejected"]];
  const said = parts.filter(([name]) => outcomes[name]).map(([name, text]) => `${whole(outcomes[name])} ${text}`);
  say(document.querySelector('[data-note="outcomes"]'), stopped.map((one) => `${one.queue} is stopped: ${one.reason}`).join("; ") || said.join(", ") || "checked and acknowledged");
  by("station-collected").classList.toggle("halted", stopped.length > 0);
  const kinds = Object.entries(stored.kinds).sort((a, b) => b[1] - a[1]);
  say(document.querySelector('[data-note="kinds"]'), kinds.map(([name, count]) => `${name} ${short(count)}`).join(", ") || "can be asked for");
}

function showServices(services, now) {
  const text = (one) => `${one.name}${one.restarts ? `, restarted ${one.restarts} ×` : ""}`;
  by("services").replaceChildren(...services.map((one) =>
    el("li", { class: one.state === "running" ? "service" : "service service-down", title: `process ${one.pid ?? "–"}, since ${one.since ? age(now - Date.parse(one.since)) : "–"}` },
      text(one), one.state === "running" ? "" : `: ${one.state}`)));
}
