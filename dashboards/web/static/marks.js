// The marks of a chart: lines with gaps where nothing is known, stacked bars from zero.

import { svg } from "./dom.js";
import { median } from "./scale.js";

/** Points [time, value] split where more than one step is missing. */
export function segments(points, width) {
  const steps = points.slice(1).map((point, i) => point[0] - points[i][0]);
  const limit = Math.max(width * 1.5, median(steps) * 2.5);
  const result = [];
  let current = [];
  for (const point of points) {
    if (current.length && point[0] - current.at(-1)[0] > limit) {
      result.push(current);
      current = [];
    }
    current.push(point);
  }
  return current.length ? [...result, current] : result;
}

/** Keeps the lowest and the highest point of every pixel column, so that no peak is lost. */
export function thinned(points, x) {
  const columns = new Map();
  for (const point of points) {
    const column = Math.round(x(point[0]));
    const now = columns.get(column);
    if (!now) columns.set(column, [point, point]);
    else {
      if (point[1] < now[0][1]) now[0] = point;
      if (point[1] > now[1][1]) now[1] = point;
    }
  }
  if (columns.size * 2 >= points.length) return points;
  return [...columns.values()].flatMap(([low, high]) => (low === high ? [low] : [low, high].sort((a, b) => a[0] - b[0])));
}

/** One line as SVG elements; a lonely point is a dot. */
export function line(series, x, y, width) {
  const elements = [];
  for (const segment of segments(series.points, width)) {
    const shown = thinned(segment, x);
    const path = shown.map(([time, value], i) => `${i ? "L" : "M"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    if (shown.length === 1) {
      elements.push(svg("circle", { class: `dot ${series.colour}`, cx: x(shown[0][0]), cy: y(shown[0][1]), r: 2.5 }));
      continue;
    }
    if (series.filled) {
      const [first, last] = [x(shown[0][0]).toFixed(1), x(shown.at(-1)[0]).toFixed(1)];
      elements.push(svg("path", { class: `area ${series.colour}`, d: `${path}L${last} ${y(0)}L${first} ${y(0)}Z` }));
    }
    elements.push(svg("path", { class: `line ${series.colour}`, d: path }));
  }
  return elements;
}

/** Stacked bars as SVG elements, one path per series; bars are cut where the window ends. */
export function bars(list, x, y, width, start, end) {
  const heights = new Map(); // time to the top of what stands there already.
  return list.map((series) => {
    let path = "";
    for (const [time, whole] of series.points) {
      const value = Number(whole); // it may be a BigInt.
      if (!(value > 0)) continue;
      const below = heights.get(time) ?? 0;
      heights.set(time, below + value);
      const [left, right] = [x(Math.max(time, start)), x(Math.min(time + width, end))];
      const gap = right - left > 4 ? 1 : right - left > 2 ? 0.5 : 0;
      const [top, bottom] = [y(below + value), y(below)];
      path += `M${left.toFixed(2)} ${bottom.toFixed(2)}V${top.toFixed(2)}H${Math.max(left + 0.5, right - gap).toFixed(2)}V${bottom.toFixed(2)}Z`;
    }
    return svg("path", { class: `bar ${series.colour}`, d: path });
  });
}
