// The list of dead letters, for the first page and their own.

import { get } from "./api.js";
import { within } from "./answers.js";
import { el, table } from "./dom.js";
import { link } from "./scope.js";
import { age, moment, whole } from "./units.js";

const PAGE = 1000; // the most that the API gives at once.
const reached = new Map(); // state to the number after which the last letters stand.

/** The last few, with a word of comfort where there are none. */
export async function latestLetters(host, signal, which = { limit: 5, state: "open" }) {
  await within(host, async () => {
    const { total, dead_letters: letters } = await newest(which, signal);
    const rest = total > letters.length ? [el("p", { class: "panel-note more", text: `The ${whole(letters.length)} latest of ${whole(total)}.` })] : [];
    host.replaceChildren(...(letters.length ? [letterTable(letters), ...rest] : [nothing(which.state)]));
  });
}

/** The last letters, newest first. The API counts upwards: the way to the end is gone once and then remembered. */
async function newest({ limit, state }, signal) {
  let found = await walk(limit, state, reached.get(state) ?? 0, signal);
  if (found.letters.length < Math.min(limit, found.total)) found = await walk(limit, state, 0, signal);
  reached.set(state, found.letters.length ? found.letters[0].number - 1 : 0);
  return { total: found.total, dead_letters: found.letters.reverse() };
}

async function walk(limit, state, after, signal) {
  let letters = [];
  for (;;) {
    const { total, dead_letters: page } = await get("/v1/dead-letters", { limit: PAGE, state, after }, signal);
    letters = [...letters, ...page].slice(-limit);
    if (page.length < PAGE) return { total, letters };
    after = page.at(-1).number;
  }
}

function nothing(state) {
  const text = state === "open" ? "None waits for a decision: every record that reached a collector was accepted, or has been dealt with." : `None is ${state || "kept"}.`;
  return el("div", { class: "empty" }, el("p", { text }));
}

/** Letters as a table; each number leads to its page. */
export function letterTable(letters) {
  const head = [{ text: "No.", number: true }, { text: "Refused" }, { text: "Kind" }, { text: "Reason" }, { text: "Producer" }, { text: "Queue" }, { text: "State" }];
  const rows = letters.map((letter) => [
    el("a", { href: link("/dead-letters", { number: letter.number }), text: whole(letter.number) }),
    el("time", { datetime: letter.last_seen, title: moment(letter.last_seen), text: `${age(Date.now() - Date.parse(letter.last_seen))} ago` }),
    letter.kind || "unreadable",
    reason(letter),
    letter.producer || "unknown",
    letter.queue,
    letter.state,
  ]);
  return table("Dead letters", head, rows);
}

/** Field, value and what is wrong, as the collector said it. */
export function reason(letter) {
  const parts = el("span", { class: "reason" });
  if (letter.field) parts.append(el("code", { text: letter.field }), " ");
  parts.append(letter.reason);
  if (letter.value) parts.append(" ", el("code", { class: "value", text: String(letter.value).slice(0, 120) }));
  return parts;
}
