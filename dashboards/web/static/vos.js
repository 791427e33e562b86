// Which VOs have records, and which of them are simulated: asked of the stores, kind by kind.

import { get, Problem } from "./api.js";
import { ofList } from "./choice.js";

const REACH = "-400d"; // how far back a VO is looked for; the longest retention of our own kinds.
let simulated = new Set();
let told = "";
let known = 0; // number of VOs with records.
const latest = new Map(); // kind to the rows of its last answer.
const listeners = [];

/** Whether figures of a VO (or, without one, of all) include simulated ones. */
export const isSimulated = (vo = "") => (vo ? simulated.has(vo) : simulated.size > 0);

/** What is said beside figures of a VO or of all: "", "simulated", or that they include such. */
export function origin(vo = "") {
  if (!isSimulated(vo)) return "";
  return vo || simulated.size === known ? "simulated" : "includes simulated";
}

/** Calls back with [{name, simulated}] whenever the VOs are others than before. */
export function followVos(listener) {
  listeners.push(listener);
}

/** Reads the VOs of every kind. */
export async function readVos(kinds, signal) {
  const answers = await Promise.all(kinds.map((kind) => ask(kind, signal)));
  const found = new Map();
  for (const { group } of answers.flat()) found.set(group[0], found.get(group[0]) || group[1] === true);
  const vos = [...found].map(([name, made]) => ({ name, simulated: made })).sort((a, b) => a.name.localeCompare(b.name));
  simulated = new Set(vos.filter((one) => one.simulated).map((one) => one.name));
  known = vos.length;
  const now = JSON.stringify(vos);
  if (now === told) return;
  told = now;
  for (const listener of listeners) listener(vos);
}

async function ask(kind, signal) {
  try {
    const answer = await get("/v1/query", { kind, measures: "count", by: "vo,simulated", start: REACH, end: "now", width: 0 }, signal, ofList());
    latest.set(kind, answer.rows);
  } catch (error) {
    if (!(error instanceof Problem)) throw error; // what cannot be asked now stays as it was: no label is lost.
  }
  return latest.get(kind) ?? [];
}
