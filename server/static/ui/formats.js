// Numbers, times and tensor names as people read them.

const GROUPED = new Intl.NumberFormat("en-US");
const AXIS = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6 });
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
const NONE = "–";

export const missing = (value) => value === null || value === undefined || Number.isNaN(value);

/** A measured number to `digits` significant digits; powers of ten where zeros would hide it. */
export function number(value, digits = 4) {
  if (missing(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(digits - 1).replace("e-", "e−").replace("e+", "e");
  return size >= 10 ** digits ? GROUPED.format(Math.round(value)) : value.toPrecision(digits);
}

/** A round number for an axis: no trailing zeros. */
export function tick(value) {
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e5)) {
    const [mantissa, power] = value.toExponential(3).split("e");
    return `${Number(mantissa)}e${power.replace("-", "−").replace("+", "")}`;
  }
  return AXIS.format(value);
}

export const count = (value) => (missing(value) ? NONE : GROUPED.format(value));
export const compact = (value) => (missing(value) ? NONE : COMPACT.format(value));
export const percent = (value) => (missing(value) ? NONE : `${(100 * value).toFixed(1)} %`);

export function bytes(value) {
  const power = value < 1 ? 0 : Math.min(4, Math.floor(Math.log2(value) / 10));
  return `${number(value / 1024 ** power, 3)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

/** 0.8 s, 42 s, 3 min 20 s, 4 h 05 min, 2 d 03 h. */
export function duration(seconds) {
  if (missing(seconds) || seconds < 0) return NONE;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  const s = Math.round(seconds);
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${two((s % 86400) / 3600)} h`;
}

/** Seconds from one ISO time to another, or to now. */
export function elapsed(from, to) {
  if (!from) return null;
  return ((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000;
}

/** The time today, the date before. */
export function when(iso) {
  if (!iso) return NONE;
  const date = new Date(iso);
  const time = date.toLocaleTimeString("sv-SE");
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString("sv-SE")} ${time}`;
}

/** "bert.encoder.layer.3.attention.self.query.weight" → group "layer 3", label "attention.self.query". */
export function tensorName(full) {
  const name = full.replace(/^(module\.)?(bert\.)?/, "").replace(/\.weight$/, "");
  const layer = name.match(/^(?:encoder\.)?layers?\.(\d+)\.(.*)$/);
  if (layer) return { group: `layer ${layer[1]}`, label: layer[2] };
  const head = name.match(/^cls\.(predictions|seq_relationship)\.?(.*)$/);
  if (head) return { group: head[1] === "predictions" ? "mlm head" : "nsp head", label: head[2] || head[1] };
  const dot = name.indexOf(".");
  return dot < 0 ? { group: name, label: name } : { group: name.slice(0, dot), label: name.slice(dot + 1) };
}
