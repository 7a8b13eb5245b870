"""Which checkpoints stay when a new one has been written.

Of those that were written while the loss was in good order, the newest `keep` stay; so do the newest `keep` of the
others. So a run that diverges never displaces the checkpoints from before; it holds up to `2 · keep` meanwhile.
An attempt removes nothing that a later one has written.
"""

from collections.abc import Mapping
from enum import Enum

from workers.contract.run.folder import CheckpointName, RunFolder

from .errors import DamagedError
from .load import age, read_manifest


class State(Enum):
    """What is known of a checkpoint without reading its files."""

    SOUND = "written while the loss was in good order"
    UNSOUND = "written while it was not"
    UNREADABLE = "its manifest cannot be read"
    UNFINISHED = "it has no manifest"


WHOLE = (State.SOUND, State.UNSOUND)


def superseded(states: Mapping[CheckpointName, State], just_written: CheckpointName, keep: int) -> list[CheckpointName]:
    """Choose the checkpoints to remove now that `just_written` is there, the oldest first.

    Whatever was left unfinished goes at once: its writer is dead, or an attempt that a later one has taken over from.
    One that cannot be read goes when it is older than all that stay. Those that are newer than `just_written` neither
    count nor go: a later attempt wrote them, or this one could not use them when it began.
    """
    older = sorted((name for name in states if age(name) <= age(just_written)), key=age)
    sound, unsound = ([name for name in older if states[name] is kind][-keep:] for kind in WHOLE)
    stay = {*sound, *unsound}
    oldest = min(map(age, stay))
    return [name for name in older if name not in stay and (states[name] is not State.UNREADABLE or age(name) < oldest)]


def states(folder: RunFolder) -> dict[CheckpointName, State]:
    """Look at every checkpoint in a run folder."""
    return {name: _state(folder, name) for name in folder.checkpoints()}


def _state(folder: RunFolder, name: CheckpointName) -> State:
    if not folder.store.has(name.manifest):
        return State.UNFINISHED
    try:
        return State.SOUND if read_manifest(folder, name).is_sound else State.UNSOUND
    except DamagedError:
        return State.UNREADABLE
