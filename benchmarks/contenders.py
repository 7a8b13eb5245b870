"""The optimizers that are measured, all with weight decay, so that none is spared a pass over the weights.

Those of other projects come with `pip install --constraint constraints.txt --group bench`, except timm: its package
needs torchvision, whose wheels fit one build of torch alone, and its Lamb does not. So it is installed without what it
asks for, `pip install --constraint constraints.txt --no-deps timm`, and loaded from its file.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import patch

from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from optim import Lamb
from optim.kernels import eager, foreach, operators
from optim.kernels import settings as kernel_settings

Parameters = list[nn.Parameter]
GROUP = "pip install --constraint constraints.txt --group bench"
APEX = "a build of https://github.com/NVIDIA/apex with its CUDA extensions"
TIMM = "pip install --constraint constraints.txt --no-deps timm"


@dataclass(frozen=True)
class Contender:
    """An optimizer, and what it needs.

    `moved_bytes` is what its kernels read and write for each float32 parameter if nothing stays in cache; None for one
    made of torch's operators, which are counted.
    """

    make: Callable[[Parameters], Optimizer]
    moved_bytes: int | None = None
    package: str | None = None  # what has to be installed
    install: str = GROUP
    ranks: bool = False  # measured on shards too
    refusal: str | None = None  # what it raises on shards
    cuda: bool = False  # measured on a GPU too
    cpu: bool = True


def _of(package: str) -> Callable[..., Optimizer]:
    """Return the class Lamb of a package; it is imported where it is built."""

    def make(parameters: Parameters, **settings: object) -> Optimizer:
        return cast(Optimizer, importlib.import_module(package).Lamb(parameters, **settings))

    return make


def timm_lamb() -> Any:
    """Return timm's class Lamb without importing timm, whose package imports torchvision."""
    name = "timm_optim"
    if name not in sys.modules:
        spec = importlib.util.find_spec("timm")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"timm is not installed: {TIMM}")
        # A package of another name over timm's folder of optimizers, for the relative imports in its file.
        package = types.ModuleType(name)
        package.__path__ = [f"{folder}/optim" for folder in spec.submodule_search_locations]
        sys.modules[name] = package
    return importlib.import_module(f"{name}.lamb").Lamb


class ClippedAdamW(AdamW):
    """AdamW as large batches use it: the norm of all gradients is clipped first, which Lamb does in its step."""

    def step(self, closure: Any = None) -> Any:
        """Clip and take a step."""
        clip_grad_norm_(self.param_groups[0]["params"], max_norm=1.0)
        return super().step(closure)


class LambAtOnce(Lamb):
    """Lamb with its step in one launch, which is off by default; on a GPU alone."""

    def step(self, closure: Any = None, *, grad_norm: Any = None) -> Any:
        """Take a step."""
        from optim.kernels.cuda import launch

        with patch.object(launch, "AT_ONCE", True):
            return super().step(closure, grad_norm=grad_norm)


class WholeTensors(Lamb):
    """Lamb in plain PyTorch by whole tensors, as devices without kernels of ours run it.

    With `float32_sums` its sums are as MPS has them: a CPU copies a tensor to add it up in float64.
    """

    def __init__(self, parameters: Parameters, *, float32_sums: bool = False, **settings: Any) -> None:
        super().__init__(parameters, backend="eager", **settings)
        self.float32_sums = float32_sums

    def step(self, closure: Any = None, *, grad_norm: Any = None) -> Any:
        """Take a step."""
        without = {"cpu"} if self.float32_sums else kernel_settings.WITHOUT_FLOAT64
        with (
            patch.dict(operators.BACKENDS, eager=lambda operand: foreach if foreach.takes(operand) else eager),
            patch.object(kernel_settings, "WITHOUT_FLOAT64", without),
        ):
            return super().step(closure, grad_norm=grad_norm)


def transposed(parameters: Parameters) -> Parameters:
    """Return parameters and gradients of the same numbers whose matrices lie in memory column by column."""
    turned = [nn.Parameter(parameter.detach().t()) for parameter in parameters]
    for parameter, original in zip(turned, parameters, strict=True):
        parameter.grad = None if original.grad is None else original.grad.t()
    return turned


BASELINE = "torch AdamW fused"
CLIPPED = f"{BASELINE}, clipped"
OURS = "bigbatch Lamb"
WHOLE = f"{OURS}, whole tensors"
TORCH_OPTIMIZER, PYTORCH_OPTIMIZER, TIMM_LAMB = "torch_optimizer Lamb", "pytorch_optimizer Lamb", "timm Lamb"
_LR, _DECAY = 1e-4, 0.01
CONTENDERS = {
    # g w m v are read, w m v written.
    BASELINE: Contender(
        lambda p: AdamW(p, lr=_LR, weight_decay=_DECAY, fused=True), moved_bytes=28, ranks=True, cuda=True
    ),
    # As above after g was read for its norm, and read and written to be scaled.
    CLIPPED: Contender(
        lambda p: ClippedAdamW(p, lr=_LR, weight_decay=_DECAY, fused=True), moved_bytes=40, ranks=True, cuda=True
    ),
    # g for its norm; g w m v are read, m v written; w m v are read, w written. Clipping asks for no more than the
    # test for Inf and NaN does.
    OURS: Contender(lambda p: Lamb(p, lr=_LR), moved_bytes=44, ranks=True, cuda=True),
    # The same figure, of which the cache is to save up to 12.
    f"{OURS}, one launch": Contender(lambda p: LambAtOnce(p, lr=_LR), moved_bytes=44, cuda=True, cpu=False),
    f"{OURS}, no gradient norm": Contender(lambda p: Lamb(p, lr=_LR, skip_nonfinite=False), moved_bytes=40, cuda=True),
    # As above with moments of 2 bytes, and of 1.02.
    f"{OURS}, bfloat16 moments": Contender(lambda p: Lamb(p, lr=_LR, moments="bfloat16"), moved_bytes=32, cuda=True),
    f"{OURS}, 8-bit moments": Contender(lambda p: Lamb(p, lr=_LR, moments="8bit"), moved_bytes=26, cuda=True),
    # As the first, with matrices that lie in memory column by column.
    f"{OURS}, transposed": Contender(lambda p: Lamb(transposed(p), lr=_LR), moved_bytes=44, cuda=True),
    # g for its norm, and one pass as AdamW's.
    f"{OURS} as AdamW": Contender(lambda p: Lamb(p, lr=_LR, layer_adaptation=False), moved_bytes=32),
    f"{OURS} eager": Contender(lambda p: Lamb(p, lr=_LR, backend="eager")),
    WHOLE: Contender(lambda p: WholeTensors(p, lr=_LR)),
    f"{WHOLE}, float32 sums": Contender(lambda p: WholeTensors(p, lr=_LR, float32_sums=True)),
    TORCH_OPTIMIZER: Contender(
        lambda p: _of("torch_optimizer")(p, lr=_LR, weight_decay=_DECAY, debias=True),
        package="torch_optimizer",
        ranks=True,
    ),
    PYTORCH_OPTIMIZER: Contender(
        lambda p: _of("pytorch_optimizer")(p, lr=_LR, weight_decay=_DECAY, weight_decouple=False),
        package="pytorch_optimizer",
        refusal="it raises RuntimeError for DTensors, whose norm it clamps in place",
    ),
    TIMM_LAMB: Contender(
        lambda p: cast(Optimizer, timm_lamb()(p, lr=_LR, weight_decay=_DECAY)),
        package="timm",
        install=TIMM,
        ranks=True,
        cuda=True,
    ),
    f"{TIMM_LAMB}, foreach": Contender(
        lambda p: cast(Optimizer, timm_lamb()(p, lr=_LR, weight_decay=_DECAY, foreach=True)),
        package="timm",
        install=TIMM,
    ),
    # g for its norm; g w m v are read, m v u written; w u are read for their norms, and again to write w.
    "apex FusedLAMB": Contender(
        lambda p: cast(Optimizer, importlib.import_module("apex.optimizers").FusedLAMB(p, lr=_LR, weight_decay=_DECAY)),
        moved_bytes=52,
        package="apex",
        install=APEX,
        cuda=True,
        cpu=False,
    ),
}


def missing(name: str, contender: Contender) -> str | None:
    """Return what a contender lacks on this machine and how to get it, or None."""
    if contender.package is None or importlib.util.find_spec(contender.package):
        return None
    return f"{name} is not measured: {contender.package} is not installed; get it with: {contender.install}"
