"""Whatever somebody changes between two steps, the next one does what an optimizer that remembers nothing does."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optim import Lamb
from optim.step import kinds
from optim.validation import SWITCHES
from tests.optim.gradients import set_gradient

SHAPES = [(4, 3), (5,), (300,), (1,), (2, 2)]
STEPS = 20


class Session:
    """An optimizer in somebody's hands, and the dice that say what happens to it next."""

    def __init__(self, seed: int, dtype: torch.dtype, **switches: Any) -> None:
        self.dice = random.Random(seed)
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(seed)
        self.born = 0
        self.optimizer = Lamb([self.group(3), self.group(2)], lr=0.05, **switches)

    def group(self, count: int) -> dict[str, Any]:
        """Return a group of new parameters."""
        params = []
        for _ in range(count):
            shape = SHAPES[self.born % len(SHAPES)]
            params.append((f"p{self.born}", nn.Parameter(self.numbers(shape, self.dtype))))
            self.born += 1
        return {"params": params, "lr": self.dice.choice([0.1, 0.01])}

    def numbers(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return random numbers."""
        return torch.randn(shape, generator=self.generator).to(dtype)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All of all groups."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def a_group(self) -> dict[str, Any]:
        """Return one of the groups."""
        return self.dice.choice(self.optimizer.param_groups)

    def a_parameter(self) -> nn.Parameter:
        """Return one of the parameters."""
        return self.dice.choice(self.parameters)

    def an_entry(self) -> tuple[dict[str, Any], str] | None:
        """Return the state of one of the parameters with a moment or master in it, if there is any yet."""
        states = [state for p in self.parameters if "step" in (state := self.optimizer.state.get(p, {}))]
        if not states:
            return None
        state = self.dice.choice(states)
        return state, self.dice.choice([key for key in state if key != "note"])

    def give_gradients(self) -> None:
        """Write into those that are there, or let them come and go; for calls that are kept, most often the former."""
        if self.dice.random() < 0.2 or not any(p.grad is not None for p in self.parameters):
            for parameter in self.parameters:
                self.exchange_gradient(parameter)
        else:
            for grad in [p.grad for p in self.parameters if p.grad is not None]:
                grad.copy_(self.numbers(tuple(grad.shape), grad.dtype))
                if self.optimizer.skip_nonfinite and self.dice.random() < 0.02:
                    grad.fill_(torch.nan)

    def exchange_gradient(self, parameter: nn.Parameter) -> None:
        """Free it or set another, perhaps of another dtype or with other strides."""
        kind = self.dice.choice(["freed", "new", "new", "new", "narrow", "strided"])
        grad = self.numbers(tuple(parameter.shape), torch.bfloat16 if kind == "narrow" else parameter.dtype)
        parameter.grad = None
        if kind != "freed":
            set_gradient(parameter, grad.t().contiguous().t() if kind == "strided" and grad.dim() == 2 else grad)


def other_settings(session: Session) -> None:
    choices: dict[str, list[Any]] = {
        "lr": [0.0, 0.02, 0.3, torch.tensor(0.07), torch.tensor([0.2], dtype=torch.float64)],
        "betas": [(0.8, 0.9), [0.0, 0.99]],
        "eps": [1e-3, 1e-8],
        "weight_decay": [0.0, 0.3],
        "layer_adaptation": [True, False, "decayed"],
        "weight_norm_bounds": [None, (0.1, 0.5)],
        "trust_ratio_bounds": [None, [0.2, 0.4]],
    }
    name = session.dice.choice(list(choices))
    session.a_group()[name] = session.dice.choice(choices[name])


def a_rate_written_in_place(session: Session) -> None:
    for group in session.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].mul_(0.5)


def another_switch(session: Session) -> None:
    choices: dict[str, list[Any]] = {
        "backend": ["auto", "eager"],
        "max_grad_norm": [None, 0.5, 2.0],
        "skip_nonfinite": [True, False],
        "bias_correction": [True, False],
        "grad_averaging": [True, False],
    }
    name = session.dice.choice(list(choices))
    setattr(session.optimizer, name, session.dice.choice(choices[name]))


def a_later_group(session: Session) -> None:
    session.optimizer.add_param_group(session.group(session.dice.choice([1, 2])))


def a_parameter_in_another_group(session: Session) -> None:
    source, target = session.a_group(), session.a_group()
    if source["params"]:
        at_end = session.dice.random() < 0.5
        for key in ("params", "param_names"):
            moved = source[key].pop(-1 if at_end else 0)
            target[key].insert(0 if at_end else len(target[key]), moved)


def the_end_of_a_group_in_front_of_the_next(session: Session) -> None:
    groups = session.optimizer.param_groups
    number = session.dice.randrange(len(groups) - 1)
    for key in ("params", "param_names"):
        if groups[number][key]:
            groups[number + 1][key].insert(0, groups[number][key].pop())


def a_parameter_less(session: Session) -> None:
    group = session.a_group()
    if len(session.parameters) > 3 and group["params"]:
        number = session.dice.randrange(len(group["params"]))
        session.optimizer.state.pop(group["params"].pop(number), None)
        del group["param_names"][number]


def another_order(session: Session) -> None:
    group = session.a_group()
    for key in ("params", "param_names"):
        group[key].reverse()


def groups_in_another_order(session: Session) -> None:
    session.optimizer.param_groups.reverse()


def another_name(session: Session) -> None:
    group = session.a_group()
    if group["param_names"]:
        group["param_names"][0] += "x"


def weights_elsewhere(session: Session) -> None:
    parameter = session.a_parameter()
    parameter.data = parameter.detach().clone()


def weights_written_in_place(session: Session) -> None:
    session.a_parameter().data.mul_(0.5)


def weights_of_another_dtype(session: Session) -> None:
    if session.optimizer.moments == "full":
        dtype = session.dice.choice([torch.float32, torch.bfloat16])
        for parameter in session.parameters:
            parameter.grad = None
            parameter.data = parameter.detach().to(dtype)


def an_entry_replaced(session: Session) -> None:
    if found := session.an_entry():
        state, key = found
        state[key] = state[key].clone()


def an_entry_written_in_place(session: Session) -> None:
    if (found := session.an_entry()) and found[0][found[1]].is_floating_point():
        found[0][found[1]].mul_(2)


def a_moment_narrowed_where_it_lies(session: Session) -> None:
    if session.optimizer.moments == "full" and (found := session.an_entry()):
        state, _ = found
        for key in ("exp_avg", "exp_avg_sq"):
            state[key].data = state[key].to(torch.bfloat16)


def a_note_in_a_state(session: Session) -> None:
    session.optimizer.state[session.a_parameter()]["note"] = "somebody's"


def a_state_emptied(session: Session) -> None:
    session.optimizer.state[session.a_parameter()].clear()


def all_states_emptied(session: Session) -> None:
    for state in session.optimizer.state.values():
        state.clear()


def a_state_removed(session: Session) -> None:
    session.optimizer.state.pop(session.a_parameter(), None)


def no_state(session: Session) -> None:
    session.optimizer.state.clear()


def a_master_added_or_removed(session: Session) -> None:
    parameter = session.a_parameter()
    state = session.optimizer.state.get(parameter, {})
    if "master" in state and session.optimizer.moments == "full":
        del state["master"]
    elif "step" in state and parameter.dtype is torch.bfloat16:
        state["master"] = parameter.detach().float()


def a_loaded_state(session: Session) -> None:
    session.optimizer.load_state_dict(copy.deepcopy(session.optimizer.state_dict()))


def a_copy(session: Session) -> None:
    session.optimizer = copy.deepcopy(session.optimizer)


CHANGES: list[Callable[[Session], None]] = [
    other_settings,
    a_rate_written_in_place,
    another_switch,
    a_later_group,
    a_parameter_in_another_group,
    the_end_of_a_group_in_front_of_the_next,
    a_parameter_less,
    another_order,
    groups_in_another_order,
    another_name,
    weights_elsewhere,
    weights_written_in_place,
    weights_of_another_dtype,
    an_entry_replaced,
    an_entry_written_in_place,
    a_moment_narrowed_where_it_lies,
    a_note_in_a_state,
    a_state_emptied,
    all_states_emptied,
    a_state_removed,
    no_state,
    a_master_added_or_removed,
    a_loaded_state,
    a_copy,
]


def without_memory(optimizer: Lamb) -> tuple[Lamb, dict[Tensor, Tensor]]:
    """Return a new optimizer of copies of everything, and the copy of each parameter."""
    copies: dict[Tensor, Tensor] = {}
    switches = {name: getattr(optimizer, name) for name in SWITCHES}
    fresh = Lamb([nn.Parameter(torch.zeros(1))], moments=optimizer.moments, **switches)
    fresh.param_groups = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            copies[parameter] = nn.Parameter(parameter.detach().clone())
            if parameter.grad is not None:
                set_gradient(copies[parameter], parameter.grad.clone())
        own = copy.deepcopy({key: value for key, value in group.items() if key != "params"})
        fresh.param_groups.append({**own, "params": [copies[p] for p in group["params"]]})
    for parameter, state in optimizer.state.items():
        if parameter in copies:
            fresh.state[copies[parameter]] = copy.deepcopy(state)
    return fresh, copies


def assert_same(mine: Lamb, fresh: Lamb, copies: dict[Tensor, Tensor]) -> None:
    def check(value: object, expected: object) -> None:
        torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)

    for parameter, expected in copies.items():
        check(parameter.detach(), expected.detach())
        assert (parameter in mine.state) == (expected in fresh.state)
        if parameter in mine.state:
            assert mine.state[parameter].keys() == fresh.state[expected].keys()
            for key, value in mine.state[parameter].items():
                if isinstance(value, Tensor):
                    check(value, fresh.state[expected][key])
    if fresh.last_step is not None:
        assert mine.last_step is not None
        assert mine.last_step.names == fresh.last_step.names
        check(torch.cat(mine.last_step.norms, dim=1), torch.cat(fresh.last_step.norms, dim=1))
        check(mine.last_step.clip, fresh.last_step.clip)


@pytest.mark.parametrize(("seed", "guard"), [(0, kinds.guard), (1, kinds.guard), (2, kinds.Compared)])
@pytest.mark.parametrize(
    ("dtype", "switches"),
    [
        (torch.float32, {"moments": "full"}),
        (torch.float32, {"moments": "bfloat16", "skip_nonfinite": False}),
        (torch.float32, {"moments": "8bit"}),
        (torch.bfloat16, {"moments": "full", "master_weights": True, "max_grad_norm": 1.0}),
        (torch.bfloat16, {"moments": "8bit", "master_weights": True}),
        (torch.bfloat16, {"moments": "full", "backend": "eager"}),
    ],
)
def test_a_step_after_any_changes_is_that_of_a_new_optimizer(
    seed: int,
    guard: Callable[..., kinds.Guard],
    dtype: torch.dtype,
    switches: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kinds, "guard", guard)
    session = Session(seed, dtype, **switches)
    for _ in range(STEPS):
        session.give_gradients()
        if session.dice.random() < 0.6:
            session.dice.choice(CHANGES)(session)
        fresh, copies = without_memory(session.optimizer)
        fresh.step()
        session.optimizer.step()
        assert_same(session.optimizer, fresh, copies)
