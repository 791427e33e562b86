// The frame of every page: time range, VO, links that keep both, and the notice where figures are simulated.

import { by, el, say } from "./dom.js";
import { showAccount } from "./account.js";
import { get } from "./api.js";
import { choose, offer } from "./choice.js";
import { readKinds } from "./kinds_list.js";
import { keep } from "./live.js";
import { change, chosen, follow, link, RANGES } from "./scope.js";
import { whole } from "./units.js";
import { followVos, readVos } from "./vos.js";

const EVERY = 5000; // milliseconds between looks for new VOs, at least …
const SHARE = 50; // … and so many times what a look takes.
let took = 0;
let vos = [];

function drawRanges() {
  const { name } = chosen();
  const button = (one) => el("button", {
    type: "button", text: one.text, "aria-pressed": String(one.name === name),
    click: () => change({ range: one.name, start: null, end: null }),
  });
  const custom = el("button", {
    type: "button", text: "Custom", "aria-pressed": String(name === "custom"), "aria-expanded": String(!by("custom").hidden),
    "aria-controls": "custom", click: openCustom,
  });
  const focused = [...by("ranges").children].indexOf(document.activeElement);
  by("ranges").replaceChildren(...RANGES.map(button), custom);
  by("ranges").children[focused]?.focus();
}

function openCustom() {
  const open = by("custom").hidden;
  by("custom").hidden = !open;
  if (open) {
    const { seconds, start, end, moving } = chosen();
    const until = moving ? Date.now() : Date.parse(end);
    by("custom-start").value = minute(moving ? until - seconds * 1000 : Date.parse(start));
    by("custom-end").value = minute(until);
    by("custom-start").focus();
  }
  drawRanges();
}

const minute = (time) => new Date(time).toISOString().slice(0, 16);

by("custom").addEventListener("submit", (event) => {
  event.preventDefault();
  const [start, end] = [`${by("custom-start").value}:00Z`, `${by("custom-end").value}:00Z`];
  const valid = Date.parse(end) > Date.parse(start);
  say(by("custom-problem"), valid ? "" : "The end must lie after the start.");
  if (!valid) return;
  by("custom").hidden = true;
  change({ range: null, start, end });
});

by("custom").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  by("custom").hidden = true;
  drawRanges();
  by("ranges").lastElementChild.focus();
});

function drawNotice() {
  const made = vos.filter((one) => one.simulated).map((one) => one.name);
  by("demo").hidden = !made.length;
  const list = made.length > 5 ? `${made.slice(0, 4).join(", ")} and ${made.length - 4} more` : made.join(", ");
  say(by("demo-text"), `${made.length === 1 ? "The VO" : "The VOs"} ${list} ${made.length === 1 ? "is" : "are"} simulated: their sites, jobs and figures are invented. Everything else is measured.`);
}

function drawLinks() {
  for (const anchor of document.querySelectorAll("a[data-keeps-scope]")) {
    anchor.href = link(anchor.getAttribute("href").split("?")[0]);
  }
}

/** Shows the number of dead letters in the navigation. */
export function countLetters(count) {
  by("dead-letter-count").hidden = !count;
  say(by("dead-letter-count"), whole(count));
}

followVos((read) => {
  vos = read;
  offer(read);
  drawNotice();
});
follow(() => {
  drawRanges();
  drawLinks();
});
keep(async (signal) => {
  const kinds = await readKinds(signal);
  const began = performance.now();
  await readVos(kinds.map((kind) => kind.name), signal);
  took = performance.now() - began;
}, () => Math.max(EVERY, SHARE * took));
choose().then(showAccount).catch(() => {}); // What is refused, the page says already.
if (document.querySelector("#station-emitted") === null) {
  keep(async (signal) => countLetters((await get("/v1/pipeline", {}, signal)).refused.dead_letters), () => 10_000);
}
