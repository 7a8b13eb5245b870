"""What the page is made of: files of other projects, and rooms that need only those below them."""

import hashlib
import json
import re

from tests.server.static.page import STATIC


def test_vendored_files_are_those_of_the_manifest() -> None:
    manifest = json.loads((STATIC / "vendor" / "manifest.json").read_text())
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").iterdir()}
    del hashes["manifest.json"]
    assert hashes == {name: entry["sha256"] for name, entry in manifest.items()}


def test_every_vendored_package_brings_its_licence() -> None:
    manifest = json.loads((STATIC / "vendor" / "manifest.json").read_text())
    packages = {entry["package"] for entry in manifest.values()}
    assert {f"LICENSE.{package}" for package in packages} <= set(manifest)


def test_the_rooms_of_the_page_need_only_those_below_them() -> None:
    below = {"ui": {"ui"}, "data": {"ui", "data"}, "charts": {"ui", "data", "charts"}}
    below |= {"matrix": {"ui", "data", "matrix"}, "pages": {"ui", "data", "charts", "matrix", "pages"}}
    for room, allowed in below.items():
        files = list((STATIC / room).glob("*.js"))
        assert files
        for file in files:
            needed = re.findall(r'from "(\.{1,2})/(?:(\w+)/)?[\w-]+\.js"', file.read_text())
            assert {folder or room for _, folder in needed} <= allowed | {"vendor"}, file.name
