"""/docs: the API's description as one page that needs no other server."""

import html
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from server.http.context import ServerParts

router = APIRouter(include_in_schema=False)

Schema = dict[str, Any]
_REFERENCE = "#/components/schemas/"
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "minItems": "length at least",
    "maxItems": "length at most",
    "minLength": "length at least",
    "maxLength": "length at most",
    "pattern": "matching",
}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>bigbatch API</title>
<link rel="icon" href="{root}/static/icon.svg">
<link rel="stylesheet" href="{root}/static/style.css"><main class="docs"><h1>bigbatch API {version}</h1>
<p>Send <code>Authorization: Bearer TOKEN</code>. Errors are problem documents (RFC 9457) with <code>detail</code> and,
for a field, <code>errors</code>. The machine-readable form is <a href="{root}/openapi.json">openapi.json</a>.</p>
{operations}<h1>Documents</h1>{schemas}</main></html>"""


@router.get("/docs")
def docs(request: Request, server: ServerParts) -> HTMLResponse:
    """Show every operation with its parameters and its body, and every document with its fields."""
    api: Schema = request.app.openapi()
    operations = [
        _operation(method, path, operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_document(name, schema) for name, schema in sorted(api["components"]["schemas"].items())]
    about = {"version": html.escape(api["info"]["version"]), "root": server.settings.root_path}
    return HTMLResponse(_PAGE.format(**about, operations="".join(operations), schemas="".join(schemas)))


def _operation(method: str, path: str, operation: Schema) -> str:
    parameters = "".join(
        f"<li><code>{html.escape(each['name'])}</code> ({each['in']}): {_kind(each['schema'])}{_described(each)}</li>"
        for each in operation.get("parameters", [])
    )
    bodies = operation.get("requestBody", {}).get("content", {})
    body = "".join(f"<li>body, <code>{media}</code>: {_kind(bodies[media].get('schema', {}))}</li>" for media in bodies)
    text = "".join(f"<p>{html.escape(part)}</p>" for part in operation.get("description", "").split("\n\n"))
    return _section("", f"{method.upper()} {path}", f"{text}<ul>{parameters}{body}</ul>")


def _document(name: str, schema: Schema) -> str:
    required = schema.get("required", [])
    fields = "".join(
        f"<li><code>{html.escape(field)}</code>{' (required)' if field in required else ''}: {_kind(each)}"
        f"{_described(each)}</li>"
        for field, each in schema.get("properties", {}).items()
    )
    values = "" if fields else f"<p>{_kind(schema)}</p>"
    text = html.escape(schema.get("description", ""))
    return _section(name, name, f"<p>{text}</p>{values}<ul>{fields}</ul>")


def _section(anchor: str, title: str, body: str) -> str:
    place = f' id="{html.escape(anchor)}"' if anchor else ""
    return f"<section><h2{place}><code>{html.escape(title)}</code></h2>{body}</section>"


def _described(schema: Schema) -> str:
    return f". {html.escape(schema['description'])}" if "description" in schema else ""


def _kind(schema: Schema) -> str:
    """Describe a value: its type (a link if the page has a section for it), its limits and its default."""
    parts = [_type(schema), *_limits(schema)]
    if "default" in schema:
        parts.append(f"default {_code(schema['default'])}")
    return ", ".join(parts)


def _type(schema: Schema) -> str:
    match schema:
        case {"$ref": str(reference)}:
            name = html.escape(reference.removeprefix(_REFERENCE))
            return f'<a href="#{name}">{name}</a>'
        case {"anyOf": choices} | {"oneOf": choices}:
            return " or ".join(map(_kind, choices))
        case {"const": value}:
            return _code(value)
        case {"enum": values}:
            return "one of " + ", ".join(map(_code, values))
        case {"items": _} | {"prefixItems": _}:
            return f"list of {' and '.join(map(_kind, schema.get('prefixItems') or [schema['items']]))}"
    return html.escape(schema.get("type", "any"))


def _limits(schema: Schema) -> Iterator[str]:
    for name, words in _LIMITS.items():
        if name in schema:
            yield f"{words} {_code(schema[name])}"


def _code(value: Any) -> str:
    return f"<code>{html.escape('null' if value is None else str(value))}</code>"
