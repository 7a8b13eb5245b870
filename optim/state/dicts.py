"""Lamb's state dicts: what is saved, and what is loaded, with parameters found by their names."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim.optimizer import StateDict

from optim.groups import Named, names_of
from optim.validation import SWITCHES, check_group, check_state

from .others import translated
from .parameter import packed_state, unpacked_state

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")


def saved_form(groups: Sequence[Mapping[str, Any]], states: Mapping[Any, Any]) -> StateDict:
    """Return groups and states as PyTorch's optimizers save them: each parameter is a number.

    Entries of no parameter are kept as they are.

    Raises:
        ValueError: there is a state of a tensor that is in no group.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
    own = {number: unpacked_state(states[p]) for number, p in enumerate(parameters) if p in states}
    for key in states:
        if isinstance(key, Tensor) and id(key) not in numbers:
            raise ValueError(
                f"the optimizer has a state of a tensor of shape {tuple(key.shape)} that is in none of its parameter "
                "groups, so there is no name to save it under: delete it, `del optimizer.state[tensor]`"
            )
    return {
        "state": own | {key: entry for key, entry in states.items() if not isinstance(key, Tensor)},
        "param_groups": [
            {key: value for key, value in _complete(number, group, groups).items() if key != "params"}
            | {"params": [numbers[id(parameter)] for parameter in group["params"]]}
            for number, group in enumerate(groups)
        ],
    }


def _complete(number: int, group: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return a group with a name for each of its parameters, if it has names."""
    if not group.get("param_names"):
        return group
    before = sum(len(each["params"]) for each in groups[:number])
    return {**group, "param_names": names_of(number, group, before)}


def loaded_form(saved: StateDict, groups: Sequence[dict[str, Any]], named: Sequence[Named], switches: Any) -> StateDict:
    """Return states by parameter and the groups to go on with, from a state dict of Lamb or another optimizer.

    Nothing that is passed in is changed. `named` has all parameters in the order of `groups`, and `switches` the
    settings that Lamb has once, for all groups.

    Raises:
        ValueError: groups or names do not match, settings are out of range, or a state does not fit its parameter.
        TypeError: a setting or an entry is of the wrong kind.
    """
    saved = translated(saved, switches)
    theirs = saved["param_groups"]
    if len(groups) != len(theirs):
        raise ValueError(
            f"the state has {len(theirs)} parameter groups but this Lamb {len(groups)}: build them as when it was saved"
        )
    loaded = [_loaded_group(own, group) for own, group in zip(groups, theirs, strict=True)]
    for group in loaded:
        check_group(group, switches)
    keys = [
        key
        for number, (own, group) in enumerate(zip(groups, theirs, strict=True))
        for key in _in_order(number, _complete(number, own, groups), group)
    ]
    found = {key: named[i] for i, key in enumerate(keys)}
    states: dict[Any, Any] = {}
    for key, state in saved["state"].items():
        if key not in found:
            states[key] = state
            continue
        number, name, parameter = found[key]
        entries = _without_empty_master(state)
        check_state(name, parameter, entries)
        moments = loaded[number].get("moments", switches.moments)
        states[parameter] = packed_state(parameter, entries, moments, master_weights=switches.master_weights)
    return {"state": states, "param_groups": loaded}


def _without_empty_master(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state without the empty dict that torch puts in place of a master that a flattened state does not have.

    torch does so for every entry that the optimizer has. Master weights alone may be missing; `check_state` refuses the
    other empty dicts.
    """
    return {key: value for key, value in state.items() if key != "master" or value != {}}


def _loaded_group(own: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved settings of a group; what belongs to this optimizer, and what the state lacks, stays."""
    ours = {"params", "param_names", "moments", *SWITCHES}
    settings = {key: copy.deepcopy(value) for key, value in saved.items() if key not in ours}
    return {**own, **settings}


def _in_order(number: int, own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[Any]:
    """Return the keys of a saved group's states in the order of our parameters."""
    keys: list[Any] = saved["params"]
    if len(keys) != len(own["params"]):
        raise ValueError(
            f"group {number} has {len(keys)} parameters in the state but {len(own['params'])} here: "
            "build the groups as when it was saved"
        )
    ours, theirs = own.get("param_names"), saved.get("param_names")
    if ours and keys and all(isinstance(key, str) for key in keys):
        return _by_key(number, keys, list(ours), list(theirs or []))
    if not ours or not theirs:
        return keys
    found = _matched(keys, list(ours), list(theirs))
    if found is None:
        names, others = list(map(_bare, ours)), list(map(_bare, theirs))
        unmatched = sorted(set(names) ^ set(others)) or [name for name in names if names.count(name) > 1]
        raise ValueError(
            f"group {number} has parameter {unmatched[0]!r} only here, only in the state, or twice: build the groups "
            "as when it was saved, or take 'param_names' out of the state's groups to load by position"
        )
    return found


def _by_key(number: int, keys: list[str], ours: list[str], theirs: list[str]) -> list[str]:
    """Return keys that are themselves names, as torch.distributed.checkpoint makes them, in the order of our names.

    Its `set_optimizer_state_dict` puts them into our order, but leaves "param_names" in the saved order. So where keys
    are not our names, their positions count, unless something says that these are another order.
    """
    found = _matched(keys, ours, keys)
    if found is not None:
        return found
    names, bare_keys, others = (list(map(_bare, each)) for each in (ours, keys, theirs))
    displaced = [name for i, name in enumerate(names) if name in bare_keys and bare_keys[i] != name]
    if displaced or (sorted(names) == sorted(others) and names != others):
        raise ValueError(
            f"group {number} has the parameters {keys[0]!r}, … in the state but {ours[0]!r}, … here, in another order: "
            "build Lamb with the model's named_parameters(), whose names are those of the state"
        )
    return keys


def _matched(keys: list[Any], ours: list[str], theirs: list[str]) -> list[Any] | None:
    """Return keys, which stand in the order of `theirs`, in the order of `ours`; None if the names do not match."""
    for spelled in (str, _bare):
        mine, others = list(map(spelled, ours)), list(map(spelled, theirs))
        if mine == others:
            return keys
        if len(set(others)) == len(others) and set(mine) == set(others):
            by_name = dict(zip(others, keys, strict=True))
            return [by_name[name] for name in mine]
    return None


def _bare(name: str) -> str:
    """Return a parameter's name without what DDP, torch.compile and activation checkpointing add to it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name.removeprefix("module.")
