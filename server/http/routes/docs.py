"""/docs: the API's description as one page that needs no other server."""

import html
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>bigbatch API</title>
<link rel="stylesheet" href="/static/style.css"><main class="docs"><h1>bigbatch API {version}</h1>
<p>Send <code>Authorization: Bearer TOKEN</code>. Errors are problem documents (RFC 9457) with <code>detail</code> and,
for a field, <code>errors</code>. The machine-readable form is <a href="/openapi.json">openapi.json</a>.</p>
{operations}</main></html>"""


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """Show every operation with its parameters."""
    schema: dict[str, Any] = request.app.openapi()
    operations = [
        _operation(method, path, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    return HTMLResponse(_PAGE.format(version=html.escape(schema["info"]["version"]), operations="".join(operations)))


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{html.escape(each['name'])}</code> ({each['in']}): {html.escape(_kind(each['schema']))}</li>"
        for each in operation.get("parameters", [])
    )
    text = "".join(f"<p>{html.escape(part)}</p>" for part in operation.get("description", "").split("\n\n"))
    return f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>{text}<ul>{parameters}</ul></section>"


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    limits = [
        f"{word} {schema[name]}"
        for name, word in (("minimum", "at least"), ("maximum", "at most"), ("default", "default"))
        if name in schema
    ]
    return ", ".join([schema.get("type", "text"), *limits])
