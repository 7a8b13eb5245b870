"""State dicts: as Lamb saves its own, and as it takes over those of others."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim.optimizer import StateDict

from .state import Loaded, load_state, portable
from .validation import check_group

_SHARED = ("bias_correction", "grad_averaging", "max_grad_norm")
"""Switches that others keep in their groups and Lamb for all of them."""

_UNKNOWN = ("amsgrad", "maximize", "caution", "decoupled_decay", "corrected_weight_decay")
"""Switches of others that make them compute what Lamb does not."""

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")


def portable_form(own: StateDict) -> StateDict:
    """Return a state dict in which any cut of the parameters finds its part."""
    return own | {"state": {key: portable(state) for key, state in own["state"].items()}}


def own_form(
    saved: StateDict, groups: Sequence[dict[str, Any]], named: Sequence[tuple[str, Tensor]], switches: Any
) -> StateDict:
    """Return a saved state dict as that of an optimizer with these groups, parameters in order, and switches.

    Raises:
        ValueError: the groups do not match, their settings are bad or were others, or a state does not fit.
        TypeError: a setting is of the wrong kind.
    """
    adopted = _adopt(groups, saved["param_groups"], switches)
    for group in adopted:
        check_group(group)
    keys = [key for group in adopted for key in group["params"]]
    counts = [group.get("step") for group in saved["param_groups"] for _ in group["params"]]
    kept = {"moments": switches.moments, "master_weights": switches.master_weights}
    states = {
        key: Loaded(load_state(name, parameter, {"step": count, **saved["state"][key]}, **kept))
        for key, count, (name, parameter) in zip(keys, counts, named, strict=True)
        if key in saved["state"]
    }
    return {"state": states, "param_groups": adopted}


def _adopt(own: Sequence[dict[str, Any]], saved: Sequence[dict[str, Any]], switches: object) -> list[dict[str, Any]]:
    """Return saved groups as Lamb's own: what a foreign group lacks stays, what Lamb does not know goes.

    Parameters keep the names and the order that they have here; "params" are the keys of their saved states. Within a
    group they are found by name where both sides have names, else by position, as PyTorch's optimizers do. `switches`
    has the settings that are one for all groups of Lamb.

    Raises:
        ValueError: number, sizes or names of the groups differ, or the other optimizer computed something else.
    """
    if len(own) != len(saved):
        raise ValueError(
            f"the state has {len(saved)} parameter groups but this Lamb {len(own)}: build them as when it was saved"
        )
    for group in saved:
        _check_computed_alike(group, switches)
    return [
        _settings(ours, theirs) | {"params": _in_order(number, ours, theirs)}
        for number, (ours, theirs) in enumerate(zip(own, saved, strict=True))
    ]


def _check_computed_alike(saved: Mapping[str, Any], switches: object) -> None:
    for name in _SHARED:
        mine = getattr(switches, name)
        if name in saved and (saved[name] or None) != (mine or None):
            raise ValueError(
                f"the state was made with {name}={saved[name]!r} but this Lamb has {mine!r}: "
                f"build it with {name}={saved[name]!r}, or take {name!r} out of the state's groups"
            )
    for name in _UNKNOWN:
        if saved.get(name):
            raise ValueError(
                f"the state was made with {name}={saved[name]!r}, which Lamb does not compute: take {name!r} out of "
                "the state's groups to go on without it"
            )


def _settings(own: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    names = {"param_names": own["param_names"]} if "param_names" in own else {}
    if "layer_adaptation" in saved:  # one of ours, perhaps with what a scheduler has added
        return dict(saved) | names
    adopted = dict(own) | {key: saved[key] for key in saved if key in own} | names
    if "always_adapt" in saved:  # timm's
        adopted["layer_adaptation"] = True if saved["always_adapt"] else "decayed"
    if saved.get("trust_clip"):
        adopted["trust_ratio_bounds"] = (0.0, 1.0)
    return adopted


def _in_order(number: int, own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[Any]:
    """Return the keys of a saved group's states in the order of our parameters."""
    keys: list[Any] = saved["params"]
    if len(keys) != len(own["params"]):
        raise ValueError(
            f"group {number} has {len(keys)} parameters in the state but {len(own['params'])} here: "
            "build the groups as when it was saved"
        )
    names, theirs = own.get("param_names"), saved.get("param_names")
    if not names or not theirs or any(isinstance(key, str) for key in keys):  # strings come in our order, from DCP
        return keys
    return _matched(number, keys, list(names), list(theirs))


def _matched(number: int, keys: list[Any], names: list[str], saved: list[str]) -> list[Any]:
    for spelled in (str, _bare):
        ours, theirs = list(map(spelled, names)), list(map(spelled, saved))
        if ours == theirs:
            return keys
        if len(set(theirs)) == len(theirs) and set(ours) == set(theirs):
            by_name = dict(zip(theirs, keys, strict=True))
            return [by_name[name] for name in ours]
    unmatched = sorted(set(ours) ^ set(theirs)) or [name for name in ours if ours.count(name) > 1]
    raise ValueError(
        f"group {number} has parameter {unmatched[0]!r} only here, only in the state, or twice: build the groups as "
        "when it was saved, or take 'param_names' out of the state's groups to load by position"
    )


def _bare(name: str) -> str:
    """Return a parameter's name without what DDP, torch.compile and activation checkpointing put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name.removeprefix("module.")
