// What a page shows, kept in its address so that a link shows the same: time range, VO, and the page's own choices.

export const RANGES = [
  { name: "15m", text: "15 min", seconds: 900 },
  { name: "1h", text: "1 h", seconds: 3600 },
  { name: "6h", text: "6 h", seconds: 21_600 },
  { name: "24h", text: "24 h", seconds: 86_400 },
  { name: "7d", text: "7 d", seconds: 604_800 },
  { name: "30d", text: "30 d", seconds: 2_592_000 },
];
const DEFAULT = "1h";
const SHARED = ["range", "start", "end", "vo"];
const WIDTHS = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];

/** The address's parameters now. */
export const read = () => new URLSearchParams(location.search);

/** The chosen window: {name, start, end, seconds, moving}; start and end as the API takes them. */
export function chosen(parameters = read()) {
  const [start, end] = [Date.parse(parameters.get("start")), Date.parse(parameters.get("end"))];
  if (end > start) {
    const text = (time) => new Date(time).toISOString().replace(".000Z", "Z");
    return { name: "custom", start: text(start), end: text(end), seconds: (end - start) / 1000, moving: false };
  }
  const range = RANGES.find((one) => one.name === parameters.get("range")) ?? RANGES.find((one) => one.name === DEFAULT);
  return { name: range.name, start: `-${range.name}`, end: "now", seconds: range.seconds, moving: true };
}

export const vo = () => read().get("vo") ?? "";

/** A bucket width in seconds that gives at most so many buckets in the chosen window. */
export function width(most, least = 1) {
  const { seconds } = chosen();
  return WIDTHS.find((one) => one >= least && seconds / one <= most) ?? Math.ceil(seconds / most / 86_400) * 86_400;
}

/** How often figures of the chosen window are asked for again, in milliseconds. */
export function pace() {
  const { seconds, moving } = chosen();
  return moving ? Math.min(60_000, Math.max(2000, seconds)) : 60_000;
}

/** Changes parameters (null or "" removes one), keeps the rest, and tells the page. */
export function change(changes, { replace = false } = {}) {
  const parameters = read();
  for (const [name, value] of Object.entries(changes)) {
    parameters.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) if (one) parameters.append(name, one);
  }
  const search = parameters.toString();
  history[replace ? "replaceState" : "pushState"](null, "", location.pathname + (search ? `?${search}` : ""));
  announce();
}

const listeners = [];

/** Calls back now and after every change. */
export function follow(listener) {
  listeners.push(listener);
  listener();
}

function announce() {
  for (const listener of listeners) listener();
}

/** An address within the application that keeps time range and VO. */
export function link(path, own = {}) {
  const url = new URL(path, location.origin);
  const now = read();
  for (const name of SHARED) if (now.get(name)) url.searchParams.set(name, now.get(name));
  for (const [name, value] of Object.entries(own)) {
    url.searchParams.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) if (one) url.searchParams.append(name, one);
  }
  return url.pathname + url.search;
}

window.addEventListener("popstate", announce);
