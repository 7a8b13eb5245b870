// Line charts over steps. All charts of a page share one cursor and one window of steps.

import uPlot from "../vendor/uplot.js";
import { useLayoutEffect, useRef } from "../vendor/preact-hooks.js";
import { logTicks } from "../ui/scales.js";
import { missing, number, tick } from "../ui/formats.js";
import { html } from "../ui/html.js";
import { color, useTheme, useWidth } from "../ui/screen.js";
import { useShared } from "../data/view.js";

const AXIS_PX = 52;
const WHOLE = Array.from({ length: 24 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));

// uPlot asks for a range also where there is nothing to draw yet: both ends are null.
const padded = (share) => (_, low, high) => {
  if (low === null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * share;
  return [low - room, high + room];
};

function axis(extra) {
  return {
    stroke: color("muted"),
    grid: { stroke: color("grid"), width: 1 },
    ticks: { show: false },
    font: `11px ${color("sans")}`,
    values: (_, splits) => splits.map((value) => (value === null ? "" : tick(value))),
    ...extra,
  };
}

function scales(log, window, timeline) {
  const x = () => window.value ?? [timeline.first || 1, Math.max(timeline.last, timeline.first + 1, 2)];
  const y = log ? { distr: 3, range: (_, low, high) => (low === null ? [0.1, 1] : [low * 0.9, high * 1.1]) } : { range: padded(0.08) };
  return { x: { time: false, range: x }, y };
}

/** uPlot marks the bucket's spread with a band between the lower and the upper bound. Dots mark the steps that have a value. */
function series(lines) {
  return lines.flatMap(({ band, dash, dots, ink }) => {
    const stroke = color(ink);
    const points = dots ? { show: true, size: 6, fill: stroke } : { show: false };
    const line = { stroke, width: dash ? 1 : 1.5, dash: dash && [5, 4], points, spanGaps: Boolean(dots) };
    const bound = { stroke: "transparent", width: 0, points: { show: false } };
    return band ? [line, bound, bound] : [line];
  });
}

function bands(lines) {
  let at = 1;
  const found = [];
  for (const { band, ink } of lines) {
    if (band) found.push({ series: [at + 2, at + 1], fill: `${color(ink)}2e` });
    at += band ? 3 : 1;
  }
  return found;
}

function options({ lines, log, height, cursor, window, timeline }, width) {
  return {
    width, height,
    padding: [8, 16, 0, 0],
    legend: { show: false },
    scales: scales(log, window, timeline),
    axes: [axis({ size: 22, space: 60, incrs: WHOLE }), axis({
      size: AXIS_PX, space: 26, ...(log && { splits: (_, __, low, high) => logTicks(low, high), filter: (_, s) => s }),
    })],
    series: [{}, ...series(lines)],
    bands: bands(lines),
    cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { size: 6 },
      bind: { dblclick: () => () => { window.set(null); return null; } } },
    hooks: { setSelect: [(u) => selected(u, window)], ready: [(u) => lead(u, cursor)] },
  };
}

/** The pointer over one chart moves the cursor of all; uPlot's own hook would also fire whenever data arrive. */
function lead(u, cursor) {
  u.over.addEventListener("mousemove", (event) => cursor.set(Math.round(u.posToVal(event.offsetX, "x")), u));
  u.over.addEventListener("mouseleave", () => cursor.set(null, u));
}

function aim(u, step) {
  u.setCursor({ left: step === null ? -10 : u.valToPos(step, "x"), top: 10 }, false);
}

function selected(u, window) {
  if (u.select.width < 4) return;
  const [from, to] = [u.select.left, u.select.left + u.select.width].map((px) => Math.round(u.posToVal(px, "x")));
  if (to > from) window.set([from, to]);
  u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
}

function columns(timeline, lines) {
  const steps = Array.from(timeline.steps.subarray(0, timeline.length));
  const data = lines.flatMap(({ row, band, constant }) =>
    constant === undefined ? [row, ...(band ?? [])].map((each) => timeline.row(each)) : [steps.map(() => constant)]);
  return [steps, ...data];
}

/** On a logarithmic scale what is not positive has no place. */
const drawable = (data, log) =>
  log ? data.map((line, i) => (i ? line.map((value) => (value > 0 ? value : null)) : line)) : data;

/**
 * One chart. `lines`: {label, ink, row, band: [lower, upper], dash, dots, constant}, rows of `timeline`; the first line's
 * value at the cursor, or its last one, stands in the caption.
 */
export function Chart(props) {
  const { title, unit, timeline, lines, log, version, cursor, window, height, show = number, children } = props;
  const box = useRef();
  const plot = useRef();
  const readout = useRef();
  const theme = useTheme();
  const width = useWidth(box);
  const range = useShared(window);
  const shape = lines.map(({ label }) => label).join();

  const read = (step) => {
    const value = step === null ? timeline.at(timeline.length - 1, lines[0].row) : timeline.value(step, lines[0].row);
    readout.current.textContent = timeline.length ? show(missing(value) ? null : value) : "–";
  };

  useLayoutEffect(() => {
    if (!width) return undefined;
    const u = new uPlot(options(props, width), drawable(columns(timeline, lines), log), box.current);
    plot.current = u;
    const off = cursor.on((step, source) => {
      read(step);
      if (source !== u) aim(u, step);
    });
    read(cursor.value); // it may have moved before there was a width to draw in
    return () => {
      off();
      u.destroy();
      plot.current = null;
    };
  }, [width > 0, theme, log, timeline, shape, height]);

  useLayoutEffect(() => {
    plot.current?.setSize({ width, height });
  }, [width]);

  useLayoutEffect(() => {
    plot.current?.setData(drawable(columns(timeline, lines), log));
    if (plot.current) aim(plot.current, cursor.value);
    read(cursor.value);
  }, [version, range, timeline, shape]);

  return html`<figure class="chart">
    <figcaption><span class="title">${title}</span> <span class="dim">${unit}</span>
      ${lines.slice(1).map(({ label, dash, ink }) => html`<span class="key ${ink} ${dash && "dashed"}">${label}</span>`)}
      ${children}<output ref=${readout}></output></figcaption>
    <div class="plot" ref=${box} role="img" aria-label="${title} over steps"></div>
  </figure>`;
}
