"""Quantiles of the trust ratios of a step: neither a line of a terminal nor one chart has room for all ratios."""

import numpy as np

_SHARES = {"trust_ratio_median": 0.5, "trust_ratio_p10": 0.1, "trust_ratio_p90": 0.9}


def quantiles(packed: bytes, adapted: list[bool]) -> dict[str, float | None]:
    """Return the median, first and last decile of float32[T], over the tensors whose step the ratio scales."""
    ratios = np.frombuffer(packed, dtype="<f4").astype(np.float64)
    known = ratios[np.isfinite(ratios) & adapted] if len(ratios) else ratios
    if not len(known):
        return dict.fromkeys(_SHARES)
    return dict(zip(_SHARES, np.quantile(known, list(_SHARES.values())).tolist(), strict=True))
