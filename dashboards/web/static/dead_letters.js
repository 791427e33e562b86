// The page of dead letters: the list, and one letter with what can be done about it.

import { get, postText, Problem } from "./api.js";
import { within } from "./answers.js";
import { by, el, say } from "./dom.js";
import { latestLetters, reason } from "./letters.js";
import { keep } from "./live.js";
import { change, follow, read } from "./scope.js";
import { age, moment } from "./units.js";

const MANY = 200; // letters listed.
const DONE = {
  fix: "The corrected record is on its way to the stores.", replay: "The record is on its way to the stores again.",
  discard: "Discarded. The record and your reason are kept here.",
};
let shown = null; // number of the letter in the form, so that an update never overwrites what is being typed.

const chosenNumber = () => read().get("number");
const address = (number) => `/v1/dead-letters/${encodeURIComponent(number)}`;

async function work(signal) {
  const number = chosenNumber();
  by("list").hidden = Boolean(number);
  by("letter").hidden = !number;
  if (!number) {
    shown = null;
    by("state").value = read().get("state") ?? "open";
    await latestLetters(by("letters"), signal, { limit: MANY, state: by("state").value });
  } else if (shown !== number) {
    await within(by("letter"), async () => {
      by("letter-form").hidden = true;
      say(by("letter-title"), `Dead letter ${number}`);
      showLetter(await get(address(number), {}, signal));
      shown = number;
    });
  }
}

function showLetter(letter) {
  const facts = {
    Reason: reason(letter), State: letter.state, Kind: letter.kind || "unreadable", VO: letter.vo || "unknown",
    Refused: `${moment(letter.last_seen)}, ${age(Date.now() - Date.parse(letter.last_seen))} ago${letter.times > 1 ? `; ${letter.times} times since ${moment(letter.first_seen)}` : ""}`,
    By: `the collector of queue ${letter.queue}, on ${letter.stage === "write" ? "writing" : "checking"}`,
    Producer: letter.producer || "unknown", "Record id": el("code", { text: letter.record }), Message: el("code", { text: letter.message }),
  };
  by("letter-facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [el("dt", { text: name }), el("dd", {}, value)]));
  by("letter-original").value = spaced(letter.original);
  by("letter-form").hidden = !["open", "discarded"].includes(letter.state);
  by("letter-audit").replaceChildren(...letter.audit.map((one) => el("li", { text:
    `${moment(one.at)}: ${one.action} by ${one.who}${one.note ? ` (${one.note})` : ""}${one.bytes ? `, sent as ${one.bytes}` : ""}` })));
}

/** One field per line, every other character as it was: numbers must not pass through this browser's own. */
function spaced(text) {
  let depth = 0;
  return text.replace(/"(?:[^"\\]|\\.)*"|[{}[\],]\s*/gs, (token) => {
    if (token.startsWith('"')) return token;
    const mark = token[0];
    if (mark === "{" || mark === "[") depth += 1;
    const line = depth === 1 && mark !== "[";
    if (mark === "}" || mark === "]") depth -= 1;
    if (!line || mark === "]") return token;
    return mark === "}" ? "\n}" : `${mark}\n  `;
  });
}

/** The request's body; a corrected record goes as it was typed, so that no digit of an integer is lost. */
function body(action) {
  const said = { who: by("letter-who").value.trim() || "operator", note: by("letter-why").value.trim() };
  if (action !== "fix") return JSON.stringify(said);
  const typed = by("letter-original").value;
  const record = JSON.parse(typed);
  if (record === null || typeof record !== "object" || Array.isArray(record)) throw new SyntaxError("a record is an object, in braces");
  return `${JSON.stringify(said).slice(0, -1)}, "record": ${typed}}`;
}

async function act(action) {
  const number = chosenNumber();
  if (action === "discard" && !confirm(`Discard dead letter ${number}? The record will not be stored.`)) return;
  try {
    const letter = await postText(`${address(number)}/${action}`, body(action));
    say(by("letter-result"), DONE[action]);
    showLetter(letter);
  } catch (error) {
    if (error instanceof SyntaxError) say(by("letter-result"), `This is not a record in JSON yet: ${error.message}`);
    else if (error instanceof Problem || error.name === "Away") say(by("letter-result"), error.message);
    else throw error;
  }
}

for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => act(button.dataset.action));
by("letter-form").addEventListener("submit", (event) => event.preventDefault());
by("state").addEventListener("change", () => change({ state: by("state").value === "open" ? null : by("state").value }));
const update = keep(work, () => 5000);
let before = location.search;
follow(() => {
  if (location.search !== before) update();
  before = location.search;
});
