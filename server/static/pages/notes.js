// Evaluations, checkpoints, alerts, changes of status and lines of text, the newest first.

import { bytes, count, duration, number, percent, when } from "../ui/formats.js";
import { html } from "../ui/html.js";

const SAY = {
  status: ({ status, attempt, world_size: workers, error }) => [
    `${status.toLowerCase()}, attempt ${attempt}${workers ? `, ${workers} ${workers === 1 ? "worker" : "workers"}` : ""}`, error],
  checkpoint: ({ step, size_bytes: size, seconds, path }, kept) => [
    `Checkpoint of step ${count(step)}: ${bytes(size)} in ${duration(seconds)}`, kept && !kept.includes(path) ? "removed since then" : path],
  evaluation: ({ step, mlm_loss: loss, mlm_accuracy: accuracy, perplexity, nsp_accuracy: nsp, rows, seq_len: length, seconds }) => [
    `Held-out text after step ${count(step)}: ${percent(accuracy)} of the masked words are right`,
    `MLM loss ${number(loss)} nats, perplexity ${number(perplexity)}, next-sentence accuracy ${percent(nsp)}; ${count(rows)} rows of ${count(length)} tokens in ${duration(seconds)}`],
  alert: ({ title, detail }) => [title, detail],
  log: ({ text }) => text.split(/\n([^]*)/), // the first line, and the others
};

function Note({ note, kept }) {
  const [title, detail] = SAY[note.kind](note, kept);
  return html`<li data-kind=${note.kind} data-level=${note.level ?? (note.status === "FAILED" ? "error" : "info")}>
    <time datetime=${note.time}>${when(note.time)}</time><span class="note-kind">${note.kind}</span>
    <span class="note-text">${title}${detail && html`<small class="dim">${detail}</small>`}</span></li>`;
}

/** Shown once there is something to show. */
export function Notes({ run }) {
  if (!run.notes.size) return null;
  const notes = [...run.notes.values()].sort((a, b) => b.seq - a.seq);
  // The paths of all checkpoints that are still there; older versions did not say.
  const kept = notes.find(({ kind }) => kind === "checkpoint")?.kept;
  return html`<section class="panel" aria-labelledby="notes-title">
    <h2 id="notes-title">Events</h2>
    <ol class="notes" tabindex="0" aria-labelledby="notes-title">${notes.map((note) => html`<${Note} key=${note.seq} note=${note} kept=${kept} />`)}</ol>
  </section>`;
}
