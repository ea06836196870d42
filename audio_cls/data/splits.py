"""Who trains, who chooses, who tests: schemes that assign a corpus's clips, and the check that no group is torn apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audio_cls.config import Component
from audio_cls.data.corpus import Corpus
from audio_cls.errors import UserError
from audio_cls.rng import numpy_rng

__all__ = ["CrossValidation", "Folds", "Grouped", "Official", "Split", "SplitScheme", "check_leak", "stratify"]

Index = NDArray[np.int64]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint sets of clips: ascending int64 indices into a corpus. `test` may be empty, the others never are."""

    train: Index
    validation: Index
    test: Index
    corpus_digest: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the corpus's digest and the three sets."""
        state = hashlib.sha256(self.corpus_digest.encode())
        for name, side in self.sides().items():
            state.update(f"|{name}:{len(side)}|".encode() + side.astype("<i8").tobytes())
        return state.hexdigest()

    def sides(self) -> dict[str, Index]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


class SplitScheme(Component, family=True):
    """A way to split a corpus. Same scheme and same corpus, same split."""

    def assign(self, corpus: Corpus) -> Split:
        """Split a corpus.

        Raises:
            UserError: an empty training or validation side, a fold or split that is not there (listing what is), or a
                group on two sides (naming it).
        """
        sides = self.sides(corpus)  # (n,) 0 train, 1 validation, 2 test, -1 unused
        train, validation, test = (np.flatnonzero(sides == s).astype(np.int64) for s in range(3))
        split = Split(train, validation, test, corpus.digest)
        for name in ("train", "validation"):
            if len(split.sides()[name]) == 0:
                found = ", ".join(f"{k} {len(v)}" for k, v in split.sides().items())
                raise UserError(f"split {self.kind!r} of {corpus.name!r}: the {name} side is empty ({found} clips)")
        check_leak(corpus, split)
        return split

    def sides(self, corpus: Corpus) -> Index:
        """(n,) the side of each clip: 0 train, 1 validation, 2 test, -1 unused."""
        raise NotImplementedError


class Folds(SplitScheme, kind="folds"):
    """Published folds: one is the test set, one (the next, cyclically, unless named) validates, the rest trains."""

    test_fold: int = 1
    validation_fold: int | None = None

    def sides(self, corpus: Corpus) -> Index:
        existing = _folds(corpus, self.test_fold)
        if len(existing) < 3:
            raise UserError(
                f"{corpus.name!r} has {len(existing)} folds ({_listed(existing)}), a split into three needs 3 or more"
            )
        following = existing[(existing.index(self.test_fold) + 1) % len(existing)]
        validation = following if self.validation_fold is None else self.validation_fold
        _folds(corpus, validation)
        if validation == self.test_fold:
            raise UserError(
                f"fold {validation} is asked as test and as validation fold; choose among {_listed(existing)}"
            )
        sides = np.where(corpus.folds == self.test_fold, 2, np.where(corpus.folds == validation, 1, 0))
        return np.where(corpus.folds < 0, -1, sides).astype(np.int64)


class CrossValidation(SplitScheme, kind="cross_validation"):
    """Published folds without a test set: one is held out as the validation set, the rest trains.

    For data sets whose custom is to report the mean over folds. Nothing may then be chosen per fold, the number of
    epochs included, or the mean is optimistic.
    """

    fold: int = 1

    def sides(self, corpus: Corpus) -> Index:
        _folds(corpus, self.fold)
        return np.where(corpus.folds < 0, -1, np.where(corpus.folds == self.fold, 1, 0)).astype(np.int64)


class Official(SplitScheme, kind="official"):
    """The published split. Where it names no validation set, a stratified, grouped part of training is held out."""

    val_fraction: Fraction = 0.2
    seed: int = 0

    def sides(self, corpus: Corpus) -> Index:
        number = {"train": 0, "validation": 1, "test": 2}
        sides = np.asarray([number.get(s or "", -1) for s in corpus.splits], dtype=np.int64)
        if (sides < 0).all():
            has = "it has folds: use 'folds' or 'cross_validation'" if (corpus.folds >= 0).any() else "use 'grouped'"
            raise UserError(f"{corpus.name!r} names no official split; {has}")
        train = np.flatnonzero(sides == 0)
        if not (sides == 1).any() and len(train):
            groups = [corpus.groups[i] for i in train]
            sides[train] = stratify(
                corpus.targets[train], groups, (1 - self.val_fraction, self.val_fraction), self.seed
            )
        return sides


class Grouped(SplitScheme, kind="grouped"):
    """A seeded random split, stratified by class, groups kept whole (a clip without a group is its own)."""

    val_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    seed: int = 0

    def sides(self, corpus: Corpus) -> Index:
        train = 1 - self.val_fraction - self.test_fraction
        if train <= 0:
            raise UserError(
                f"val_fraction {self.val_fraction:g} and test_fraction {self.test_fraction:g} leave nothing to train on"
            )
        return stratify(corpus.targets, corpus.groups, (train, self.val_fraction, self.test_fraction), self.seed)


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


def check_leak(corpus: Corpus, split: Split) -> None:
    """Refuse a split in which a clip or a group (recording, speaker) stands on two sides.

    Raises:
        UserError: naming the first five groups, their sides, and how many there are.
    """
    where: dict[str, list[str]] = {}
    clips: dict[int, str] = {}
    for name, side in split.sides().items():
        for i in side.tolist():
            if i in clips:
                raise UserError(f"{corpus.name!r}: clip {corpus.ids[i]!r} stands in {clips[i]} and in {name}")
            clips[i] = name
            group = corpus.groups[i]
            if group is not None and name not in where.setdefault(group, []):
                where[group].append(name)
    torn = [f"{group!r} ({' and '.join(sides)})" for group, sides in where.items() if len(sides) > 1]
    if torn:
        more = f" and {len(torn) - 5} more" if len(torn) > 5 else ""
        raise UserError(
            f"{corpus.name!r}: {len(torn)} group{'s' if len(torn) > 1 else ''} on two sides of the split: "
            f"{', '.join(torn[:5])}{more}. Clips of one group must stay together: use the split 'grouped', or mend the groups"
        )


def _folds(corpus: Corpus, fold: int) -> list[int]:
    existing = sorted({int(f) for f in np.unique(corpus.folds) if f >= 0})
    if fold not in existing:
        tail = "" if existing else "; use the split 'grouped' or 'official'"
        raise UserError(f"{corpus.name!r} has no fold {fold}. Folds: {_listed(existing)}{tail}")
    return existing


def _listed(folds: list[int]) -> str:
    return ", ".join(map(str, folds)) or "none"
