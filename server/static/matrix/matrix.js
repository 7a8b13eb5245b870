// The trust-ratio matrix: one row a tensor, one column a step.

import { useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact-hooks.js";
import { FIXED, logTicks, LogScale, TABLE } from "../ui/scales.js";
import { Field } from "./field.js";
import { tensorName, tick } from "../ui/formats.js";
import { html } from "../ui/html.js";
import { useShared } from "../data/view.js";

const HEIGHT_PX = 620;
const ROW_PX = [2, 18];
const MANY = 100; // tensors from which on those that are not adapted are left out until asked for
const LABEL_PX = 11; // rows less high than this carry no name of their own, only their group's

/** The rows that the filter lets through, and where among them each group begins. */
function arrange(run, filter, adaptedOnly) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [];
  run.names.forEach((name, row) => {
    const hit = words.every((word) => name.toLowerCase().includes(word));
    if (hit && (run.adapted[row] || !adaptedOnly)) rows.push(row);
  });
  const groups = [];
  rows.forEach((row, line) => {
    const { group } = tensorName(run.names[row]);
    if (groups.at(-1)?.name !== group) groups.push({ name: group, line, size: 0 });
    groups.at(-1).size++;
  });
  const [low, high] = ROW_PX;
  const rowHeight = Math.min(high, Math.max(low, Math.floor(HEIGHT_PX / Math.max(1, rows.length))));
  return { rows, groups, rowHeight, breaks: groups.slice(1).map((group) => group.line) };
}

function Names({ run, rows, groups, rowHeight, selected, onSelect }) {
  const name = (row) => html`<button key=${row} type="button" tabindex="-1" title=${run.names[row]}
    class="name ${!run.adapted[row] && "still"}" aria-pressed=${row === selected} style=${{ height: `${rowHeight}px` }}
    onClick=${() => onSelect(row)}>${tensorName(run.names[row]).label}</button>`;
  return html`<div class="names">${groups.map(({ name: group, line, size }) => html`
    <div class="group" key=${line} style=${{ height: `${size * rowHeight}px` }}>
      <span class="group-name" title=${group}>${size * rowHeight >= LABEL_PX - 1 && group}</span>
      ${rowHeight >= LABEL_PX && html`<div class="group-rows">${rows.slice(line, line + size).map(name)}</div>`}
    </div>`)}</div>`;
}

function Legend({ run, scale }) {
  const canvas = useRef();
  useLayoutEffect(() => {
    const context = canvas.current.getContext("2d");
    TABLE.forEach((channels, x) => {
      context.fillStyle = `rgb(${channels})`;
      context.fillRect(x, 0, 1, 1);
    });
  }, []);
  return html`<div class="legend">
    <div class="ramp"><canvas ref=${canvas} width="256" height="1" role="img" aria-label="Colours of trust ratios from ${tick(scale.low)} to ${tick(scale.high)}"></canvas>
      ${logTicks(scale.low, scale.high).map((value) =>
        html`<span key=${value} style=${{ left: `${100 * scale.fraction(value)}%` }}>${tick(value)}</span>`)}</div>
    <span class="swatch still">not adapted</span><span class="swatch hatch">no data</span>
    ${run.skipped.size > 0 && html`<span class="swatch mark skip">skipped</span>`}
    ${[...run.records.values()].some(({ kind }) => kind === "checkpoint") && html`<span class="swatch mark save">checkpoint</span>`}
  </div>`;
}

function Controls({ filter, setFilter, adaptedOnly, setAdaptedOnly, fitted, setFitted, shown, total, window }) {
  const zoomed = useShared(window);
  return html`<div class="controls">
    <label class="field-label">Filter <input type="search" value=${filter} placeholder="layer.1 attention" spellcheck="false"
      onInput=${(event) => setFilter(event.target.value)} /></label>
    <span class="dim num">${shown} of ${total} tensors</span>
    <label><input type="checkbox" checked=${adaptedOnly} onChange=${(event) => setAdaptedOnly(event.target.checked)} /> adapted only</label>
    <label><input type="checkbox" checked=${fitted} onChange=${(event) => setFitted(event.target.checked)} /> fit colours to data</label>
    ${zoomed && html`<button type="button" onClick=${() => window.set(null)}>Steps ${zoomed[0]} to ${zoomed[1]} ✕<span class="unseen"> show all steps</span></button>`}
  </div>`;
}

/** The ratios to draw: of a zoomed window all steps, once they are fetched, where the run at large has pooled them. */
function useRatios(run, window) {
  const range = useShared(window);
  const [detail, setDetail] = useState(null);
  const [busy, setBusy] = useState(false);
  useLayoutEffect(() => {
    const pooled = range !== null && run.ratios.count(...range) < range[1] - range[0] + 1;
    setDetail(null);
    setBusy(pooled);
    if (!pooled) return undefined;
    let wanted = true;
    const show = (found) => {
      if (!wanted) return;
      setDetail(found);
      setBusy(false);
    };
    run.detail(range).then(show, (error) => run.fail(error));
    return () => {
      wanted = false;
    };
  }, [range, run.ratios]);
  return [detail ?? run.ratios, busy];
}

/** `line` draws one row of the ratios below the matrix. */
export function TrustRatios({ run, version, cursor, window, line }) {
  const [filter, setFilter] = useState("");
  const [choice, setAdaptedOnly] = useState(null);
  const adaptedOnly = choice ?? run.names.length > MANY;
  const [fitted, setFitted] = useState(true);
  const [selected, setSelected] = useState(null);
  const layout = useMemo(() => arrange(run, filter, adaptedOnly), [run.names, filter, adaptedOnly]);
  const scale = fitted ? LogScale.around(...run.range) : new LogScale(FIXED);
  const [ratios, busy] = useRatios(run, window);
  const select = (row) => setSelected((old) => (old === row ? null : row));
  const controls = { filter, setFilter, adaptedOnly, setAdaptedOnly, fitted, setFitted, window };

  return html`<section class="panel matrix" aria-labelledby="matrix-title">
    <div class="matrix-head"><h2 id="matrix-title">Trust ratios <small class="dim">tensor × step</small></h2><${Legend} run=${run} scale=${scale} /></div>
    <${Controls} ...${controls} shown=${layout.rows.length} total=${run.names.length} />
    <div class="matrix-body">
      <${Names} run=${run} ...${layout} selected=${selected} onSelect=${select} />
      <${Field} run=${run} ratios=${ratios} busy=${busy} version=${version} ...${layout} scale=${scale} cursor=${cursor} window=${window} selected=${selected} onSelect=${select} />
    </div>
    ${selected === null
      ? html`<p class="dim hint">Click a row to plot its tensor. Drag across steps to zoom in; double-click to zoom out.</p>`
      : line(selected, ratios)}
  </section>`;
}
