// The colour table of the trust-ratio matrix and its logarithmic scale.

const SIZE = 256;
/** Fixed range: what LAMB's ratios of a BERT run through from the first step to the last. */
export const FIXED = [1e-3, 10];

/** OKLCH (lightness, chroma, hue in degrees) → linear sRGB. */
function linearRgb(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}

const gamma = (channel) => Math.round(255 * (channel <= 0.0031308 ? 12.92 * channel : 1.055 * channel ** (1 / 2.4) - 0.055));

/**
 * 256 colours of evenly rising perceptual lightness, violet over teal to pale yellow. Lightness alone tells the order,
 * so that the map also reads without red and green, and in grey.
 */
export const TABLE = Array.from({ length: SIZE }, (_, i) => {
  const t = i / (SIZE - 1);
  const chroma = 0.098 + 0.16 * (t - 0.42) ** 2; // as much as sRGB holds throughout; teal, in the middle, holds least
  return linearRgb(0.27 + 0.67 * t, chroma, 300 - 195 * t).map(gamma);
});

/** The table as RGBA words in the machine's byte order, ready for an ImageData buffer. */
export const PACKED = new Uint32Array(new Uint8Array(TABLE.flatMap((c) => [...c, 255])).buffer);

/** Round numbers 1, 2, 5 × 10ⁿ in [low, high]; decades alone when there are many. */
export function logTicks(low, high, mantissas = null) {
  const decades = Math.log10(high / low);
  mantissas ??= decades > 3 ? [1] : decades > 0.8 ? [1, 2, 5] : [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const mantissa of mantissas) {
      const value = Number((mantissa * 10 ** power).toPrecision(3));
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
    }
  }
  return ticks;
}

/** Where a ratio lies between `low` and `high`, by its logarithm. */
export class LogScale {
  constructor([low, high] = FIXED) {
    this.low = low;
    this.high = high;
    this.offset = Math.log(low);
    this.factor = 1 / (Math.log(high) - this.offset);
  }

  /** The smallest range that begins and ends on 1, 2 or 5 × 10ⁿ, so that it seldom moves during a run. */
  static around(low, high) {
    if (!(low > 0 && high >= low)) return new LogScale();
    const grid = logTicks(low / 10, high * 10, [1, 2, 5]);
    const from = grid.filter((value) => value <= low).pop() ?? low / 2;
    const to = grid.find((value) => value >= high * 1.0001) ?? high * 2;
    return new LogScale([from, to]);
  }

  fraction(value) {
    return Math.min(1, Math.max(0, (Math.log(value) - this.offset) * this.factor));
  }

  index(value) {
    return Math.round(this.fraction(value) * (SIZE - 1));
  }
}
