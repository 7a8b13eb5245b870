// The list of jobs.

import { useEffect, useRef, useState } from "../vendor/preact-hooks.js";
import { followJobs, listJobs } from "../data/api.js";
import { compact, count, duration, elapsed, number, when } from "../ui/formats.js";
import { html } from "../ui/html.js";
import { ROOT } from "../ui/root.js";
import { Bar, Problem, Progress, Status, TERMINAL } from "../ui/parts.js";

/** The newest jobs, live, and older ones on demand. */
function useJobs() {
  const [state, setState] = useState({ jobs: null, cursor: null, error: null });
  const read = async () => {
    try {
      const { jobs, next_cursor: next } = await listJobs();
      setState((old) => ({ jobs: merge(jobs, old.jobs), cursor: old.cursor ?? next, error: null }));
    } catch (error) {
      setState((old) => ({ ...old, error }));
    }
  };
  const take = (job) => setState((old) => ({ ...old, jobs: merge([job], old.jobs) }));
  const forget = (id) => setState((old) => ({ ...old, jobs: old.jobs?.filter((job) => job.id !== id) ?? null }));
  useEffect(() => {
    read();
    return followJobs(read, take, forget, (error) => setState((old) => ({ ...old, error })));
  }, []);
  const more = async () => {
    const { jobs, next_cursor: next } = await listJobs(state.cursor);
    setState((old) => ({ ...old, jobs: merge(old.jobs, jobs), cursor: next ?? "" }));
  };
  return { ...state, more };
}

/** Both lists in one, the newest job first; what `jobs` says of a job is newer than what `others` says. */
function merge(jobs, others) {
  const known = new Map([...(others ?? []), ...jobs].map((job) => [job.id, job]));
  return [...known.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
}

function Row({ job }) {
  const ran = elapsed(job.started_at, job.finished_at);
  return html`<tr>
    <th scope="row"><a href="${ROOT}/jobs/${encodeURIComponent(job.id)}">${job.name}</a><small>${job.id}</small></th>
    <td><${Status} status=${job.status} /></td>
    <td class="grow"><${Progress} job=${job} /></td>
    <td class="num">${count(job.step)}<span class="dim"> / ${count(job.total_steps)}</span></td>
    <td class="num">${number(job.loss)}</td>
    <td class="num wide">${compact(TERMINAL.has(job.status) ? null : job.tokens_per_s)}</td>
    <td class="num wide"><time datetime=${job.created_at}>${when(job.created_at)}</time></td>
    <td class="num wide">${duration(ran)}</td>
  </tr>`;
}

function Table({ jobs }) {
  return html`<table class="jobs">
    <thead><tr>
      <th scope="col">Job</th><th scope="col">Status</th><th scope="col">Progress</th><th scope="col" class="num">Step</th>
      <th scope="col" class="num">Loss</th><th scope="col" class="num wide">Tokens/s</th>
      <th scope="col" class="num wide">Created</th><th scope="col" class="num wide">Duration</th>
    </tr></thead>
    <tbody>${jobs.map((job) => html`<${Row} key=${job.id} job=${job} />`)}</tbody>
  </table>`;
}

/** Browsers offer the clipboard only to pages over HTTPS or from the same machine; elsewhere the text is selected. */
async function copy(text, element) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return "Copied";
  }
  getSelection().selectAllChildren(element);
  return document.execCommand("copy") ? "Copied" : "Selected";
}

function Snippet({ text }) {
  const code = useRef();
  const [label, setLabel] = useState("Copy");
  const press = () => copy(text, code.current).then(setLabel, () => setLabel("Not copied"));
  return html`<div class="snippet"><pre><code ref=${code}>${text}</code></pre>
    <button type="button" onClick=${press}>${label}</button></div>`;
}

const quoted = (path) => (/^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

/** Commands for a terminal: on the server's own machine they find its folders, elsewhere they name its address. */
function commands() {
  const { home, demo } = document.getElementById("app").dataset;
  const isHere = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const file = isHere ? quoted(demo) : "configs/demo.yaml";
  const token = isHere ? `$(cat ${quoted(`${home}/admin.token`)})` : "$BIGBATCH_TOKEN";
  return {
    note: isHere ? "" : html`<p>Set <code>BIGBATCH_TOKEN</code> to the token in <code>${home}/admin.token</code> on the server first.</p>`,
    submit: `bigbatch submit ${file} ${isHere ? `--home ${quoted(home)}` : `--url ${location.origin}${ROOT}`}`,
    curl: `curl ${location.origin}${ROOT}/v1/jobs \\
  -H "Authorization: Bearer ${token}" \\
  -H "Content-Type: application/yaml" --data-binary @${file}`,
  };
}

function Empty() {
  const { note, submit, curl } = commands();
  return html`<section class="empty">
    <h2>No jobs yet</h2>
    <p>Submit one from a terminal. The demo trains a small BERT on four novels, in about two minutes on two cores.</p>
    ${note}
    <${Snippet} text=${submit} />
    <p>Or send the same file to the REST API:</p>
    <${Snippet} text=${curl} />
    <p class="dim">The job will appear here without a reload. The API is documented at <a href="${ROOT}/docs">/docs</a>.</p>
  </section>`;
}

export function JobsPage() {
  const { jobs, cursor, error, more } = useJobs();
  const active = jobs?.filter((job) => !TERMINAL.has(job.status)).length ?? 0;
  document.title = active ? `(${active}) bigbatch` : "bigbatch";
  return html`<${Bar} end=${html`<a href="${ROOT}/docs">API</a>`} />
    <main>
      <div class="headline"><h1>Jobs</h1>${jobs && html`<span class="dim">${active} active, ${jobs.length} shown</span>`}</div>
      ${error && html`<${Problem} error=${error} />`}
      ${jobs && (jobs.length ? html`<${Table} jobs=${jobs} />` : html`<${Empty} />`)}
      ${cursor && html`<button type="button" onClick=${more}>Older jobs</button>`}
    </main>`;
}
