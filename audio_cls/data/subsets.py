"""A part of a split's clips: a share of them, or a number for each class, drawn at random with whole groups."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.core.rng import numpy_rng
from audio_cls.data.corpus import Corpus
from audio_cls.data.splits import Index, Split
from audio_cls.data.stratification import stratify

__all__ = ["Subset"]

_SIDES = {"train": ("train",), "train_validation": ("train", "validation"), "all": ("train", "validation", "test")}


class Subset(Component):
    """A part of the clips of some sides of a split: stratified by class, groups whole, drawn with `seed`."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the clips, stratified by class; where whole groups are larger than the share, the smallest one stays."""
    per_class: Annotated[int, Field(ge=1)] | None = None
    """So many clips of each class or a few more, as whole groups and several labels bring them; all of a rarer class."""
    sides: Literal["train", "train_validation", "all"] = "train"
    """Which sides are thinned. Figures of a thinned test side are not those of the data set."""
    seed: int = Field(default=0, ge=0)
    """Draws another part."""

    def apply(self, corpus: Corpus, split: Split) -> Split:
        """Return the split with the thinned sides.

        Raises:
            UserError: for a share of less than one clip, and a share together with a number.
        """
        if self.share == 1.0 and self.per_class is None:
            return split
        if self.share != 1.0 and self.per_class is not None:
            raise UserError("data.subset: set share or per_class, not both")
        sides = split.sides()
        for name in _SIDES[self.sides]:
            if len(sides[name]):
                n = len(sides[name])
                sides[name] = self._part(corpus, sides[name])
                if not len(sides[name]):
                    raise UserError(
                        f"data.subset.share={self.share:g} of {corpus.name!r} leaves no {name} clips: there are {n}, and the "
                        f"smallest share is {1 / n:.2g}"
                    )
        return Split(**sides, corpus_digest=split.corpus_digest)

    def _part(self, corpus: Corpus, clips: Index) -> Index:
        groups = [corpus.groups[int(i)] for i in clips]
        if self.per_class is None:
            part = stratify(corpus.targets[clips], groups, (self.share, 1 - self.share), self.seed) == 0
            if not part.any() and self.share * len(clips) >= 1:
                part = _smallest_group(groups, self.seed)
        else:
            part = _number_a_class(corpus.targets[clips], groups, self.per_class, self.seed)
        return clips[part]


def _smallest_group(groups: list[str | None], seed: int) -> NDArray[np.bool_]:
    """Return (n,) the clips of the smallest group, one drawn at random among several."""
    units = [i if g is None else g for i, g in enumerate(groups)]
    sizes = Counter(units)
    fewest = min(sizes.values())
    smallest = [unit for unit, size in sizes.items() if size == fewest]
    chosen = smallest[int(numpy_rng(seed, "subset").integers(len(smallest)))]
    return np.asarray([unit == chosen for unit in units])


def _number_a_class(
    targets: NDArray[np.floating], groups: list[str | None], number: int, seed: int
) -> NDArray[np.bool_]:
    """Return (n,) which clips are taken: groups in random order, each where a class of it still lacks clips, the classes with
    the fewest clips first.
    """
    names: dict[str | int, int] = {}
    unit = np.asarray([names.setdefault(i if g is None else g, len(names)) for i, g in enumerate(groups)])
    counts = np.zeros((len(names), targets.shape[1]))
    np.add.at(counts, unit, targets)
    order = numpy_rng(seed, "subset").permutation(len(names))
    taken, filled = np.zeros(len(names), dtype=bool), np.zeros(targets.shape[1])
    for k in np.argsort(counts.sum(axis=0), kind="stable"):
        for u in order:
            if filled[k] >= number:
                break
            if not taken[u] and counts[u, k] > 0:
                taken[u] = True
                filled += counts[u]
    return taken[unit]
