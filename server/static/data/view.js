// A value that several drawings share, outside Preact: a pointer moves far more often than a page should be rendered.

import { useLayoutEffect, useState } from "../vendor/preact-hooks.js";

export class Shared {
  constructor(value) {
    this.value = value;
    this.listeners = new Set();
  }

  /** `source` is whoever sets it, so that it need not answer itself. */
  set(value, source = null) {
    if (value === this.value) return;
    this.value = value;
    for (const listener of this.listeners) listener(value, source);
  }

  on(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** Renders the component again when the value changes. */
export function useShared(shared) {
  const [value, setValue] = useState(shared.value);
  useLayoutEffect(() => shared.on(setValue), [shared]);
  return value;
}
