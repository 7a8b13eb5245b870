// Which page the address asks for. Links are plain links: each page is loaded from scratch and leaves nothing running.

import { render } from "../vendor/preact.js";
import { html } from "../ui/html.js";
import { JobPage } from "./job.js";
import { JobsPage } from "./jobs.js";

const job = location.pathname.match(/\/jobs\/([^/]+)\/?$/);
const page = job ? html`<${JobPage} id=${decodeURIComponent(job[1])} />` : html`<${JobsPage} />`;

render(page, document.getElementById("app"));
