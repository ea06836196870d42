"""Stratified assignment of clips to sides or folds, with the clips of a group kept together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.rng import numpy_rng

__all__ = ["stratify"]


def stratify(
    targets: NDArray[np.floating], groups: Sequence[str | None], fractions: tuple[float, ...], seed: int
) -> NDArray[np.int64]:
    """Deal groups out to sides so that every class, and the clips as a whole, are divided in the given proportions.

    Greedy and iterative in the manner of Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data"
    (ECML 2011), with whole groups as units: groups that hold the largest share of any class go first, each to the side
    where it adds least to sum over sides and classes of (share - fraction)^2 / fraction. Serves one label a clip and
    many alike.

    Args:
        targets: (n, n_classes) of 0 and 1.
        groups: (n,) names; None makes a group of one.
        fractions: of each side, summing to 1; a side with 0 stays empty.

    Returns:
        (n,) the side of each clip.
    """
    names: dict[str | int, int] = {}
    unit = np.asarray(
        [names.setdefault(i if g is None else g, len(names)) for i, g in enumerate(groups)], dtype=np.int64
    )
    counts = np.zeros((len(names), targets.shape[1] + 1))  # the last column counts clips
    np.add.at(counts, unit, np.concatenate([targets, np.ones((len(targets), 1))], axis=1))
    shares = counts / np.maximum(counts.sum(axis=0), 1)  # (groups, classes + 1)
    shuffled = numpy_rng(seed, "stratify").permutation(len(names))
    order = shuffled[np.argsort(-shares[shuffled].max(axis=1), kind="stable")]
    open_sides = np.flatnonzero(np.asarray(fractions) > 0)
    p = np.asarray(fractions, dtype=np.float64)[open_sides, None]
    filled = np.zeros((len(open_sides), shares.shape[1]))
    side = np.zeros(len(names), dtype=np.int64)
    for g in order:
        share = shares[g]
        chosen = int((share * (2 * filled + share) / p).sum(axis=1).argmin())
        filled[chosen] += share
        side[g] = open_sides[chosen]
    return side[unit]
