"""LAMB for BERT, as the job's specification asks for it."""

from torch import nn

from optim import Lamb, Schedule
from workers.contract.spec.job import JobSpec
from workers.contract.spec.phase import Phase


def build_optimizer(spec: JobSpec, module: nn.Module) -> Lamb:
    """Build LAMB, its parameters grouped by whether they take weight decay and a trust ratio; frozen ones in none."""
    chosen = spec.optimizer
    groups: dict[tuple[bool, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = not any(part in name for part in chosen.no_decay)
        adapts = chosen.name == "lamb" and not any(part in name for part in chosen.no_adaptation)
        groups.setdefault((decays, adapts), []).append((name, parameter))
    return Lamb(
        [
            {
                "params": named,
                "weight_decay": chosen.weight_decay if decays else 0.0,
                "layer_adaptation": adapts,
            }
            for (decays, adapts), named in groups.items()
        ],
        lr=spec.phases[0].peak_lr,
        betas=chosen.betas,
        eps=chosen.eps,
        bias_correction=chosen.bias_correction,
        grad_averaging=chosen.grad_averaging,
        max_grad_norm=chosen.max_grad_norm,
        weight_norm_bounds=chosen.weight_norm_bounds,
        trust_ratio_bounds=chosen.trust_ratio_bounds,
        moments=chosen.moments,
    )


def schedule_of(phase: Phase) -> Schedule:
    """Return the learning rates of a phase, by the number of a step within it."""
    decay = phase.decay
    return Schedule(
        phase.peak_lr,
        phase.steps,
        phase.warmup_share,
        decay=decay.kind,
        power=decay.power,
        anchor=decay.anchor,
        final_lr=decay.final_lr,
        hold_ratio=phase.hold,
        decay_rate=decay.rate,
        decay_steps=decay.every_steps,
    )


def set_lr(optimizer: Lamb, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def reset_step(optimizer: Lamb) -> None:
    """Begin the count of steps anew, and with it the bias correction; the moments are kept."""
    for state in optimizer.state.values():
        state["step"].zero_()
