// What can be asked of a job, as buttons: those that its status allows.

import { useRef, useState } from "../vendor/preact-hooks.js";
import { askJob } from "../data/api.js";
import { html } from "../ui/html.js";
import { Problem, TERMINAL } from "../ui/parts.js";

const ALLOWED = {
  pause: new Set(["QUEUED", "STARTING", "RUNNING"]),
  resume: new Set(["PAUSED"]),
  checkpoint: new Set(["RUNNING"]),
  retry: new Set(["FAILED", "CANCELLED"]),
};
const LABELS = { pause: "Pause", resume: "Resume", checkpoint: "Save checkpoint", retry: "Retry" };

function Cancel({ job, ask }) {
  const dialog = useRef();
  return html`<button type="button" class="danger" onClick=${() => dialog.current.showModal()}>Cancel job…</button>
    <dialog ref=${dialog} aria-labelledby="cancel-title" onClose=${() => dialog.current.returnValue === "cancel-job" && ask("cancel")}>
      <form method="dialog">
        <h2 id="cancel-title">Cancel ${job.name}?</h2>
        <p>The workers save a checkpoint and stop. Everything recorded so far is kept.</p>
        <div class="choices"><button value="keep" autofocus>Keep running</button>
          <button value="cancel-job" class="danger">Cancel job</button></div>
      </form>
    </dialog>`;
}

export function Actions({ run }) {
  const { job } = run;
  const [error, setError] = useState(null);
  const ask = async (verb) => {
    try {
      await askJob(run.id, verb);
      setError(null);
      if (verb === "retry") await run.start(); // the stream had ended
      else run.refresh();
    } catch (problem) {
      setError(problem);
    }
  };
  const isSaving = job.command === "checkpoint";
  const verbs = Object.keys(ALLOWED).filter((verb) => ALLOWED[verb].has(job.status));
  return html`${verbs.map((verb) => html`<button type="button" key=${verb} disabled=${verb === "checkpoint" && isSaving}
      onClick=${() => ask(verb)}>${verb === "checkpoint" && isSaving ? "Saving…" : LABELS[verb]}</button>`)}
    ${!TERMINAL.has(job.status) && html`<${Cancel} job=${job} ask=${ask} />`}
    ${error && html`<${Problem} error=${error} />`}`;
}
