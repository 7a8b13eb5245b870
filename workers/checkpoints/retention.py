"""Which checkpoints stay when a new one has been written.

Of those that were written while the loss was in good order, the newest `keep` stay; so do the newest `keep` of the
others. So a run that diverges never displaces the checkpoints from before; it holds up to `2 · keep` meanwhile. Besides
these, one of every `keep_every` stays, and the best of each phase. An attempt removes nothing that a later one has
written.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from workers.contract.manifests import CheckpointManifest
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.spec.checkpoint import Checkpoint

from .errors import DamagedError
from .load import age, read_manifest


class State(Enum):
    """What is known of a checkpoint without reading its files."""

    SOUND = "written while the loss was in good order"
    UNSOUND = "written while it was not"
    UNREADABLE = "its manifest cannot be read"
    UNFINISHED = "it has no manifest, or got it after a newer attempt had begun"


WHOLE = (State.SOUND, State.UNSOUND)


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint, as its manifest describes it."""

    state: State
    phase: int | None = None
    """In which its step was judged by held-out text; None where it was not."""
    held_out_loss: float | None = None
    """In nats a masked position; None also where it was not finite."""


def superseded(
    found: Mapping[CheckpointName, Found], just_written: CheckpointName, spec: Checkpoint
) -> list[CheckpointName]:
    """Choose the checkpoints to remove now that `just_written` is there, the oldest first.

    Whatever was left unfinished goes at once: its writer is dead, or an attempt that a later one has taken over from.
    One that cannot be read goes when it is older than the newest ones that stay. Those that are newer than
    `just_written` neither count nor go: a later attempt wrote them, or this one could not use them when it began.
    """
    older = sorted((name for name in found if age(name) <= age(just_written)), key=age)
    newest = {name for kind in WHOLE for name in [each for each in older if found[each].state is kind][-spec.keep :]}
    whole = [name for name in older if found[name].state in WHOLE]
    stay = newest | {name for name in whole if spec.is_milestone(name.step)}
    if spec.keep_best:
        stay |= set(_best(found, whole))
    oldest = min(map(age, newest))
    return [
        name for name in older if name not in stay and (found[name].state is not State.UNREADABLE or age(name) < oldest)
    ]


def _best(found: Mapping[CheckpointName, Found], whole: Iterable[CheckpointName]) -> Iterator[CheckpointName]:
    """Yield the checkpoint of each phase with the lowest held-out loss, the older where two have the same."""
    best: dict[int, tuple[float, CheckpointName]] = {}
    for name in whole:
        phase, loss = found[name].phase, found[name].held_out_loss
        if phase is not None and loss is not None and (phase not in best or loss < best[phase][0]):
            best[phase] = loss, name
    return iter(name for _, name in best.values())


def look(folder: RunFolder) -> dict[CheckpointName, Found]:
    """Look at every checkpoint in a run folder."""
    finished = folder.finished()
    return {name: _look(folder, name) if name in finished else Found(State.UNFINISHED) for name in folder.checkpoints()}


def _look(folder: RunFolder, name: CheckpointName) -> Found:
    try:
        return _found(read_manifest(folder, name))
    except DamagedError:
        return Found(State.UNREADABLE)


def _found(manifest: CheckpointManifest) -> Found:
    state, judged = State.SOUND if manifest.is_sound else State.UNSOUND, manifest.evaluation
    if judged is None or judged.step != manifest.step:
        return Found(state)
    return Found(state, judged.phase, judged.mlm_loss)
