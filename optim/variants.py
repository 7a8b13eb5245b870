"""The LAMBs that others compute, by name, as arguments of `Lamb`.

    optimizer = Lamb(model.named_parameters(), lr=6e-3, **VARIANTS["nvlamb"])

Each differs from the paper in what multiplies the learning rate, so a rate that was tuned for one is not the rate of
another. What is not said here is as the paper has it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # You et al., Large Batch Optimization for Deep Learning (2020), algorithm 2.
        "paper": {},
        # mxnet.optimizer.LAMB with the bounds that GluonNLP's BERT scripts give it.
        "mxnet": {"weight_norm_bounds": (1e-3, 10.0)},
        # apex.optimizers.FusedLAMB: biases and norms, which take no weight decay, are not adapted either.
        "nvidia": {"layer_adaptation": "decayed", "max_grad_norm": 1.0},
        # apex.optimizers.FusedLAMB(use_nvlamb=True): every tensor is adapted.
        "nvlamb": {"max_grad_norm": 1.0},
        # deepspeed.ops.lamb.FusedLamb, whose ratio is held between min_coeff and max_coeff.
        "deepspeed": {"trust_ratio_bounds": (0.01, 0.3), "bias_correction": False},
        # No adaptation at all: torch.optim.AdamW, on the same kernels in one pass.
        "adamw": {"layer_adaptation": False},
    }
)
