// One job as its page sees it: read once, then kept up to date by the stream of its records.

import { follow, readJob, readMetrics, readRecords, readRatios, RETRY_MS } from "./api.js";
import { Timeline } from "./timeline.js";

const SERIES = ["loss", "mlm_loss", "mlm_accuracy", "lr", "grad_norm", "tokens_per_s",
  "trust_ratio_median", "trust_ratio_p10", "trust_ratio_p90",
  "evaluation_mlm_loss", "evaluation_mlm_accuracy"];
const LAST_MIN_MAX = ["last", "min", "max"];
/** Rows of `metrics`: each series, then the lower and upper bound of its bucket. */
export const ROW = Object.fromEntries(
  SERIES.flatMap((name, i) => [[name, 3 * i], [`${name}_min`, 3 * i + 1], [`${name}_max`, 3 * i + 2]]),
);
const KINDS = ["status", "tensors", "step", "evaluation", "checkpoint", "alert", "log"];
const RECORDS = new Set(["status", "evaluation", "checkpoint", "alert", "log"]);
const MAX_RECORDS = 200;

/** What a step's record says of the job. */
const progress = ({ step, seconds_left }) => ({ step, seconds_left });

export class Run {
  constructor(id) {
    this.id = id;
    this.job = null;
    this.error = null;
    this.link = "connecting";
    this.metrics = new Timeline(SERIES.flatMap(() => LAST_MIN_MAX));
    /** Tensors of all steps; a row keeps its place when others come. */
    this.names = [];
    this.adapted = [];
    this.ratios = new Timeline([]);
    this.range = [Infinity, 0];
    /** The rows of each set of tensors. */
    this.sets = new Map();
    this.refused = null;
    this.records = new Map();
    this.skipped = new Set();
    this.latest = null;
    this.asked = 0;
    this.version = 0;
    this.listeners = new Set();
    this.stop = () => {};
  }

  /** Reads what there is, then follows. What arrives twice takes its own place again. */
  async start() {
    try {
      // The number of the last record first: histories read after it have at least all records up to it.
      const { records, last_seq: seen } = await readRecords(this.id);
      const [job, metrics, ratios] = await Promise.all([readJob(this.id), readMetrics(this.id, SERIES), readRatios(this.id)]);
      this.job = job;
      this.error = null;
      for (const record of records) this.records.set(record.seq, record);
      this.takeHistory(metrics, ratios);
      this.stop = follow(this.id, seen, KINDS, (kind, record) => this.take(kind, record),
        (link, error) => this.setLink(link, error));
      this.changed();
    } catch (error) {
      this.fail(error);
      if (error.passes) setTimeout(() => this.start(), RETRY_MS);
    }
  }

  fail(error) {
    this.error = error;
    this.changed();
  }

  takeHistory(metrics, ratios) {
    metrics.steps.forEach((step, i) => {
      this.metrics.put(step, SERIES.flatMap((name) => LAST_MIN_MAX.map((k) => metrics.series[name][k][i])));
    });
    this.setTensors(ratios.names, ratios.adapted);
    Object.assign(this.ratios, { origin: ratios.first, stride: ratios.stride });
    for (const [set, rows] of Object.entries(ratios.sets)) this.sets.set(set, rows);
    for (const step of ratios.skipped) this.skipped.add(step);
    for (const { step, ratios: column } of ratios.columns) this.putRatios(step, column);
  }

  setTensors(names, adapted) {
    this.names = names;
    this.adapted = adapted;
    this.ratios.widen(names.length);
  }

  take(kind, record) {
    if (kind === "step") this.takeStep(record);
    else if (kind === "tensors") this.takeTensors(record);
    else if (kind === "evaluation") this.takeEvaluation(record);
    else if (kind === "status" || kind === "checkpoint") this.refresh();
    if (RECORDS.has(kind) && record.seq) this.records.set(record.seq, record); // the server's own words have no number
    if (this.records.size > MAX_RECORDS) this.records.delete(this.records.keys().next().value);
    this.changed();
  }

  takeTensors({ set, names, adapted }) {
    const known = new Map(this.names.map((name, row) => [name, this.adapted[row]]));
    names.forEach((name, i) => known.set(name, adapted[i]));
    this.setTensors([...known.keys()], [...known.values()]);
    this.sets.set(set, names.map((name) => this.names.indexOf(name)));
  }

  takeStep(record) {
    this.metrics.put(record.step, SERIES.flatMap((name) => Array(3).fill(record[name])));
    if (record.skipped) this.skipped.add(record.step);
    else this.skipped.delete(record.step);
    this.putRatios(record.step, this.column(record));
    this.latest = record;
    this.job = { ...this.job, ...progress(record) };
  }

  /** What held-out text says of the model after a step, which came before it. */
  takeEvaluation(record) {
    for (const name of ["mlm_loss", "mlm_accuracy"]) {
      for (const bound of ["", "_min", "_max"]) this.metrics.amend(record.step, ROW[`evaluation_${name}${bound}`], record[name]);
    }
    this.job = { ...this.job, evaluation: record };
  }

  /** A step's ratios, each in the row of its tensor. Where there is not one for each tensor, none can be trusted. */
  column({ step, set, trust_ratio: ratios }) {
    const column = new Float32Array(this.names.length).fill(NaN);
    if (ratios === null) return column;
    const rows = this.sets.get(set);
    if (rows?.length === ratios.length) rows.forEach((row, i) => { column[row] = ratios[i]; });
    else this.refused = new Error(`Step ${step} has ${ratios.length} trust ratios for ${rows?.length ?? "unnamed"} tensors. They are not drawn.`);
    return column;
  }

  /** The matrix in a window of steps, with the columns that the matrix of the whole run has no room for. */
  async detail(window) {
    const { names, first, stride, columns } = await readRatios(this.id, window);
    const detail = Object.assign(new Timeline(names.map(() => "last")), { origin: first, stride });
    for (const { step, ratios } of columns) detail.put(step, ratios);
    return detail;
  }

  putRatios(step, column) {
    this.ratios.put(step, column);
    const shown = column.filter((ratio, row) => this.adapted[row] && ratio > 0 && ratio < Infinity);
    this.range = [Math.min(this.range[0], ...shown), Math.max(this.range[1], ...shown)];
  }

  setLink(link, error = null) {
    this.link = link;
    if (error) this.fail(error);
    else if (link === "ended") this.refresh(); // it may have been deleted; a stream that begins tells the status by itself
    this.changed();
  }

  /** The job anew: a status says more than its record, such as when it ended. Late answers take nothing back. */
  async refresh() {
    const { latest } = this;
    const asked = ++this.asked;
    try {
      const job = await readJob(this.id);
      if (asked !== this.asked) return;
      this.job = this.latest === latest ? job : { ...job, ...progress(this.latest) };
      this.error = null;
      this.changed();
    } catch (error) {
      if (asked === this.asked) this.fail(error);
    }
  }

  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** However many records arrive, the page is drawn once a frame. */
  changed() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.version++;
      for (const listener of this.listeners) listener();
    });
  }
}
