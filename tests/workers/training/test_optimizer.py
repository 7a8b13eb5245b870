from pathlib import Path
from typing import Any

from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.model.bert import PretrainingBert, build
from workers.training.optimizer import build_optimizer, reset_step, set_lr


def bert(**optimizer: Any) -> tuple[PretrainingBert, Any]:
    spec = parse_spec(document(Path("unused"), optimizer=optimizer))
    module = build(spec.model, 90, seed=0, pad_id=0)
    return module, build_optimizer(spec, module)


def test_biases_and_layer_norms_take_neither_weight_decay_nor_a_trust_ratio() -> None:
    module, optimizer = bert(weight_decay=0.01)
    taken = {name: group for group in optimizer.param_groups for name in group["param_names"]}
    assert taken.keys() == dict(module.named_parameters()).keys()
    for name, group in taken.items():
        is_exempt = name.endswith("bias") or "LayerNorm" in name
        assert (group["weight_decay"], group["layer_adaptation"]) == ((0.0, False) if is_exempt else (0.01, True))


def test_adamw_gives_no_tensor_a_trust_ratio() -> None:
    _, optimizer = bert(name="adamw")
    assert not any(group["layer_adaptation"] for group in optimizer.param_groups)


def test_the_learning_rate_is_set_for_every_group() -> None:
    _, optimizer = bert()
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25] * len(optimizer.param_groups)


def test_the_count_of_steps_begins_anew_and_the_moments_are_kept() -> None:
    module, optimizer = bert()
    for parameter in module.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.step()
    before = {name: optimizer.state[p]["exp_avg"].clone() for name, p in module.named_parameters()}
    reset_step(optimizer)
    for name, parameter in module.named_parameters():
        assert optimizer.state[parameter]["step"].item() == 0
        assert (optimizer.state[parameter]["exp_avg"] == before[name]).all()
