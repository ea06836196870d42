"""Thresholds of several labels a clip: fitted on clips, and honest on these clips by cross-fitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.metrics.ranking import fit_thresholds

__all__ = ["PARTS", "TUNED", "cross_fit_thresholds", "split_into_parts"]

TUNED = "_tuned"
"""Ends the name of a figure whose decisions come from tuned thresholds: `macro_f1` is at 0.5, `macro_f1_tuned` is not."""

PARTS = 5


def cross_fit_thresholds(
    scores: NDArray[Any], targets: NDArray[Any], groups: Sequence[Any] | None = None, n_parts: int = PARTS
) -> NDArray[np.float64]:
    """Return a threshold for each clip and label, (n_clips, n_classes), fitted on other clips than the clip itself.

    Clips are dealt into `n_parts`, groups whole; each part is called by the thresholds that give the highest F1 on all others
    (`fit_thresholds`). Figures of these decisions are of thresholds that did not see the clips (cross-fitting, Chernozhukov
    et al. 2018), unlike those of thresholds fitted on the very clips, which are too high.

    Args:
        scores: (n_clips, n_classes), no NaN.
        targets: (n_clips, n_classes), true where above 0.5.
        groups: (n_clips,) recording or speaker of each clip; each clip its own unless given.

    Returns:
        0.5 everywhere with a single group, which leaves no other clips to fit on.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    part = split_into_parts(len(scores), groups, n_parts)
    out = np.full(scores.shape, 0.5)
    if len(np.unique(part)) < 2:
        return out
    for number in np.unique(part):
        held = part == number
        out[held] = fit_thresholds(scores[~held], targets[~held])
    return out


def split_into_parts(n_clips: int, groups: Sequence[Any] | None = None, n_parts: int = PARTS) -> NDArray[np.int64]:
    """Return the part of each clip, (n_clips,), groups whole: the same for the same groups, parts nearly equal in clips."""
    names = np.arange(n_clips) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    if n_clips == 0:
        return np.zeros(0, np.int64)
    sizes = np.bincount(names)
    shuffled = np.random.default_rng(0).permutation(len(sizes))
    part_of, filled = np.zeros(len(sizes), np.int64), np.zeros(n_parts, np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:  # large groups first, each to the emptiest part
        part_of[group] = filled.argmin()
        filled[part_of[group]] += sizes[group]
    return part_of[names]
