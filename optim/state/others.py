"""State dicts of other optimizers, translated into the form in which Lamb saves its own.

apex's FusedLAMB, timm's Lamb and torch's AdamW hold the same two moments under the same names. apex and timm count
steps in their parameter groups, and all three hold settings there that Lamb does not have or has only once.
"""

from collections.abc import Mapping
from typing import Any

from torch.optim.optimizer import StateDict

_SHARED = ("bias_correction", "grad_averaging", "max_grad_norm")
"""Settings of others' groups that Lamb has once, for all groups."""

_UNKNOWN = ("amsgrad", "maximize", "caution", "decoupled_decay", "corrected_weight_decay")
"""Switches that make another optimizer compute what Lamb does not."""

_WITHOUT_EFFECT = ("step", "decoupled_weight_decay", "foreach", "capturable", "differentiable", "fused")
"""What else stands in the groups of others and has no meaning for Lamb."""

_TIMM = ("always_adapt", "trust_clip")
"""Switches of timm that are settings of a group here."""


def translated(saved: StateDict, switches: object) -> StateDict:
    """Return a state dict whose groups and states are named as Lamb's; one of Lamb's own comes back as it is.

    Groups keep what a learning-rate scheduler has added to them. `switches` has the settings that Lamb has once.

    Raises:
        ValueError: the other optimizer computed something that Lamb, or this Lamb, does not.
    """
    groups: list[dict[str, Any]] = saved["param_groups"]
    for group in groups:  # wrappers copy settings into Lamb's own groups too
        _check_computed_alike(group, switches)
    foreign = [group for group in groups if "layer_adaptation" not in group]
    counts = {key: group["step"] for group in foreign if "step" in group for key in group["params"]}
    states = {key: {"step": counts[key], **state} if key in counts else state for key, state in saved["state"].items()}
    return {
        "state": states,
        "param_groups": [group if "layer_adaptation" in group else _group(group) for group in groups],
    }


def _group(theirs: Mapping[str, Any]) -> dict[str, Any]:
    dropped = {*_SHARED, *_UNKNOWN, *_WITHOUT_EFFECT, *_TIMM}
    group = {key: value for key, value in theirs.items() if key not in dropped}
    if "always_adapt" in theirs:
        group["layer_adaptation"] = True if theirs["always_adapt"] else "decayed"
    if theirs.get("trust_clip"):
        group["trust_ratio_bounds"] = (0.0, 1.0)
    return group


def _check_computed_alike(theirs: Mapping[str, Any], switches: object) -> None:
    for name in _SHARED:
        mine = getattr(switches, name)
        if name in theirs and (theirs[name] or None) != (mine or None):
            raise ValueError(
                f"the state was made with {name}={theirs[name]!r} but this Lamb has {mine!r}: "
                f"build it with {name}={theirs[name]!r}, or take {name!r} out of the state's groups"
            )
    for name in _UNKNOWN:
        if theirs.get(name):
            raise ValueError(
                f"the state was made with {name}={theirs[name]!r}, which Lamb does not compute: take {name!r} out of "
                "the state's groups to go on without it"
            )
    if theirs.get("decoupled_weight_decay") is False and theirs.get("weight_decay"):
        raise ValueError(
            f"the state was made with weight_decay={theirs['weight_decay']!r} in the gradients, as torch's Adam adds "
            "it; Lamb adds it to the update: take 'decoupled_weight_decay' out of the state's groups to go on so"
        )
