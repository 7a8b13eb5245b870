// A value that several drawings share, outside Preact: a pointer moves far more often than a page should be rendered.

import { useEffect, useState } from "./vendor/preact-hooks.js";

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
  useEffect(() => shared.on(setValue), [shared]);
  return value;
}

/** The width of an element in CSS pixels, kept up to date; 0 before it is laid out. */
export function useWidth(ref) {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return width;
}

const DARK = matchMedia("(prefers-color-scheme: dark)");

/** "dark" or "light"; drawings on a canvas must be made anew when it changes. */
export function useTheme() {
  const [dark, setDark] = useState(DARK.matches);
  useEffect(() => {
    const listener = () => setDark(DARK.matches);
    DARK.addEventListener("change", listener);
    return () => DARK.removeEventListener("change", listener);
  }, []);
  return dark ? "dark" : "light";
}

/** A colour of the style sheet, for drawing on a canvas. */
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
