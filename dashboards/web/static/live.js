// Keeps figures up to date: asks again and again, rests while nobody looks, and says so when the server is away.

import { Away } from "./api.js";
import { by, say } from "./dom.js";
import { age, clock, moment } from "./units.js";

const tasks = new Set();
const RETRY = 2000; // milliseconds between attempts while the server is away.
let paused = false;
let answered = 0; // when the server last answered, by this browser's clock.
let awaySince = 0;

/** Runs `work(signal)` now and again `pace()` milliseconds after each end; returns a function that runs it at once. */
export function keep(work, pace) {
  const task = { work, pace, timer: 0, running: null };
  tasks.add(task);
  run(task);
  return () => run(task);
}

const resting = () => paused || document.hidden;

async function run(task) {
  clearTimeout(task.timer);
  task.running?.abort();
  const running = (task.running = new AbortController());
  let delay = RETRY;
  try {
    await task.work(running.signal);
    heard();
    delay = task.pace();
  } catch (error) {
    if (running.signal.aborted) return;
    if (error instanceof Away) missed();
    else {
      heard();
      delay = Math.max(RETRY, task.pace());
      if (!error.status) throw error;
    }
  } finally {
    if (task.running === running) {
      task.running = null;
      if (!resting()) task.timer = setTimeout(run, delay, task);
    }
  }
}

/** The server answered. */
export function heard() {
  answered = Date.now();
  awaySince = 0;
  show();
}

function missed() {
  awaySince ||= Date.now();
  show();
}

function show() {
  const state = awaySince ? "away" : resting() ? "paused" : answered ? "live" : "starting";
  by("live").dataset.state = state;
  say(by("live-word"), { away: "no answer", paused: "paused", live: "live", starting: "connecting" }[state]);
  if (answered) {
    say(by("live-time"), `${clock(answered)} UTC`);
    by("live-time").dateTime = new Date(answered).toISOString();
    by("live-time").title = `Last update ${moment(answered)}`;
  }
  by("away").hidden = !awaySince;
  if (awaySince) {
    const figures = answered ? `The figures below are of ${clock(answered)} UTC, ${age(Date.now() - answered)} old.` : "";
    say(by("away"), `The server does not answer. ${figures} Trying again every ${RETRY / 1000} s.`);
  }
}

function wake() {
  show();
  for (const task of tasks) {
    if (resting()) clearTimeout(task.timer);
    else run(task);
  }
}

by("pause").addEventListener("click", () => {
  paused = !paused;
  by("pause").setAttribute("aria-pressed", String(paused));
  say(by("pause"), paused ? "Resume" : "Pause");
  wake();
});
document.addEventListener("visibilitychange", wake);
