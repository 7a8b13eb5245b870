"""The `README.md` of an export: what the model is, what it learned from, and how well."""

from dataclasses import dataclass, field
from importlib import metadata

import yaml

from workers.contract.problems import counted
from workers.contract.records import EvaluationRecord, StatusRecord, StepRecord
from workers.contract.run.folder import RunFolder
from workers.contract.run.mending import read_entries
from workers.contract.spec.job import JobSpec

_CARD = """\
---
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, bigbatch]
---

# {name}

A BERT with {layers}, width {hidden} and {heads} ({parameters:,} parameters), pre-trained by bigbatch {version} on
{tasks}. It reads up to {positions} tokens.

```python
from transformers import pipeline

fill = pipeline("fill-mask", model="PATH OF THIS FOLDER")
print(fill("The [MASK] of the house was open."))
```

## Data

{sources}

{tokens}

The licence of this text decides who may use the model and how. It is not known here: state it before you publish.

## Training

{steps}

```yaml
{recipe}```

## Figures

{figures}

## Versions

{versions}
"""


@dataclass
class _History:
    """What a journal says of the steps up to one of them."""

    last: StepRecord | None = None
    evaluation: EvaluationRecord | None = None
    versions: dict[str, str] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    """Of each step, without padding."""


def model_card(folder: RunFolder, spec: JobSpec, step: int, parameters: int) -> str:
    """Describe the model of a run after `step` steps."""
    sizes, history = spec.model.architecture, _read(folder, step)
    versions = history.versions | {name: metadata.version(name) for name in ("transformers", "tokenizers")}
    return _CARD.format(
        name=spec.name,
        layers=counted(sizes.layers, "layer"),
        hidden=sizes.hidden,
        heads=counted(sizes.heads, "attention head"),
        tasks="masked words" + (" and next-sentence prediction" if spec.data.next_sentence else ""),
        parameters=parameters,
        version=metadata.version("bigbatch"),
        positions=spec.model.max_positions,
        sources="\n".join(f"- `{source}`" for source in spec.data.corpus),
        tokens=f"The model saw {sum(history.tokens.values()):,} tokens, repetitions counted and padding not.",
        steps=f"{step:,} of {spec.total_steps:,} steps, by this specification:",
        recipe=yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True),
        figures="\n".join(_figures(history)),
        versions="\n".join(f"- {name} {version}" for name, version in versions.items()),
    )


def _read(folder: RunFolder, step: int) -> _History:
    history = _History()
    if not folder.journal.exists():
        return history
    with folder.journal.open("rb") as file:
        for entry in read_entries(file):
            match entry.record:
                case StatusRecord(versions=versions):
                    history.versions = versions or history.versions
                case StepRecord(step=taken, tokens=tokens) if taken <= step:
                    history.last, history.tokens[taken] = entry.record, tokens or 0
                case EvaluationRecord(step=taken) if taken <= step:
                    history.evaluation = entry.record
    return history


def _figures(history: _History) -> list[str]:
    lines = []
    if (last := history.last) is not None:
        figures = {
            "loss": (last.loss, "nats"),
            "MLM loss": (last.mlm_loss, "nats on masked tokens"),
            "NSP loss": (last.nsp_loss, "nats"),
            "MLM accuracy": (last.mlm_accuracy, "of masked tokens"),
        }
        lines += [
            f"- {name} of step {last.step:,}, on the text it learned from: {value:.4f} {unit}"
            for name, (value, unit) in figures.items()
            if value is not None
        ]
    if history.evaluation is not None:
        lines.append(f"- on held-out text: {history.evaluation.figures}")
    return lines or ["No record of a step is in the run folder."]
