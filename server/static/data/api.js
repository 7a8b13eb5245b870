// The REST API as the pages use it. The cookie of the browser's session goes along by itself.

import { ROOT } from "../ui/root.js";

/** A refused request: the title and detail of the server's problem document. Status 0: there was no answer. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The server answered ${status}.`);
    this.status = status;
  }

  /** Whether the same request may succeed later. */
  get passes() {
    return this.status === 0 || this.status >= 500;
  }
}

const AWAY = { detail: "The server does not answer." };
export const RETRY_MS = 3000;

async function request(path, options = {}) {
  const response = await fetch(`${ROOT}/v1${path}`, options).catch(() => {
    throw new ApiError(0, AWAY);
  });
  if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => ({})));
  return response;
}

const json = async (path, options) => (await request(path, options)).json();
const enc = encodeURIComponent;

export const listJobs = (cursor = "") => json(`/jobs?limit=100${cursor && `&cursor=${enc(cursor)}`}`);
export const readJob = (id) => json(`/jobs/${enc(id)}`);
/** Asks something of a job: pause, resume, checkpoint, cancel or retry. */
export const askJob = (id, verb) => json(`/jobs/${enc(id)}/${verb}`, { method: "POST" });
export const readMetrics = (id, series) => json(`/jobs/${enc(id)}/metrics?series=${series.join(",")}&buckets=2000`);
/** The newest evaluations, checkpoints, alerts, changes of status and lines of text, and the number of the last record of all. */
export const readRecords = (id) => json(`/jobs/${enc(id)}/records?kind=status&kind=evaluation&kind=checkpoint&kind=alert&kind=log`);

/** The numbers that the 65,536 patterns of a half-precision float stand for; not every browser has Float16Array. */
const HALVES = Float32Array.from({ length: 65536 }, (_, bits) => {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
});

/** The numbers of a step's record: base64 of little-endian float32, or null. */
const floats = (text) => text && new Float32Array(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);

/**
 * The matrix so far, or in a window of steps: {names, adapted, sets, first, stride, skipped, columns: [{step, ratios}]}. The numbers
 * come packed after their names, a third of their JSON.
 */
export async function readRatios(id, window = null) {
  const path = `/jobs/${enc(id)}/trust-ratios`;
  const within = window ? `&from=${window[0]}&to=${window[1]}` : "";
  const packed = await request(`${path}?columns=2048${within}`, { headers: { Accept: "application/octet-stream" } });
  const body = await packed.arrayBuffer();
  const length = new DataView(body).getUint32(0, true);
  const { steps, ...head } = JSON.parse(new TextDecoder().decode(new Uint8Array(body, 4, length)));
  const bits = new Uint16Array(body, 4 + length);
  const columns = steps.map((step, k) => ({
    step,
    ratios: Float32Array.from(head.names, (_, row) => HALVES[bits[row * steps.length + k]]),
  }));
  return { ...head, columns };
}

/**
 * Opens a stream and keeps it open; `listen` adds the listeners of its events. The browser resumes by Last-Event-ID
 * when the line breaks, which `lost` is told of; where it gives up, `ask` finds out why. If that is refused too, as
 * after the session's end, so is the stream: `refused` gets the error, and nothing is opened any more. Otherwise, as on
 * an error page of a proxy, a new stream takes over. Returns a function that stops.
 */
function keepOpen({ path, ask, listen, lost, refused }) {
  let source;
  let timer;
  let stopped = false;
  const open = () => {
    source = new EventSource(`${ROOT}/v1${path()}`);
    source.onerror = () => {
      lost();
      if (source.readyState === EventSource.CLOSED) ask().then(again, (error) => (error.passes ? again() : refused(error)));
    };
    listen(source);
  };
  const again = () => {
    if (!stopped) timer = setTimeout(open, RETRY_MS);
  };
  open();
  return () => {
    stopped = true;
    clearTimeout(timer);
    source.close();
  };
}

/**
 * Follows a job's records after number `after`. `take(kind, record)` gets each one, `state(text, error)` gets "live",
 * "reconnecting", "ended", or "refused" with the error. Returns a function that stops.
 */
export function follow(id, after, kinds, take, state) {
  const listen = (source) => {
    source.onopen = () => state("live");
    for (const kind of kinds) {
      source.addEventListener(kind, (event) => {
        after = Number(event.lastEventId) || after;
        const record = JSON.parse(event.data);
        take(kind, kind === "step" ? { ...record, trust_ratio: floats(record.trust_ratio) } : record);
      });
    }
    source.addEventListener("end", () => {
      source.close();
      state("ended");
    });
  };
  return keepOpen({
    path: () => `/jobs/${enc(id)}/events?after=${after}`,
    ask: () => readJob(id),
    listen,
    lost: () => state("reconnecting"),
    refused: (error) => state("refused", error),
  });
}

/** Follows all jobs: `read` whenever the stream starts again, `take(job)` for each job that changed, `forget(id)` for each deleted one. */
export function followJobs(read, take, forget, fail) {
  const listen = (source) => {
    source.onopen = read;
    source.addEventListener("job", (event) => take(JSON.parse(event.data)));
    source.addEventListener("deleted", (event) => forget(JSON.parse(event.data).id));
  };
  return keepOpen({ path: () => "/events", ask: listJobs, listen, lost: () => fail(new ApiError(0, AWAY)), refused: fail });
}
