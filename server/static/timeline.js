// Columns of numbers, one a step: the history of a run in bounded memory.

/** Steps ascending; `values` holds one column after the other, NaN where there is nothing. */
export class Timeline {
  constructor(rows, capacity = 4096) {
    this.rows = rows;
    this.capacity = capacity;
    this.steps = new Float64Array(capacity);
    this.values = new Float32Array(rows * capacity);
    this.length = 0;
    this.stride = 1; // steps a column, once the run is longer than the capacity
  }

  get first() {
    return this.length ? this.steps[0] : 0;
  }

  get last() {
    return this.length ? this.steps[this.length - 1] : 0;
  }

  /** Index of the first column at or behind `step`; `length` if there is none. */
  seek(step) {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.steps[middle] < step) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** How many columns there are from one step to another, both included. */
  count(from, to) {
    return this.seek(to + 1) - this.seek(from);
  }

  /**
   * Adds a column, or replaces the one of the same step. A step between two columns that were pooled is no column of
   * its own and is passed over.
   */
  put(step, column) {
    let index = this.seek(step);
    if (index < this.length && this.steps[index] !== step) return;
    while (index === this.capacity) {
      this.stride *= 2;
      this.pool();
      index = this.length;
    }
    if (index === this.length && index > 0 && this.bucket(step) === this.bucket(this.last)) index--;
    this.steps[index] = step;
    for (let row = 0; row < this.rows; row++) this.values[index * this.rows + row] = column[row] ?? NaN;
    this.length = Math.max(this.length, index + 1);
  }

  bucket(step) {
    return Math.ceil(step / this.stride);
  }

  /** Of each bucket of `stride` steps the last column is kept: the whole run stays in view, evenly thinned. */
  pool() {
    let kept = 0;
    for (let index = 0; index < this.length; index++) {
      const next = index + 1 < this.length ? this.bucket(this.steps[index + 1]) : Infinity;
      if (this.bucket(this.steps[index]) === next) continue;
      this.steps[kept] = this.steps[index];
      this.values.copyWithin(kept * this.rows, index * this.rows, (index + 1) * this.rows);
      kept++;
    }
    this.length = kept;
  }

  at(index, row) {
    return this.values[index * this.rows + row];
  }

  /** The value of a row at a step, NaN where there is none. */
  value(step, row) {
    const index = this.seek(step);
    return index < this.length ? this.at(index, row) : NaN;
  }

  /** One row over all columns, with null for nothing, as the charts want it. */
  row(row) {
    return Array.from({ length: this.length }, (_, index) => {
      const value = this.at(index, row);
      return Number.isNaN(value) ? null : value;
    });
  }
}
