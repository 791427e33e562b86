// Record kinds as /v1/kinds describes them, in the words that pages use.

import { get } from "./api.js";

let kinds = null;

/** [{name, doc, shape, time, retention, dimensions, measures, …}], read once per page. */
export async function readKinds(signal) {
  kinds ??= (await get("/v1/kinds", {}, signal)).kinds;
  return kinds;
}
