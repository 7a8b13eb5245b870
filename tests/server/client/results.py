"""Writes server/client/results.py, the types of the client's results, from the description of the API.

python -m tests.server.client.results
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server.http.app import create_app
from server.settings import Settings
from tests.serving import Nowhere

FILE = Path(__file__).parents[3] / "server" / "client" / "results.py"
RESULTS = (
    "Submitted",
    "JobPage",
    "Plan",
    "QueuePlace",
    "Checkpoints",
    "SweepJobs",
    "Sweeps",
    "Metrics",
    "MadeToken",
    "AdminToken",
    "TokenList",
    "DeedPage",
)
"""What the methods of the client return; what these refer to is written, too."""
HEAD = '''"""The types of what the client returns: dictionaries, as the API describes them.

Made by `python -m tests.server.client.results` from the description of the API, and not changed by hand.
"""

from typing import Any, Literal, TypedDict

'''
_SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_REFERENCE = "#/components/schemas/"
Schema = dict[str, Any]


def text() -> str:
    """Return what the file is to hold."""
    with tempfile.TemporaryDirectory() as folder:
        schemas: dict[str, Schema] = create_app(Settings(Path(folder)), Nowhere()).openapi()["components"]["schemas"]
    written = dict[str, str]()
    for name in RESULTS:
        _write(name, schemas, written)
    return _formatted(HEAD + "\n\n".join(written.values()))


def _write(name: str, schemas: dict[str, Schema], written: dict[str, str]) -> None:
    """Write a type behind those that it refers to."""
    if name in written:
        return
    for other in _references(schemas[name]):
        _write(other, schemas, written)
    written[name] = (
        _class(name, schemas[name]) if "properties" in schemas[name] else f"{name} = {_type(schemas[name])}\n"
    )


def _class(name: str, schema: Schema) -> str:
    about = schema.get("description", f"A part of a result: {name}.").split("\n")[0]
    fields = "\n".join(f"    {field}: {_type(each)}" for field, each in schema["properties"].items())
    return f'class {name}(TypedDict):\n    """{about}"""\n\n{fields}\n'


def _type(schema: Schema) -> str:  # noqa: PLR0911 -- a line for each form
    match schema:
        case {"$ref": str(reference)}:
            return reference.removeprefix(_REFERENCE)
        case {"anyOf": choices} | {"oneOf": choices}:
            return " | ".join(dict.fromkeys(map(_type, choices)))
        case {"const": value}:
            return f"Literal[{value!r}]"
        case {"enum": values}:
            return f"Literal[{', '.join(map(repr, values))}]"
        case {"type": "array", "items": items}:
            return f"list[{_type(items)}]"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"dict[str, {_type(values)}]"
        case {"type": "object"}:
            return "dict[str, Any]"
        case {"type": "array"}:
            return "list[Any]"
        case {"type": str(kind)}:
            return _SIMPLE[kind]
    return "Any"


def _references(schema: Any) -> Iterator[str]:
    match schema:
        case {"$ref": str(reference)}:
            yield reference.removeprefix(_REFERENCE)
        case dict():
            for each in schema.values():
                yield from _references(each)
        case list():
            for each in schema:
                yield from _references(each)


def _formatted(source: str) -> str:
    command = [str(Path(sys.executable).parent / "ruff"), "format", "--stdin-filename", str(FILE), "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    FILE.write_text(text())
