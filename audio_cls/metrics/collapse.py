"""Predictions that are the same for every clip: a model that has collapsed, and not merely one that prefers a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["constant_scores"]

ROUNDING = 1e-6
"""Probabilities that differ by less are the same: single precision, summed in another order."""


def constant_scores(scores: NDArray[Any], classes: Sequence[str]) -> str:
    """Say that every clip gets the same probabilities, to within rounding; empty if they differ, or there is one clip only.

    A model that calls everything one class with probabilities that differ has not collapsed: its scores may still rank the clips.

    Args:
        scores: (n_clips, n_classes) probabilities.
        classes: (n_classes,) names.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < 2 or not np.isfinite(values).all() or np.ptp(values, axis=0).max() > ROUNDING:
        return ""
    top = int(values[0].argmax())
    return f"every clip gets the same probabilities ({values[0, top]:.3f} for {classes[top]!r})"
