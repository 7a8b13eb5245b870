// The pixels of the trust-ratio matrix.

import { PACKED } from "../ui/scales.js";

/** Height of the strip above the matrix that marks steps, in CSS pixels. */
export const STRIP_PX = 8;

/** Where steps lie between the left and the right edge: each one is a slot as wide as the others. */
export class Steps {
  constructor(from, to, width) {
    this.from = from;
    this.width = width;
    this.slots = to - from + 1;
  }

  /** The step under x. */
  at(x) {
    return Math.min(this.from + this.slots - 1, Math.max(this.from, this.from + Math.floor((x / this.width) * this.slots)));
  }

  /** The middle of a step's slot. */
  x(step) {
    return ((step - this.from + 0.5) / this.slots) * this.width;
  }
}

/** RGBA text of a style-sheet colour → the word that an ImageData buffer holds. */
function word(css) {
  const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  probe.fillStyle = css;
  probe.fillRect(0, 0, 1, 1);
  return new Uint32Array(probe.getImageData(0, 0, 1, 1).data.buffer)[0];
}

/** For each pixel from left to right the column of `ratios` it shows, -1 for none. */
function columnsByPixel(ratios, steps, pixels) {
  const columns = new Int32Array(pixels);
  const scaled = new Steps(steps.from, steps.from + steps.slots - 1, pixels);
  for (let x = 0; x < pixels; x++) columns[x] = ratios.find(scaled.at(x + 0.5));
  return columns;
}

/**
 * One line of pixels per tensor: colour by ratio, `still` where the ratio is held at 1, transparent where there is none,
 * so that the hatching behind shows.
 */
function image(ratios, adapted, rows, columns, scale, still) {
  const pixels = new Uint32Array(columns.length * rows.length);
  rows.forEach((row, y) => {
    const line = y * columns.length;
    for (let x = 0; x < columns.length; x++) {
      if (columns[x] < 0) continue;
      const ratio = ratios.at(columns[x], row);
      if (Number.isNaN(ratio)) continue;
      pixels[line + x] = adapted[row] ? PACKED[scale.index(ratio)] : still;
    }
  });
  return new ImageData(new Uint8ClampedArray(pixels.buffer), columns.length, rows.length);
}

function marks(context, steps, unit, marked, ink) {
  context.fillStyle = ink;
  for (const step of marked) {
    if (step < steps.from || step >= steps.from + steps.slots) continue;
    const x = Math.round(steps.x(step) * unit);
    context.beginPath();
    context.moveTo(x - 3.5 * unit, 0);
    context.lineTo(x + 3.5 * unit, 0);
    context.lineTo(x, (STRIP_PX - 2) * unit);
    context.fill();
  }
}

/**
 * Draws it all: the strip of marks, and below it `rows` (indices into `ratios`, top to bottom), each `rowHeight` high.
 * `breaks` are the positions in `rows` where a new group begins; `inks` gives {still, gap, skipped, checkpoint}.
 */
export function paint(canvas, { ratios, adapted, rows, rowHeight, breaks, scale, steps, skipped, checkpoints, inks }) {
  const unit = devicePixelRatio;
  const width = Math.max(1, Math.round(steps.width * unit));
  const top = Math.round(STRIP_PX * unit);
  canvas.width = width;
  canvas.height = top + Math.round(rows.length * rowHeight * unit);
  const context = canvas.getContext("2d");
  marks(context, steps, unit, checkpoints, inks.checkpoint);
  marks(context, steps, unit, skipped, inks.skipped);
  if (!rows.length) return;
  const columns = columnsByPixel(ratios, steps, width);
  const small = new OffscreenCanvas(width, rows.length);
  small.getContext("2d").putImageData(image(ratios, adapted, rows, columns, scale, word(inks.still)), 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, top, width, canvas.height - top);
  context.fillStyle = inks.gap;
  for (const at of breaks) context.fillRect(0, top + Math.round(at * rowHeight * unit), width, 1);
}
