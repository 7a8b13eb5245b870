// The drawn part of the matrix: canvas, crosshair, tooltip, and what pointer and keyboard do there.

import { useLayoutEffect, useRef, useState } from "../vendor/preact-hooks.js";
import { count, number } from "../ui/formats.js";
import { html } from "../ui/html.js";
import { paint, Steps, STRIP_PX } from "./paint.js";
import { color, useTheme, useWidth } from "../ui/screen.js";
import { useShared } from "../data/view.js";

const DRAG_PX = 4;
const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0] };

/** What stands in a cell, in words. */
function reading(run, ratios, row, step) {
  const ratio = ratios.cell(step, row);
  if (run.skipped.has(step)) return "step skipped";
  if (Number.isNaN(ratio)) return "no data";
  return run.adapted[row] ? number(ratio, 3) : "1, not adapted";
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function inks() {
  return { still: color("still"), gap: color("panel"), skipped: color("bad"), checkpoint: color("muted") };
}

/** Round steps for the axis below, about one for each hundred pixels. */
function ticks({ from, slots, width }) {
  const rough = Math.max(1, (slots * 100) / Math.max(width, 1));
  const decade = 10 ** Math.floor(Math.log10(rough));
  const stride = Math.max(1, [1, 2, 5, 10].map((m) => m * decade).find((value) => value >= rough));
  const first = Math.ceil(from / stride) * stride;
  return Array.from({ length: Math.max(0, Math.floor((from + slots - 1 - first) / stride) + 1) }, (_, i) => first + i * stride);
}

function Tip({ run, ratios, at, steps, rowHeight, rows }) {
  if (!at || rows[at.line] === undefined) return null;
  const row = rows[at.line];
  const right = steps.x(at.step) > steps.width * 0.6;
  const style = {
    [right ? "right" : "left"]: `${right ? steps.width - steps.x(at.step) + 12 : steps.x(at.step) + 12}px`,
    top: `${STRIP_PX + (at.line + 1) * rowHeight + 8}px`,
  };
  return html`<div class="tip" style=${style}>
    <div class="tip-name">${run.names[row]}</div>
    <div><span class="dim">step</span> ${count(at.step)} <span class="dim">ratio</span> <strong>${reading(run, ratios, row, at.step)}</strong></div>
  </div>`;
}

export function Field({ run, ratios, busy, version, rows, rowHeight, breaks, scale, cursor, window, selected, onSelect }) {
  const box = useRef();
  const canvas = useRef();
  const press = useRef(null);
  const [at, setAt] = useState(null); // {line, step} under the pointer or reached by keyboard
  const [brush, setBrush] = useState(null);
  const width = useWidth(box);
  const theme = useTheme();
  const range = useShared(window);
  const step = useShared(cursor);
  const [from, to] = range ?? [ratios.first || 1, ratios.last || 1];
  const steps = new Steps(from, to, width);
  const height = STRIP_PX + rows.length * rowHeight;

  useLayoutEffect(() => {
    if (!width) return;
    const checkpoints = [...run.records.values()].filter(({ kind }) => kind === "checkpoint").map((record) => record.step);
    const { adapted, skipped } = run;
    paint(canvas.current, { ratios, adapted, rows, rowHeight, breaks, scale, steps, skipped, checkpoints, inks: inks() });
  }, [version, ratios, width, theme, from, to, rows, rowHeight, scale.low, scale.high]);

  const locate = (event) => {
    const frame = box.current.getBoundingClientRect();
    const x = clamp(event.clientX - frame.left, 0, width - 1);
    const line = clamp(Math.floor((event.clientY - frame.top - STRIP_PX) / rowHeight), 0, rows.length - 1);
    return { x, line, step: steps.at(x) };
  };
  const point = (place) => {
    setAt(place);
    cursor.set(place?.step ?? null, box);
  };
  const move = (event) => {
    const place = locate(event);
    if (press.current && Math.abs(place.x - press.current.x) > DRAG_PX) setBrush([press.current.x, place.x].sort((a, b) => a - b));
    point(place);
  };
  const down = (event) => {
    press.current = locate(event);
    box.current.setPointerCapture(event.pointerId);
  };
  const up = () => {
    if (brush && steps.at(brush[1]) > steps.at(brush[0])) window.set(brush.map((x) => steps.at(x)));
    else if (press.current && !brush) onSelect(rows[press.current.line]);
    press.current = null;
    setBrush(null);
  };
  const key = (event) => {
    const place = at ?? { line: Math.max(0, rows.indexOf(selected)), step: to };
    if (event.key === "Enter" || event.key === " ") onSelect(rows[place.line]);
    else if (event.key === "Escape") onSelect(null);
    else if (KEYS[event.key]) {
      const [lines, offset] = at ? KEYS[event.key] : [0, 0];
      const stride = event.shiftKey ? 10 : 1;
      point({ line: clamp(place.line + lines, 0, rows.length - 1), step: clamp(place.step + offset * stride, from, to) });
    } else return;
    event.preventDefault();
  };

  const chosen = rows.indexOf(selected);
  const line = (top, extra) => ({ top: `${STRIP_PX + top * rowHeight}px`, height: `${rowHeight}px`, ...extra });
  return html`<div class="field-column">
    <div class="field" ref=${box} tabindex="0" role="application" aria-busy=${String(busy)} aria-roledescription="heat map"
      aria-label="Trust ratio by tensor and step. Arrow keys move, Enter plots the tensor, Escape removes the plot."
      style=${{ height: `${height}px` }} onPointerMove=${move} onPointerDown=${down} onPointerUp=${up}
      onPointerLeave=${() => { point(null); }} onBlur=${() => point(null)} onDblClick=${() => window.set(null)} onKeyDown=${key}>
      <div class="hatch" style=${{ top: `${STRIP_PX}px` }}></div>
      <canvas ref=${canvas} class="cells"></canvas>
      ${chosen >= 0 && html`<div class="chosen" style=${line(chosen)}></div>`}
      ${at && html`<div class="cross-row" style=${line(at.line)}></div>`}
      ${step !== null && step >= from && step <= to && html`<div class="cross-step" style=${{ left: `${steps.x(step)}px` }}></div>`}
      ${brush && html`<div class="brush" style=${{ left: `${brush[0]}px`, width: `${brush[1] - brush[0]}px` }}></div>`}
      <${Tip} run=${run} ratios=${ratios} at=${at} steps=${steps} rowHeight=${rowHeight} rows=${rows} />
    </div>
    <div class="steps" aria-hidden="true">${ticks(steps).map((tick) =>
      html`<span key=${tick} style=${{ left: `${steps.x(tick)}px` }}>${count(tick)}</span>`)}</div>
    <div class="unseen" role="status">${at && rows[at.line] !== undefined &&
      `${run.names[rows[at.line]]}, step ${at.step}: ${reading(run, ratios, rows[at.line], at.step)}`}</div>
  </div>`;
}
