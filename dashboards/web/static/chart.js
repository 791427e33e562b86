// A chart over time: axes in UTC, exact values under the pointer or the arrow keys, and the same figures as a table.

import { el, say, svg, table } from "./dom.js";
import { bars, line } from "./marks.js";
import { instants, scale, ticks } from "./scale.js";
import { clock, day, exact, moment, short } from "./units.js";

const EDGE = { top: 8, right: 10, bottom: 22 };
let charts = 0;

/**
 * data: {start, end, width (milliseconds of a bucket), mark ("lines" | "bars"), unit, limit: {value} (a dashed line),
 *        series: [{name, colour, filled, points: [[time, value], …]}]}
 */
export class Chart {
  constructor(host, { title, height = 200, legend = true }) {
    Object.assign(this, { title, height, legend, data: null, cursor: null, name: `chart-${(charts += 1)}` });
    this.readout = el("div", { class: "readout", hidden: true });
    this.canvas = svg("svg", {
      class: "chart", height, tabindex: "0", role: "img", pointermove: (event) => this.point(event),
      pointerdown: (event) => this.point(event), pointerleave: () => this.leave(), blur: () => this.leave(),
      keydown: (event) => this.key(event),
    });
    this.spoken = el("p", { class: "hidden-label", "aria-live": "polite" });
    this.keys = el("ul", { class: "legend" });
    this.foot = el("div", { class: "chart-foot" });
    this.figures = el("details", { class: "figures", toggle: () => this.drawTable() }, el("summary", { text: "Figures" }), el("div"));
    this.figures.firstChild.setAttribute("aria-label", `Figures of ${title} as a table`);
    this.frame = el("div", { class: "chart-frame" }, this.canvas, this.readout, this.spoken);
    this.foot.append(...(legend ? [this.keys] : []), this.figures);
    host.replaceChildren(this.frame, this.foot);
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  show(data) {
    this.data = data;
    this.drawKeys();
    this.draw();
    this.drawTable();
  }

  draw() {
    const width = this.frame.clientWidth;
    if (!this.data || !width) return;
    const { data, height } = this;
    const rows = this.rows();
    const marks = ticks(this.most(rows), data.unit, height < 140 ? 2 : 4);
    const labels = marks.map((value) => short(value, data.unit));
    const left = Math.max(...labels.map((label) => label.length)) * 6.4 + 12;
    const x = (this.x = scale(data.start, data.end, left, width - EDGE.right));
    const y = scale(0, marks.at(-1), height - EDGE.bottom, EDGE.top);
    Object.assign(this, { y, left, right: width - EDGE.right, times: rows.map((row) => row.time) });
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.canvas.setAttribute("width", width);
    this.canvas.setAttribute("aria-label", this.summary(rows));
    this.hand = svg("line", { class: "hand", y1: EDGE.top, y2: height - EDGE.bottom, visibility: "hidden" });
    this.canvas.replaceChildren(
      ...this.grid(marks, labels, y),
      ...this.axis(x, width),
      ...(data.limit ? this.limit(y, marks.at(-1)) : []),
      ...(data.mark === "bars"
        ? bars(data.series, x, y, data.width, data.start, data.end)
        : data.series.flatMap((series) => line(series, x, y, data.width))),
      this.hand,
    );
    if (this.cursor !== null) this.read(this.cursor);
  }

  /** Every bucket with something in it: {time, values (by series), total}. */
  rows() {
    if (this.rowsOf === this.data) return this.rowsKept;
    const rows = new Map();
    this.data.series.forEach((series, i) => {
      for (const [time, value] of series.points) {
        if (!rows.has(time)) rows.set(time, { time, values: new Array(this.data.series.length).fill(null), total: 0 });
        const row = rows.get(time);
        row.values[i] = value;
        row.total += Number(value);
      }
    });
    this.rowsOf = this.data;
    return (this.rowsKept = [...rows.values()].sort((a, b) => a.time - b.time));
  }

  most(rows) {
    const peak = this.data.mark === "bars" ? rows.map((row) => row.total) : rows.flatMap((row) => row.values.map(Number));
    const floor = this.data.unit === "%" ? 0.04 : 0;
    return Math.max(floor, this.data.limit?.value ?? 0, peak.reduce((a, b) => Math.max(a, b), 0));
  }

  summary(rows) {
    const { unit, series, start, end } = this.data;
    const when = `${moment(start, false)} to ${moment(end, false)}`;
    if (!rows.length) return `${this.title}, ${when}: no figures.`;
    const last = series.slice(0, 6).map((one) => `${one.name} ${short(one.points.at(-1)?.[1], unit)}`);
    return `${this.title}, ${when}. Highest ${short(this.most(rows), unit)}. Latest: ${last.join(", ")}. Arrow keys read single values; a table follows.`;
  }

  grid(marks, labels, y) {
    return marks.flatMap((value, i) => [
      svg("line", { class: i ? "grid" : "baseline", x1: this.left, x2: this.right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: this.left - 6, y: y(value) + 3.5, "text-anchor": "end", text: labels[i] }),
    ]);
  }

  axis(x, width) {
    const { start, end } = this.data;
    const { step, times } = instants(start, end, Math.floor((this.right - this.left) / 66));
    const bottom = this.height - EDGE.bottom;
    return times.flatMap((time) => {
      const midnight = time % 86_400_000 === 0;
      const place = x(time);
      if (place > width - 24 || place < this.left + 8) return [];
      return [
        svg("line", { class: "baseline", x1: place, x2: place, y1: bottom, y2: bottom + 4 }),
        svg("text", { class: midnight ? "tick tick-day" : "tick", x: place, y: bottom + 16, "text-anchor": "middle",
          text: midnight ? day(time) : clock(time, step < 60_000) }),
      ];
    });
  }

  limit(y, top) {
    const { value } = this.data.limit;
    if (!(value <= top)) return [];
    return [svg("line", { class: "limit", x1: this.left, x2: this.right, y1: y(value), y2: y(value) })];
  }

  drawKeys() {
    if (!this.legend) return;
    this.keys.replaceChildren(...this.data.series.map((series) =>
      el("li", {}, el("span", { class: `swatch ${series.colour}`, "aria-hidden": "true" }), series.name)));
    this.keys.hidden = this.data.series.length < 2;
  }

  drawTable() {
    if (!this.figures.open || !this.data) return;
    const { series, unit } = this.data;
    const head = [{ text: "Time (UTC)" }, ...series.map((one) => ({ text: one.name, number: true }))];
    const rows = this.rows().slice(-500).reverse().map((row) =>
      [moment(row.time).replace(" UTC", ""), ...row.values.map((value) => (value === null ? "" : exact(value, unit)))]);
    this.figures.lastChild.replaceChildren(table(this.title, head, rows));
  }

  point(event) {
    if (!this.times?.length) return;
    const place = event.clientX - this.canvas.getBoundingClientRect().left;
    const middle = this.data.mark === "bars" ? this.data.width / 2 : 0;
    let best = 0;
    this.times.forEach((time, i) => {
      if (Math.abs(this.x(time + middle) - place) < Math.abs(this.x(this.times[best] + middle) - place)) best = i;
    });
    this.read(this.times[best]);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") this.leave();
    if (!step || !this.times?.length) return;
    event.preventDefault();
    const now = this.times.indexOf(this.cursor);
    const next = now < 0 ? this.times.length - 1 : now + step;
    this.read(this.times[Math.min(this.times.length - 1, Math.max(0, next))]);
    say(this.spoken, this.readout.innerText);
  }

  /** Shows the values of one bucket. */
  read(time) {
    const row = this.rows().find((one) => one.time === time);
    if (!row) return this.leave();
    this.cursor = time;
    const { series, unit, mark, width, end } = this.data;
    const place = this.x(mark === "bars" ? Math.min(time + width / 2, end) : time);
    this.hand.setAttribute("x1", place);
    this.hand.setAttribute("x2", place);
    this.hand.setAttribute("visibility", "visible");
    const until = mark === "bars" && width ? ` – ${clock(time + width, width < 60_000)}` : "";
    const shown = series.map((one, i) => ({ ...one, value: row.values[i] })).filter((one) => one.value !== null && (one.value || series.length < 4));
    if (mark === "bars") shown.reverse();
    const lines = shown.slice(0, 14).map((one) => el("li", {},
      el("span", { class: `swatch ${one.colour}` }), el("span", { text: one.name }), el("b", { text: exact(one.value, unit) })));
    if (mark === "bars" && shown.length > 1) lines.push(el("li", { class: "readout-total" }, el("span"), el("span", { text: "total" }), el("b", { text: exact(row.total, unit) })));
    this.readout.replaceChildren(el("p", { text: `${day(time)} ${clock(time)}${until} UTC` }), el("ul", {}, ...lines));
    this.readout.hidden = false;
    const room = this.frame.clientWidth - this.readout.offsetWidth;
    this.readout.style.left = `${Math.max(0, Math.min(room, place > this.frame.clientWidth / 2 ? place - this.readout.offsetWidth - 12 : place + 12))}px`;
    return undefined;
  }

  leave() {
    this.cursor = null;
    this.readout.hidden = true;
    this.hand?.setAttribute("visibility", "hidden");
  }
}
