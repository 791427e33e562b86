// The server's API: JSON in and out, problems as errors with the server's own words.

/** The server did not answer at all. */
export class Away extends Error {
  name = "Away";
}

/** The server answered that it cannot or will not. */
export class Problem extends Error {
  constructor(status, body) {
    super([body.title, body.detail].filter(Boolean).join(": ") || `The server answered ${status}.`);
    this.status = status;
    this.body = body;
  }
}

const UNAUTHORIZED = 401;
const LOGIN = "/login";
const PATIENCE = 15_000; // milliseconds until a silent server counts as away.
export const ALL = "*"; // all VOs that may be seen.
const OF_VOS = /^\/v1\/(query|values|records|pipeline|accounting)\b/; // what is answered by the VO that is asked.

let reader; // says which VO that is.
let begin;
const begun = new Promise((resolve) => { begin = resolve; });

/** From now on whatever depends on the VO is asked, of the one that `read()` gives; before, it waits. */
export function askOf(read) {
  reader = read;
  begin();
}

/** Asks; of another VO than the chosen one where `vo` is given. */
export async function get(path, parameters = {}, signal = undefined, vo = undefined) {
  const search = new URLSearchParams(pairs(parameters)).toString();
  if (OF_VOS.test(path)) await begun;
  return ask(search ? `${path}?${search}` : path, {}, signal, vo);
}

/** The answer as the server wrote it, of the VO that is chosen. */
export function getText(url) {
  return answer(url, {});
}

/** Sends a body that is JSON already. */
export function postText(path, body) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
}

/** Takes something away. */
export function remove(path) {
  return ask(path, { method: "DELETE" });
}

/** {a: 1, b: [2, 3]} as [["a", 1], ["b", 2], ["b", 3]]; undefined and "" are left out. */
export function pairs(parameters) {
  return Object.entries(parameters).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).filter((one) => one !== undefined && one !== "").map((one) => [name, one]));
}

async function ask(...asked) {
  return parse(await answer(...asked));
}

async function answer(url, request, signal, vo = reader?.()) {
  const patience = AbortSignal.timeout(PATIENCE);
  let response, text;
  try {
    const headers = { ...request.headers, ...(vo && { "Siteward-VO": vo }) };
    response = await fetch(url, { ...request, headers, cache: "no-store", signal: signal ? AbortSignal.any([signal, patience]) : patience });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Away("The server does not answer.", { cause: error });
  }
  if (response.status === UNAUTHORIZED && location.pathname !== LOGIN) {
    // The session is over: nothing on this page can be asked any more.
    location.assign(`${LOGIN}?${new URLSearchParams({ to: location.pathname + location.search })}`);
  }
  if (!response.ok) throw new Problem(response.status, quietly(text));
  return text;
}

function quietly(text) {
  try {
    const body = JSON.parse(text);
    return body && typeof body === "object" ? body : { detail: String(body) };
  } catch {
    return { detail: text.slice(0, 200) };
  }
}

/** JSON whose integers stay exact: those beyond 2^53 become BigInt where the browser shows us their digits. */
export function parse(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  return JSON.parse(text, (key, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
      ? BigInt(context.source)
      : value);
}
