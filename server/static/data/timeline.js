// Columns of numbers, one per step: the history of a run in bounded memory.

/** How two values become one where columns are pooled; what is missing hides nothing. */
const POOLED = {
  last: (a, b) => (Number.isNaN(b) ? a : b),
  min: (a, b) => (b >= a || Number.isNaN(b) ? a : b),
  max: (a, b) => (b <= a || Number.isNaN(b) ? a : b),
};

/**
 * Steps ascending; `values` holds one column after the other, NaN where there is nothing. `pooling` says for each row
 * what is kept of columns that are pooled: "last", "min" or "max".
 */
export class Timeline {
  constructor(pooling, capacity = 4096) {
    this.pooling = pooling.map((name) => POOLED[name]);
    this.rows = pooling.length;
    this.capacity = capacity;
    this.steps = new Float64Array(capacity);
    this.values = new Float32Array(this.rows * capacity);
    this.length = 0;
    this.origin = 1;
    this.stride = 1; // steps a column, counted from `origin`
  }

  get first() {
    return this.length ? this.steps[0] : 0;
  }

  get last() {
    return this.length ? this.steps[this.length - 1] : 0;
  }

  /** Index of the first column at or after `step`; `length` if there is none. */
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

  /** Index of the column that `step` belongs to, -1 if there is none. */
  find(step) {
    const index = this.seek(step);
    const holds = (at) => at >= 0 && at < this.length && this.bucket(this.steps[at]) === this.bucket(step);
    return [index, index - 1].find(holds) ?? -1;
  }

  bucket(step) {
    return Math.floor((step - this.origin) / this.stride);
  }

  /** How many columns there are from one step to another, both included. */
  count(from, to) {
    return this.seek(to + 1) - this.seek(from);
  }

  /** Adds a column, replaces the one of the same step, or joins the one that its step is pooled with. */
  put(step, column) {
    const index = this.find(step);
    if (index < 0) this.insert(step, column);
    else if (this.stride === 1) this.write(index, step, column);
    else if (step >= this.steps[index]) {
      this.write(index, step, Array.from(this.pooling, (pool, row) => pool(this.at(index, row), column[row] ?? NaN)));
    }
  }

  insert(step, column) {
    while (this.length === this.capacity) this.pool();
    if (this.find(step) >= 0) return this.put(step, column);
    const index = this.seek(step);
    this.steps.copyWithin(index + 1, index, this.length);
    this.values.copyWithin((index + 1) * this.rows, index * this.rows, this.length * this.rows);
    this.length++;
    return this.write(index, step, column);
  }

  write(index, step, column) {
    this.steps[index] = step;
    for (let row = 0; row < this.rows; row++) this.values[index * this.rows + row] = column[row] ?? NaN;
  }

  /** Sets one row of the column that the step belongs to, where there is one. */
  amend(step, row, value) {
    const index = this.find(step);
    if (index < 0) return;
    const before = this.stride === 1 ? NaN : this.at(index, row);
    this.values[index * this.rows + row] = this.pooling[row](before, value ?? NaN);
  }

  /** Two columns become one: the whole run stays in view, evenly thinned. */
  pool() {
    const { steps, values, length, rows } = this;
    this.stride *= 2;
    this.length = 0;
    for (let index = 0; index < length; index++) this.put(steps[index], values.slice(index * rows, (index + 1) * rows));
  }

  /** Makes room for further rows, which are empty so far. */
  widen(rows) {
    const values = new Float32Array(rows * this.capacity).fill(NaN);
    for (let index = 0; index < this.length; index++) {
      values.set(this.values.subarray(index * this.rows, (index + 1) * this.rows), index * rows);
    }
    this.values = values;
    this.pooling.push(...Array(rows - this.rows).fill(POOLED.last));
    this.rows = rows;
  }

  /** NaN too for a row that came later than this was fetched. */
  at(index, row) {
    return row < this.rows ? this.values[index * this.rows + row] : NaN;
  }

  /** The value of a row at a step, or at the next step that has one; NaN where there is none. */
  value(step, row) {
    const index = this.seek(step);
    return index < this.length ? this.at(index, row) : NaN;
  }

  /** The value of a row in the column that the step belongs to. */
  cell(step, row) {
    const index = this.find(step);
    return index < 0 ? NaN : this.at(index, row);
  }

  /** One row over all columns, with null for nothing, as the charts want it. */
  row(row) {
    return Array.from({ length: this.length }, (_, index) => {
      const value = this.at(index, row);
      return Number.isNaN(value) ? null : value;
    });
  }
}
