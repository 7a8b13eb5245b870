// Evaluations, checkpoints, alerts, changes of status and lines of text, the newest first.

import { bytes, count, duration, number, percent, when } from "../ui/formats.js";
import { html } from "../ui/html.js";

const SAY = {
  status: ({ status, attempt, world_size: workers, zero_stage: stage, error }) => [
    `${status.toLowerCase()}, attempt ${attempt}${workers ? `, ${workers} ${workers === 1 ? "worker" : "workers"}` : ""}${stage == null ? "" : `, ZeRO ${stage}`}`, error],
  checkpoint: ({ step, size_bytes: size, seconds, held_s: held, path }, kept) => [ // older versions did not say `held_s`
    `Checkpoint of step ${count(step)}: ${bytes(size)} in ${duration(seconds)}${held == null ? "" : `, training stood still for ${duration(held)}`}`, kept && !kept.includes(path) ? "removed since then" : path],
  evaluation: ({ step, mlm_loss: loss, mlm_accuracy: accuracy, perplexity, nsp_accuracy: nsp, rows, seq_len: length, seconds }) => [
    `Held-out text after step ${count(step)}: ${percent(accuracy)} of the masked words are right`,
    `MLM loss ${number(loss)} nats, perplexity ${number(perplexity)}, next-sentence accuracy ${percent(nsp)}; ${count(rows)} rows of ${count(length)} tokens in ${duration(seconds)}`],
  alert: ({ title, detail }) => [title, detail],
  log: ({ text }) => text.split(/\n([^]*)/), // the first line, and the others
};

function Record({ record, kept }) {
  const [title, detail] = SAY[record.kind](record, kept);
  return html`<li data-kind=${record.kind} data-level=${record.level ?? (record.status === "FAILED" ? "error" : "info")}>
    <time datetime=${record.time}>${when(record.time)}</time><span class="record-kind">${record.kind}</span>
    <span class="record-text">${title}${detail && html`<small class="dim">${detail}</small>`}</span></li>`;
}

/** Shown once there is something to show. */
export function Records({ run }) {
  if (!run.records.size) return null;
  const records = [...run.records.values()].sort((a, b) => b.seq - a.seq);
  // The paths of all checkpoints that are still there; older versions did not say.
  const kept = records.find(({ kind }) => kind === "checkpoint")?.kept;
  return html`<section class="panel" aria-labelledby="records-title">
    <h2 id="records-title">Events</h2>
    <ol class="records" tabindex="0" aria-labelledby="records-title">${records.map((record) => html`<${Record} key=${record.seq} record=${record} kept=${kept} />`)}</ol>
  </section>`;
}
