// Which VO is asked: the address says it; who may see several chooses one, or all, once in a session of the browser.

import { ALL, askOf, get } from "./api.js";
import { by, options } from "./dom.js";
import { heard } from "./live.js";
import { change, follow, vo } from "./scope.js";

const REMEMBERED = "siteward-vo";
const NOTHING = "?";
const RETRY = 2000; // milliseconds until a server that is away is asked again who this is.

let may = null; // {vos, all, noted} once it is known.
let found = []; // [{name, simulated}] that have records.

/** The VOs that have records, to be chosen from. */
export function offer(vos) {
  found = vos;
  draw();
}

/** Of which VO the list of VOs is asked: of all, unless somebody would be noted who has not chosen them. */
export const ofList = () => (may?.all && !may.noted ? ALL : undefined);

/** Asks who this is until the server says it, and begins with the VO of the address, of the session, or the only one. */
export async function choose() {
  const who = await identity();
  heard(); // until a VO is chosen, nothing else asks.
  may = who.reads;
  const before = sessionStorage.getItem(REMEMBERED);
  const allowed = (name) => name && name !== ALL && (may.all || may.vos.includes(name));
  if (!vo()) {
    const first = may.all ? "" : may.vos[0];
    const start = allowed(before) ? before : first;
    if (start) change({ vo: start }, { replace: true });
  }
  follow(() => {
    if (vo() || isAll()) askOf(() => vo() || (isAll() ? ALL : undefined));
    draw();
  });
  return who;
}

async function identity() {
  for (;;) {
    try {
      return await get("/v1/whoami");
    } catch (error) {
      if (error.status) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
}

/** Whether all VOs are asked: for those who may, and where that is noted, once they have said so. */
const isAll = () => may.all && (!may.noted || sessionStorage.getItem(REMEMBERED) === ALL);

function draw() {
  if (!may) return;
  const label = new Map([...may.vos, vo()].filter(Boolean).map((name) => [name, name]));
  for (const one of found) label.set(one.name, one.simulated ? `${one.name} (simulated)` : one.name);
  const names = [...label].sort(([a], [b]) => a.localeCompare(b));
  const waits = !vo() && !isAll();
  const first = waits ? [[NOTHING, "choose a VO"]] : [];
  const all = may.all ? [["", may.noted ? "all VOs (noted)" : "all VOs"]] : [];
  by("choose").hidden = !waits;
  options(by("vo"), [...first, ...all, ...names], waits ? NOTHING : vo());
}

by("vo").addEventListener("change", () => {
  const name = by("vo").value;
  if (name === NOTHING) return;
  sessionStorage.setItem(REMEMBERED, name || ALL);
  change({ vo: name });
});
