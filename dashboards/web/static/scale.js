// Where values and times lie on a chart, and which of them are written at its axes.

import { readable } from "./units.js";

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 345_600];

/** A function from a domain to pixels. */
export function scale(from, to, low, high) {
  const span = to - from || 1;
  return (value) => low + ((Number(value) - from) / span) * (high - low);
}

/** Round values from zero to at least `most`, about `count` of them, in steps a reader of this unit calls round. */
export function ticks(most, unit, count = 4) {
  if (!(most > 0)) return [0, 1];
  const [parts, name] = readable(unit);
  const step = parts * round(most / parts / count, name);
  const result = [];
  for (let i = 0; ; i += 1) {
    result.push(i * step);
    if (i * step >= most * 0.999) return result;
  }
}

function round(wish, unit) {
  if (unit === "s" && wish > 3600) return 3600 * decimal(wish / 3600); // durations are written in hours.
  if (unit === "s" && wish >= 1) return STEPS.find((one) => one >= wish);
  if (unit === "s") return decimal(wish);
  if (unit.startsWith("B") && wish >= 1) {
    const power = 1024 ** Math.floor(Math.log2(wish) / 10);
    const scaled = wish / power;
    return power * (scaled <= 512 ? 2 ** Math.ceil(Math.log2(scaled)) : 1024);
  }
  return decimal(wish);
}

function decimal(wish) {
  const power = 10 ** Math.floor(Math.log10(wish));
  return power * [1, 2, 2.5, 5, 10].find((one) => one >= (wish / power) * 0.9999);
}

/** Round instants (milliseconds) within a window, at most `count`, aligned to UTC. */
export function instants(start, end, count) {
  const seconds = (end - start) / 1000 / Math.max(1, count);
  const step = 1000 * (TIMES.find((one) => one >= seconds) ?? Math.ceil(seconds / 604_800) * 604_800);
  const result = [];
  for (let time = Math.ceil(start / step) * step; time <= end; time += step) result.push(time);
  return { step, times: result };
}

/** The middle of sorted numbers; 0 of none. */
export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : 0;
}
