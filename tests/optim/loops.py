"""What optim/README.md shows of Lamb under the trainers of others; `make loops` runs it in a venv that has them.

Each example is run as it stands there, and must end with the weights of a plain loop over the same batches.
"""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optim import Lamb

README = Path(__file__).parents[2] / "optim" / "README.md"
EXAMPLES = {
    name: next(code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if name in code)
    for name in ("accelerate", "lightning", "transformers")
}


class Regression(nn.Module):
    """A linear layer that returns its loss, as the models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.mse_loss(self.layer(inputs), labels)}


def numbers() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 4, generator=generator), torch.randn(16, 3, generator=generator)


def plain_loop(model: Regression) -> list[Tensor]:
    optimizer = Lamb(model.named_parameters(), lr=5e-3, max_grad_norm=1.0)
    for inputs, labels in DataLoader(TensorDataset(*numbers()), batch_size=4):
        model(inputs, labels)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.filterwarnings("default")  # trainers warn of what torch has deprecated
def test_an_example_trains_as_a_plain_loop_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = Regression()
    expected = plain_loop(copy.deepcopy(model))
    rows = [{"inputs": x, "labels": y} for x, y in zip(*numbers(), strict=True)]
    names: dict[str, Any] = {
        "Lamb": Lamb,
        "model": model,
        "batches": DataLoader(TensorDataset(*numbers()), batch_size=4),
        "rows": rows,
    }
    exec(compile(EXAMPLES[name], f"{README}: {name}", "exec"), names)  # noqa: S102 - it is our own page
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-6, atol=1e-7)
