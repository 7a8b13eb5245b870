// The page of one job.

import { useEffect, useMemo, useReducer, useState } from "../vendor/preact-hooks.js";
import { Actions } from "./actions.js";
import { Chart } from "../charts/chart.js";
import { compact, count, duration, elapsed, number, percent, when } from "../ui/formats.js";
import { TrustRatios } from "../matrix/matrix.js";
import { html } from "../ui/html.js";
import { Records } from "./records.js";
import { Bar, Problem, Progress, Status, TERMINAL } from "../ui/parts.js";
import { ROOT } from "../ui/root.js";
import { ROW, Run } from "../data/run.js";
import { Shared } from "../data/view.js";

/** The run, and a render for each frame in which it changed. */
function useRun(id) {
  const run = useMemo(() => new Run(id), [id]);
  const [, render] = useReducer((count) => count + 1, 0);
  useEffect(() => {
    const off = run.subscribe(render);
    run.start();
    return () => {
      off();
      run.stop();
    };
  }, [run]);
  return run;
}

function Fact({ name, children }) {
  return html`<div class="fact"><dt>${name}</dt><dd>${children}</dd></div>`;
}

/** What a job was made from: another job, or a run folder on the server's machine. */
function Parent({ job }) {
  const name = job.parent.includes("/") ? html`<code>${job.parent}</code>`
    : html`<a href="${ROOT}/jobs/${encodeURIComponent(job.parent)}">${job.parent}</a>`;
  return html`${name}${job.parent_step && html`<span class="dim"> at step ${count(job.parent_step)}</span>`}`;
}

function Facts({ run }) {
  const { job } = run;
  const over = TERMINAL.has(job.status);
  const last = (name) => run.metrics.at(run.metrics.length - 1, ROW[name]);
  return html`<dl class="facts">
    <${Fact} name="Step">${count(job.step)}<span class="dim"> / ${count(job.total_steps)}</span></${Fact}>
    <${Fact} name=${over ? "Duration" : "Time left"}>${duration(over ? elapsed(job.started_at, job.finished_at) : job.seconds_left)}</${Fact}>
    <${Fact} name="Loss">${number(last("loss"))}</${Fact}>
    <${Fact} name="Masked accuracy">${percent(last("mlm_accuracy"))}</${Fact}>
    ${job.evaluation && html`<${Fact} name="Held-out loss">${number(job.evaluation.mlm_loss)}</${Fact}>
      <${Fact} name="Held-out accuracy">${percent(job.evaluation.mlm_accuracy)}</${Fact}>`}
    <${Fact} name="Tokens/s">${compact(last("tokens_per_s"))}</${Fact}>
    <${Fact} name="Workers">${count(job.world_size)}</${Fact}>
    <${Fact} name="Attempt">${count(job.attempt)}</${Fact}>
    ${job.parent && html`<${Fact} name=${job.parent_step ? "Branch of" : "Clone of"}><${Parent} job=${job} /></${Fact}>`}
    <${Fact} name="Created">${when(job.created_at)}</${Fact}>
  </dl>`;
}

/** Where the finished model lies on the server's machine, and the same as an archive. */
function Model({ job }) {
  return html`<p class="model"><span class="dim">Model for transformers</span> <code>${job.export_path}</code>
    <a href="${ROOT}/v1/jobs/${encodeURIComponent(job.id)}/export" download>Download</a></p>`;
}

/** This notice comes and goes unasked, so its room is there without it: nothing on the page may move under the pointer. */
function Silence({ since }) {
  const text = since && `Nothing has been heard of this attempt since ${when(since)}; it may still be training.`;
  const more = since && "Its job waits for it until Ray says that it has ended.";
  return html`<span class="silent" role="status" title=${since && `${text} ${more}`}>${text}</span>`;
}

function Header({ run }) {
  const { job } = run;
  return html`<section class="panel head">
    <div class="headline"><h1>${job.name}</h1><code class="dim">${job.id}</code><${Status} status=${job.status} />
      <${Silence} since=${job.unreachable_since} /><${Actions} run=${run} /></div>
    <${Progress} job=${job} />
    <${Facts} run=${run} />
    ${job.export_path && html`<${Model} job=${job} />`}
    ${job.error && html`<pre class="error" role="alert">${job.error}</pre>`}
  </section>`;
}

function Charts({ run, shared }) {
  const [log, setLog] = useState(false);
  const entropy = run.job.unigram_entropy_nats;
  const line = (name, ink) => ({ label: name, row: ROW[name], band: [ROW[`${name}_min`], ROW[`${name}_max`]], ink });
  // Only this part of the loss compares with the entropy: the other is that of the next-sentence task.
  const masked = { label: "masked words", row: ROW.mlm_loss, ink: "line-masked" };
  const judged = run.job.evaluation;
  const heldOut = (name) => ({ label: "held-out", row: ROW[`evaluation_${name}`], dots: true, ink: "line-held-out" });
  const reference = { label: `unigram entropy ${number(entropy)}`, constant: entropy, dash: true, ink: "muted" };
  const small = { ...shared, timeline: run.metrics, height: 118 };
  const spread = { label: "median", row: ROW.trust_ratio_median, band: [ROW.trust_ratio_p10_min, ROW.trust_ratio_p90_max], ink: "line-ratio" };
  const has = (name) => run.metrics.row(ROW[name]).some((value) => value !== null);
  const others = 2 + [judged, has("grad_norm"), has("trust_ratio_median")].filter(Boolean).length;
  const rows = others > 4 ? 3 : 2; // as tall as the small charts beside it
  return html`<section class="panel charts" aria-label="Metrics">
    <div class="tall" data-rows=${rows}><${Chart} title="Loss" unit="nats" ...${small} height=${160 * rows - 42} log=${log}
      lines=${[line("loss", "line-loss"), masked, ...(judged ? [heldOut("mlm_loss")] : []), ...(entropy ? [reference] : [])]}>
      <label class="toggle"><input type="checkbox" checked=${log} onChange=${(event) => setLog(event.target.checked)} /> logarithmic</label></${Chart}></div>
    <${Chart} title="Learning rate" ...${small} lines=${[line("lr", "line-lr")]} />
    <${Chart} title="Throughput" unit="tokens/s" show=${compact} ...${small} lines=${[line("tokens_per_s", "line-speed")]} />
    ${judged && html`<${Chart} title="Masked accuracy" show=${percent} ...${small} lines=${[line("mlm_accuracy", "line-loss"), heldOut("mlm_accuracy")]} />`}
    ${has("grad_norm") && html`<${Chart} title="Gradient norm" unit="before clipping" log=${true} ...${small} lines=${[line("grad_norm", "line-norm")]} />`}
    ${has("trust_ratio_median") && html`<${Chart} title="Median trust ratio" unit="10–90 %" log=${true} ...${small} show=${(ratio) => number(ratio, 3)} lines=${[spread]} />`}
  </section>`;
}

/** The trust ratio of one tensor over the steps. */
function Line({ run, row, ratios, ...shared }) {
  const name = run.names[row];
  return html`<${Chart} title=${name} unit="trust ratio" show=${(ratio) => number(ratio, 3)} log=${true} height=${170}
    timeline=${ratios} lines=${[{ label: name, row, ink: "line-ratio" }]} ...${shared} />`;
}

const WAITING = {
  QUEUED: "The job is waiting for free processors.",
  STARTING: "The workers are starting and preparing the text.",
  RUNNING: "The workers are computing the first step.",
  PAUSED: "The job is paused and goes on when it is resumed.",
};

function Waiting({ job }) {
  const why = job.queue_reason ? `The job is waiting: ${job.queue_reason}.` : WAITING[job.status];
  return html`<section class="panel waiting dim">${why ?? "The job recorded no steps."}</section>`;
}

const LINKS = { live: "live", reconnecting: "reconnecting…", ended: "ended", connecting: "connecting…", refused: "not connected" };

export function JobPage({ id }) {
  const run = useRun(id);
  const [cursor, window] = useMemo(() => [new Shared(null), new Shared(null)], [id]);
  const { job, error, version } = run;
  const shared = { version, cursor, window };
  if (job) document.title = `${TERMINAL.has(job.status) ? job.status.toLowerCase() : `${Math.floor((100 * job.step) / job.total_steps)} %`} · ${job.name}`;
  return html`<${Bar} end=${html`<span class="link" data-link=${run.link} role="status">${LINKS[run.link]}</span>`}>
      <span aria-hidden="true">/</span><span class="here">${job ? job.name : id}</span></${Bar}>
    <main>
      ${error && html`<${Problem} error=${error} />`}
      ${run.refused && html`<${Problem} error=${run.refused} />`}
      ${job && html`<${Header} run=${run} />
        ${run.metrics.length ? html`<${Charts} run=${run} shared=${shared} />` : html`<${Waiting} job=${job} />`}
        ${run.names.length > 0 && html`<${TrustRatios} run=${run} ...${shared} line=${(row, ratios) => html`<${Line} run=${run} row=${row} ratios=${ratios} ...${shared} />`} />`}<${Records} run=${run} />`}
    </main>`;
}
