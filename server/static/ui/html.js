// The template tag: htm bound to Preact, so that no build step is needed.
import { h } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
