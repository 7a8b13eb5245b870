"""The training loop, top to bottom. It knows no Ray and no server.

Everything that a step computes is a function of (specification, step): the samples of a step are numbers
`(samples before it) ... (samples before it) + global_batch_size - 1`, each rank takes its share of them, and losses are
divided by counts over the global batch. So the number of workers changes who computes what, not what is computed.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from optim import Lamb, Schedule
from workers import ranks
from workers.checkpoints import save as checkpoint
from workers.contract.manifests import ShardsManifest, read_shards
from workers.contract.push import Command
from workers.contract.records import CheckpointRecord, RunStatus, StatusRecord
from workers.contract.run_folder import RunFolder
from workers.contract.sources import CorpusError
from workers.contract.spec.job import JobSpec
from workers.contract.spec.phase import Phase
from workers.corpus.prepare import prepare
from workers.model import sharding
from workers.model.bert import PretrainingBert, build
from workers.samples.batch import Batch
from workers.samples.dataset import PreTrainingData

from .reporter import Reporter
from .telemetry import Telemetry

MAX_SKIPPED_IN_A_ROW = 20
"""Steps without a finite gradient after which a run is given up."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the phases of one run share."""

    spec: JobSpec
    folder: RunFolder
    device: torch.device
    module: PretrainingBert
    model: nn.Module
    """`module` as it is spread over the workers; forward goes through it."""
    optimizer: Lamb
    telemetry: Telemetry
    reporter: Reporter | None
    """On rank 0 alone."""


class DivergedError(RuntimeError):
    """No gradient was finite for many steps in a row."""


def train(spec: JobSpec, folder: RunFolder, home: Path, *, reporter: Reporter | None, attempt: int = 1) -> RunStatus:
    """Train the job of `spec` to its end, from its newest whole checkpoint if there is one. Every rank calls this.

    Args:
        spec: the job.
        folder: the run folder, shared by all ranks and all attempts.
        home: where prepared text is kept, under `data/`.
        reporter: where records go; on rank 0 alone.
        attempt: how often the control plane has launched the job.

    Returns:
        SUCCEEDED, or CANCELLED or PAUSED if the control plane asked for it.

    Raises:
        CorpusError: there is no text to train on.
        DivergedError: no gradient was finite for `MAX_SKIPPED_IN_A_ROW` steps.
    """
    corpus = _prepare(spec, home)
    manifest = read_shards(corpus)
    run = _set_up(spec, folder, manifest, reporter, attempt)
    done = _resume(run)
    _announce(run, attempt, manifest.unigram_entropy_nats)
    outcome = RunStatus.SUCCEEDED
    first = 0
    for number, phase in enumerate(spec.phases):
        if done < first + phase.steps:
            outcome = _train_phase(run, number, first, max(done, first), _data(spec, phase, corpus))
        if outcome is not RunStatus.SUCCEEDED:
            break
        first += phase.steps
    if reporter:
        reporter.emit(StatusRecord(status=outcome, attempt=attempt))
    return outcome


def _prepare(spec: JobSpec, home: Path) -> Path:
    """Prepare the text; where one rank cannot, all ranks raise, so that none waits for the others."""
    corpus, error = Path(), None
    try:
        corpus = prepare(spec.data, home / "data")
    except CorpusError as problem:
        error = str(problem)
    if errors := ranks.gather_errors(error):
        raise CorpusError(errors[0])
    return corpus


def _set_up(spec: JobSpec, folder: RunFolder, shards: ShardsManifest, reporter: Reporter | None, attempt: int) -> Run:
    device = sharding.device_of(spec)
    if device.type == "cpu":
        torch.set_num_threads(spec.parallel.cpus_per_worker)
    else:
        torch.cuda.set_device(device)
    module = build(spec.model, shards.vocab_size, spec.seed, pad_id=shards.special_ids["[PAD]"])
    model = sharding.parallelize(module, spec, device)
    optimizer = build_optimizer(spec, module)
    telemetry = Telemetry(optimizer, device, reporter, attempt)
    return Run(spec, folder, device, module, model, optimizer, telemetry, reporter)


def build_optimizer(spec: JobSpec, module: nn.Module) -> Lamb:
    """Build LAMB, its parameters grouped by whether they take weight decay and a trust ratio."""
    chosen = spec.optimizer
    groups: dict[tuple[bool, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
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
        lr=spec.phases[0].lr,
        betas=chosen.betas,
        eps=chosen.eps,
        bias_correction=chosen.bias_correction,
        grad_averaging=chosen.grad_averaging,
        max_grad_norm=chosen.max_grad_norm,
        weight_norm_bounds=chosen.weight_norm_bounds,
        trust_ratio_bounds=chosen.trust_ratio_bounds,
        moments=chosen.moments,
    )


def _data(spec: JobSpec, phase: Phase, corpus: Path) -> PreTrainingData:
    return PreTrainingData(corpus, seq_len=phase.seq_len, seed=spec.seed, mask_probability=spec.data.mask_probability)


def _resume(run: Run) -> int:
    """Load the newest whole checkpoint; return the number of steps that are done."""
    found = ranks.as_rank_0_says(checkpoint.newest(run.folder.checkpoints_path))
    if found is None:
        return 0
    step, path = found
    checkpoint.load(path, run.model, run.optimizer)
    return step


def _announce(run: Run, attempt: int, entropy: float) -> None:
    if run.reporter is None:
        return
    run.reporter.emit(
        StatusRecord(
            status=RunStatus.RUNNING,
            attempt=attempt,
            world_size=ranks.world_size(),
            unigram_entropy_nats=entropy,
        )
    )


def _train_phase(run: Run, number: int, first: int, done: int, data: PreTrainingData) -> RunStatus:
    """Take the steps `done + 1 … first + phase.steps`, numbered over all phases; the phase's own begin at `first`."""
    phase = run.spec.phases[number]
    lr_of = Schedule(
        phase.lr, phase.steps, phase.warmup, decay=phase.decay.kind, power=phase.decay.power, anchor=phase.decay.anchor
    )
    if done == first and "step" in phase.reset:
        _reset_step(run.optimizer)
    last, every = first + phase.steps, run.spec.checkpoint.every_steps
    for step, batches in _prefetch(run, phase, number, first, done, data):
        lr = lr_of(step - first)
        sums = take_step(run, step, lr, batches)
        is_due = step % every == 0 or step == last
        # What a checkpoint holds is never computed again, so it must have been reported.
        command = run.telemetry.record(step, number, lr, sums, flush=is_due)
        if run.telemetry.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise DivergedError(
                f"no finite gradient from step {step - MAX_SKIPPED_IN_A_ROW + 1} to {step} of phases[{number}]; "
                f"lower phases[{number}].lr {phase.lr} or lengthen its warmup {phase.warmup}"
            )
        if is_due or command is not Command.NONE:
            _checkpoint(run, step)
        if command in _ENDS and step < run.spec.total_steps:
            return _ENDS[command]
    return RunStatus.SUCCEEDED


_ENDS = {Command.STOP: RunStatus.CANCELLED, Command.PAUSE: RunStatus.PAUSED}


def take_step(run: Run, step: int, lr: float, batches: Sequence[Batch]) -> Tensor:
    """Accumulate the gradients of this rank's micro-batches and take one optimizer step.

    Returns:
        What this rank counted, float64, in the order of `telemetry.Sums`.
    """
    torch.manual_seed(hash((run.spec.seed, step, ranks.rank())))  # dropout, the same after a restart
    local = torch.tensor([0.0, 0.0, 0.0, *_counts(batches)], dtype=torch.float64, device=run.device)
    n_masked, n_sequences = ranks.all_reduce_sum(local[[3, 5]]).float().unbind()
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    for number, batch in enumerate(batches, start=1):
        with sharding.micro_batch(run.model, run.spec, is_last=number == len(batches)):
            sums = run.model(batch.to(run.device))
            loss = sums.mlm_loss / n_masked + sums.nsp_loss / n_sequences
        # FSDP2 and DDP average gradients over the workers; the loss is already a mean over the global batch.
        (loss * ranks.world_size()).backward()
        local[:3] += torch.stack(sums).detach()
    run.optimizer.step()
    run.optimizer.zero_grad()
    return local


def _counts(batches: Sequence[Batch]) -> tuple[int, int, int]:
    masked = sum(len(batch.masked_labels) for batch in batches)
    return masked, sum(batch.n_tokens for batch in batches), sum(len(batch.input_ids) for batch in batches)


def _prefetch(
    run: Run, phase: Phase, number: int, first: int, done: int, data: PreTrainingData
) -> Iterator[tuple[int, list[Batch]]]:
    """Yield each step's micro-batches of this rank, the next step's being made meanwhile."""
    before = sum(earlier.steps * earlier.global_batch_size for earlier in run.spec.phases[:number])
    steps = range(done + 1, first + phase.steps + 1)

    def batches(step: int) -> list[Batch]:
        samples = before + (step - first - 1) * phase.global_batch_size
        return [data.batch(indices) for indices in share(phase, samples, ranks.rank(), ranks.world_size())]

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(batches, steps[0])
        for step in steps:
            ready = coming.result()
            if step < steps[-1]:
                coming = thread.submit(batches, step + 1)
            yield step, ready


def share(phase: Phase, samples: int, rank: int, world_size: int) -> list[range]:
    """Return the sample numbers of one rank's micro-batches, for the global batch that begins at `samples`."""
    size = phase.global_batch_size // world_size
    begin = samples + rank * size
    return [range(at, at + phase.micro_batch_size) for at in range(begin, begin + size, phase.micro_batch_size)]


def _reset_step(optimizer: Lamb) -> None:
    for state in optimizer.state.values():
        state["step"].zero_()


def _checkpoint(run: Run, step: int) -> None:
    saved = checkpoint.save(run.folder.checkpoints_path, step, run.model, run.optimizer, keep=run.spec.checkpoint.keep)
    if run.reporter:
        run.reporter.emit(
            CheckpointRecord(step=step, path=str(saved.path), size_bytes=saved.size_bytes, seconds=saved.seconds)
        )
    run.telemetry.restart_clock()
