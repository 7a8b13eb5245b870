// What drawings need to know of the screen: widths, the theme and its colours.

import { useEffect, useLayoutEffect, useState } from "../vendor/preact-hooks.js";

/** The width of an element in CSS pixels, measured before the element is first seen, and kept up to date. */
export function useWidth(ref) {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const measure = () => setWidth(Math.floor(ref.current.getBoundingClientRect().width));
    const observer = new ResizeObserver(measure);
    measure();
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return width;
}

const DARK = matchMedia("(prefers-color-scheme: dark)");

/** "dark" or "light"; drawings on a canvas must be redrawn when it changes. */
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
