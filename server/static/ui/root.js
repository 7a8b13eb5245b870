// Where the pages and routes of the server begin: nothing, or a path such as /bigbatch behind a proxy.

export const ROOT = new URL("../..", import.meta.url).pathname.slice(0, -1);
