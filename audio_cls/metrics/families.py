"""Metrics over families of classes: scores and targets are put together by family before anything is measured.

So is the mean AP over the top-level families of the AudioSet ontology that is published for FSD50K. It is not the mean of the
members' AP: a dog that is called a cat costs both classes, and the family of animals nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import nan
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.metrics.base import Map, Metric, Uses

__all__ = ["Families", "FamilyMap", "FamilyMetric", "NoisyOrFamilyMap"]

Array = NDArray[Any]

Families = Mapping[str, tuple[int, ...]]
"""Name of a family -> the columns of its classes. A class may be in several families, or in none."""


class FamilyMetric(Metric):
    """A metric of families of classes. It is reported only where the corpus has families; `for_families` gives it them."""

    families: tuple[tuple[int, ...], ...] = ()
    """Columns of the classes of each family."""

    def for_families(self, families: Families) -> Self | None:
        return self.model_copy(update={"families": tuple(families.values())}) if families else None

    @abstractmethod
    def join(self, scores: Array) -> Array:
        """Return the score of one family, (n_clips,), from those of its classes, (n_clips, n_members)."""
        raise NotImplementedError

    def by_family(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return scores and targets of the families, both (n_clips, n_families). A target is there where any member's is.

        Raises:
            UserError: where the metric has no families.
        """
        if not self.families:
            raise UserError(
                f"metric {self.kind!r} needs the families of the classes, which these predictions do not have"
            )
        truth = np.asarray(targets) > 0.5
        columns = [list(family) for family in self.families]
        joined = [self.join(np.asarray(scores)[:, family]) for family in columns]
        return np.stack(joined, axis=1), np.stack([truth[:, family].any(axis=1) for family in columns], axis=1)


class FamilyMap(FamilyMetric, kind="family_map"):
    """Mean average precision over families of classes. A family's score is the highest of its classes' scores."""

    uses: ClassVar[Uses] = "ranking"

    def join(self, scores: Array) -> Array:
        return scores.max(axis=1)

    def score(self, scores: Array, targets: Array, called: Array) -> float:
        joined, truth = self.by_family(scores, targets)
        return nan if np.isnan(joined).any() else Map().score(joined, truth, truth)


class NoisyOrFamilyMap(FamilyMap, kind="family_map_noisy_or"):
    """As `family_map`, with the noisy-or of the classes' probabilities: 1 - (1 - p_1)(1 - p_2)..., the chance that any label of
    the family is there if labels occur independently. Labels of one clip that exclude each other do not, so it is for several labels
    a clip only.
    """

    tasks: ClassVar[tuple[str, ...]] = ("multilabel",)

    def join(self, scores: Array) -> Array:
        """Return -log(1 - noisy-or), which ranks as the noisy-or does, and still where that rounds to 1."""
        p = np.where((scores >= 0) & (scores <= 1), scores, nan).astype(np.float64)
        with np.errstate(divide="ignore"):  # a probability of 1 is infinitely sure
            return np.asarray(-np.log1p(-p).sum(axis=1))
