"""Where the store of a run is: in the run folder itself, or below a URL, which a file of the folder names."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from workers.contract.files import write_private
from workers.contract.problems import Problem, SpecError
from workers.contract.text_files import is_url

POINTER = "storage.json"
_REMEDY = "write a URL such as s3://BUCKET/FOLDER, and give credentials in the environment"


class _Pointer(BaseModel):
    """What the file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str


def storage_of(run: Path, base: str | None = None) -> str | None:
    """Return the URL below which a run is stored; None where the run folder holds everything itself.

    That is where the run was begun, if it was. Else it is the folder below `base` that is named like the run folder.

    Raises:
        SpecError: the file that names it cannot be read, or `base` is not a URL of a folder.
    """
    if base is not None:
        check_url(base)
    try:
        return _Pointer.model_validate_json((run / POINTER).read_bytes()).url
    except (FileNotFoundError, NotADirectoryError):  # what is no folder is refused where the run folder is made
        is_begun = (run / "run.json").exists() or (run / "spec.yaml").exists()
        return None if base is None or is_begun else f"{base.rstrip('/')}/{run.name}"
    except ValidationError:
        remedy = 'write {"url": "s3://BUCKET/FOLDER/RUN"} into it, the place of the run'
        raise SpecError([Problem("storage", repr(str(run / POINTER)), "cannot be read", remedy)]) from None


def keep(run: Path, url: str) -> None:
    """Have a run folder name its store."""
    write_private(run / POINTER, _Pointer(url=url).model_dump_json() + "\n")


def check_is(run: Path, base: str | None) -> str | None:
    """Return where a run is stored, as `storage_of` does, but refuse another `base` than that of its beginning.

    Raises:
        SpecError: it was begun elsewhere, or as in `storage_of`.
    """
    found = storage_of(run, base)
    if base is not None and found != f"{base.rstrip('/')}/{run.name}":
        problem = f"the run in {run} is stored in {found or 'that folder'}"
        raise SpecError([Problem("--storage", repr(base), problem, "leave it out, or name another folder with --run")])
    return found


def check_url(base: str) -> None:
    """Check that a URL can be that of a folder for runs.

    Raises:
        SpecError: it cannot; it is not shown where it may hold a password.
    """
    place = base.partition("://")[2]
    if "@" in place:
        raise SpecError([Problem("--storage", "(not shown)", "holds a user or a password", _REMEDY)])
    if not is_url(base) or not place.strip("/") or set("?*[#") & set(base):
        raise SpecError([Problem("--storage", repr(base), "is not the URL of a folder", _REMEDY)])
