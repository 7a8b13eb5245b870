// Small parts that both pages show.

import { html } from "./html.js";
import { count } from "./formats.js";
import { ROOT } from "./root.js";

export const TERMINAL = new Set(["SUCCEEDED", "FAILED", "CANCELLED"]);

export function Bar({ children, end }) {
  return html`<header class="bar">
    <nav aria-label="Breadcrumb"><a class="brand" href="${ROOT}/">bigbatch</a>${children}</nav>
    <div class="bar-end">${end}
      <form method="post" action="${ROOT}/logout"><button>Log out</button></form></div>
  </header>`;
}

/** A status as a word with a mark before it: never by colour alone. */
export function Status({ status }) {
  return html`<span class="status" data-status=${status}>${status.toLowerCase()}</span>`;
}

export function Progress({ job }) {
  const share = job.total_steps ? job.step / job.total_steps : 0;
  return html`<progress class="progress" data-status=${job.status} max="1" value=${share}
    aria-label="Progress" title="${count(job.step)} of ${count(job.total_steps)} steps">${Math.round(100 * share)} %</progress>`;
}

function hint(error) {
  if (error.status === 401) return "Open the link with the token that “bigbatch serve” printed; it signs this browser in.";
  return error.passes ? "The page reconnects as soon as the server answers." : "";
}

export function Problem({ error }) {
  return html`<div class="problem" role="alert"><strong>${error.message}</strong><span>${hint(error)}</span></div>`;
}
