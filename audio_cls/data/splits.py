"""Split schemes: which clips train, which validate, which test.

Published folds and splits are taken as they are; `grouped`, `k_fold` and `leave_one_group_out` make splits for data that names
none. A scheme with folds stands at one of them: `fold_key` is the field that says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from audio_cls.core.errors import UserError, did_you_mean
from audio_cls.data.corpus import Corpus
from audio_cls.data.groups import check_leak, group_names
from audio_cls.data.split_scheme import TEST, TRAIN, UNUSED, VALIDATION, Index, Published, Split, SplitScheme
from audio_cls.data.stratification import stratify

__all__ = [
    "CrossValidation",
    "Folds",
    "Grouped",
    "Index",
    "KFold",
    "LeaveOneGroupOut",
    "Official",
    "Split",
    "SplitScheme",
    "check_leak",
    "stratify",
]

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Folds(Published, kind="folds"):
    """Published folds: one is the test set, one (the next, cyclically, unless named) validates, the rest trains."""

    fold_key = "test_fold"

    test_fold: int = 1
    """The published fold that tests."""
    validation_fold: int | None = None
    """The published fold that validates; none takes the one after test_fold."""

    def sides(self, corpus: Corpus) -> Index:
        existing = _folds(corpus, self.test_fold)
        if len(existing) < 3:
            raise UserError(
                f"{corpus.name!r} has {len(existing)} folds ({listed_folds(existing)}), a split into three needs 3 or more"
            )
        following = existing[(existing.index(self.test_fold) + 1) % len(existing)]
        validation = following if self.validation_fold is None else self.validation_fold
        _folds(corpus, validation)
        if validation == self.test_fold:
            raise UserError(
                f"fold {validation} is asked as test and as validation fold; choose among {listed_folds(existing)}"
            )
        sides = np.where(corpus.folds == self.test_fold, TEST, np.where(corpus.folds == validation, VALIDATION, TRAIN))
        return np.where(corpus.folds < 0, UNUSED, sides).astype(np.int64)

    def folds(self, corpus: Corpus) -> dict[int, str]:
        return {fold: str(fold) for fold in _published(corpus)}


class CrossValidation(Published, kind="cross_validation"):
    """Published folds without a test set, unless `test_fold` keeps one: one is held out as the validation set, the rest trains.

    For data sets whose custom is to report the mean over folds. Nothing may then be chosen per fold, the number of
    epochs included, or the mean is optimistic.
    """

    fold_key = "fold"
    added_fields = Published.added_fields | {"test_fold"}

    fold: int = 1
    """The published fold that validates."""
    test_fold: int | None = None
    """The published fold kept for the test: no run trains or validates on it. None keeps none."""

    def sides(self, corpus: Corpus) -> Index:
        _folds(corpus, self.fold)
        sides = np.where(corpus.folds == self.fold, VALIDATION, TRAIN)
        if self.test_fold is not None:
            _check_test_fold(self.fold, self.test_fold, _folds(corpus, self.test_fold))
            sides = np.where(corpus.folds == self.test_fold, TEST, sides)
        return np.where(corpus.folds < 0, UNUSED, sides).astype(np.int64)

    def folds(self, corpus: Corpus) -> dict[int, str]:
        return {fold: str(fold) for fold in _published(corpus) if fold != self.test_fold}


class Official(Published, kind="official"):
    """The published split. Where it names no validation set, a stratified, grouped part of training is held out."""

    val_fraction: Fraction = 0.2
    """Share of the training clips that validates where the published split names no validation clips."""
    seed: int = 0
    """Of the drawn validation clips."""

    def sides(self, corpus: Corpus) -> Index:
        number = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
        sides = np.asarray([number.get(s or "", UNUSED) for s in corpus.splits], dtype=np.int64)
        if (sides < 0).all():
            has = "it has folds: use 'folds' or 'cross_validation'" if (corpus.folds >= 0).any() else "use 'grouped'"
            raise UserError(f"{corpus.name!r} names no official split; {has}")
        if not (sides == VALIDATION).any():
            hold_out(corpus, sides, self.undivided(corpus), self.val_fraction, self.seed)
        return sides


class Grouped(SplitScheme, kind="grouped"):
    """A seeded random split, stratified by class, groups kept whole (a clip without a group is its own)."""

    fold_key = "seed"  # a fold is another random split
    any_fold = True

    val_fraction: Fraction = 0.2
    """Share of the clips that validates."""
    test_fraction: Fraction = 0.2
    """Share of the clips that tests."""
    seed: int = 0
    """Draws another split."""

    def sides(self, corpus: Corpus) -> Index:
        train = 1 - self.val_fraction - self.test_fraction
        if train <= 0:
            raise UserError(
                f"val_fraction {self.val_fraction:g} and test_fraction {self.test_fraction:g} leave nothing to train on"
            )
        return stratify(
            corpus.targets, self.undivided(corpus), (train, self.val_fraction, self.test_fraction), self.seed
        )


class KFold(SplitScheme, kind="k_fold"):
    """Generated folds: `k` equal parts, stratified by class, groups kept whole (a clip without a group is its own).

    The folds depend on the corpus, `k` and `seed` (the split's own, not that of training). One is held out: to validate, or
    with `held_out="test"` to test, where the next one, cyclically, validates. `test_fold` keeps one for the test for good.
    """

    fold_key = "fold"
    added_fields = SplitScheme.added_fields | {"test_fold"}

    k: int = Field(default=5, ge=2, le=1000)
    """Number of folds."""
    fold: int = Field(default=1, ge=1)
    """The fold that is held out, 1 to k."""
    held_out: Literal["validation", "test"] = "validation"
    """What the fold is held out for; with test, the next fold validates."""
    seed: int = Field(default=0, ge=0)
    """Draws other folds."""
    test_fold: int | None = Field(default=None, ge=1)
    """The fold kept for the test, 1 to k, while the others validate in turn: no run trains or validates on it. None keeps none."""

    def sides(self, corpus: Corpus) -> Index:
        _check_held_out(self.held_out, self.test_fold)
        if self.fold > self.k:
            raise UserError(f"data.split.fold={self.fold}: data.split.k={self.k} folds are numbered 1 to {self.k}")
        if self.held_out == "test" and self.k < 3:
            raise UserError(f"data.split.k={self.k}: held_out=test takes 3 folds or more, one tests and one validates")
        groups = self.undivided(corpus)
        n_units = len(set(groups) - {None}) + sum(g is None for g in groups)
        if n_units < self.k:
            raise UserError(
                f"{corpus.name!r} has {n_units} groups, which cannot be divided into data.split.k={self.k} folds: groups are "
                "kept whole"
            )
        number = 1 + stratify(corpus.targets, groups, (1 / self.k,) * self.k, self.seed)
        if self.test_fold is not None:
            _check_test_fold(self.fold, self.test_fold, list(range(1, self.k + 1)))
        if self.held_out == "validation":
            sides = np.where(number == self.fold, VALIDATION, TRAIN)
            return np.where(number == self.test_fold, TEST, sides).astype(np.int64)
        following = self.fold % self.k + 1
        return np.where(number == self.fold, TEST, np.where(number == following, VALIDATION, TRAIN)).astype(np.int64)

    def folds(self, corpus: Corpus) -> dict[int, str]:
        return {fold: str(fold) for fold in range(1, self.k + 1) if fold != self.test_fold}


class LeaveOneGroupOut(SplitScheme, kind="leave_one_group_out"):
    """As many folds as the corpus has groups (speakers, recordings): one group is held out, the others train.

    `fold` is the name of the group, or its number from 1 on in the order of names. The group validates, or with
    `held_out="test"` tests, where a stratified part of the other groups (`val_fraction`, `seed`) validates. `test_fold` keeps one
    group for the test for good.
    """

    fold_key = "fold"
    added_fields = SplitScheme.added_fields | {"test_fold"}

    fold: Annotated[int, Field(ge=1)] | str = 1
    """The group that is held out: its name, or its number from 1 on in the order of names."""
    held_out: Literal["validation", "test"] = "validation"
    """What the group is held out for; with test, a part of the other groups validates."""
    val_fraction: Fraction = 0.2
    """With held_out=test, the share of the other clips that validates."""
    seed: int = Field(default=0, ge=0)
    """With held_out=test, draws other validation clips."""
    test_fold: Annotated[int, Field(ge=1)] | str | None = None
    """The group kept for the test, by name or number, while the others validate in turn: no run trains or validates on it."""

    def sides(self, corpus: Corpus) -> Index:
        _check_held_out(self.held_out, self.test_fold)
        groups = np.asarray(corpus.groups, dtype=object)
        number, names = self.fold_number(corpus), group_names(corpus)
        mine = groups == names[number - 1]
        if self.held_out == "validation":
            sides = np.where(mine, VALIDATION, TRAIN)
            if self.test_fold is not None:
                test = self._test_number(corpus)
                _check_test_fold(number, test, list(range(1, len(names) + 1)))
                sides = np.where(groups == names[test - 1], TEST, sides)
            return sides.astype(np.int64)
        sides = np.where(mine, TEST, TRAIN).astype(np.int64)
        hold_out(corpus, sides, self.undivided(corpus), self.val_fraction, self.seed)
        return sides

    def folds(self, corpus: Corpus) -> dict[int, str]:
        test = None if self.test_fold is None else self._test_number(corpus)
        return {number: name for number, name in enumerate(group_names(corpus), start=1) if number != test}

    def fold_number(self, corpus: Corpus) -> int:
        """Return the number of the group that is held out.

        Raises:
            UserError: for a corpus that names no groups, or not for every clip, and for a group that is not there.
        """
        names = group_names(corpus)
        if len(names) < 2:
            raise UserError(
                f"{corpus.name!r} names {len(names)} groups: leave_one_group_out takes 2 or more; use 'k_fold' or 'grouped'"
            )
        if None in corpus.groups:
            without = [i for i, group in enumerate(corpus.groups) if group is None]
            raise UserError(
                f"{corpus.name!r}: {len(without)} of {len(corpus)} clips name no group ({corpus.ids[without[0]]!r}, ...): "
                "leave_one_group_out takes a group for every clip; use 'k_fold' or 'grouped'"
            )
        return _group_number(corpus, "fold", self.fold)

    def _test_number(self, corpus: Corpus) -> int:
        assert self.test_fold is not None
        return _group_number(corpus, "test_fold", self.test_fold)


def _group_number(corpus: Corpus, key: str, value: int | str) -> int:
    """Return the number of a group given by its name or number.

    Raises:
        UserError: for a group that is not there.
    """
    names = group_names(corpus)
    if isinstance(value, str):
        if value not in names:
            raise UserError(
                f"data.split.{key}={value!r}: {corpus.name!r} has no such group. Groups: {_some(names)}."
                f"{did_you_mean(value, names)}"
            )
        return 1 + names.index(value)
    if value > len(names):
        quoted = f"; the group of that name is data.split.{key}='\"{value}\"'" if str(value) in names else ""
        raise UserError(f"data.split.{key}={value}: {corpus.name!r} has {len(names)} groups, numbered from 1{quoted}")
    return value


def _check_held_out(held_out: str, test_fold: object) -> None:
    if held_out == "test" and test_fold is not None:
        raise UserError(
            f"data.split.test_fold={test_fold} keeps one fold for the test, and data.split.held_out=test has each fold test in "
            "turn: set one of them"
        )


def _check_test_fold(fold: int, test_fold: int, existing: list[int]) -> None:
    """Refuse a fold kept for the test that is not there, that validates as well, or that leaves nothing to train on."""
    if test_fold not in existing:
        raise UserError(f"data.split.test_fold={test_fold}: there is no such fold. Folds: {listed_folds(existing)}")
    if fold == test_fold:
        raise UserError(
            f"data.split.fold={fold} validates and data.split.test_fold={test_fold} tests: they must differ. "
            f"Folds: {listed_folds(existing)}"
        )
    if len(existing) < 3:
        raise UserError(
            f"data.split.test_fold={test_fold}: with {len(existing)} folds nothing is left to train on; it takes 3 or more"
        )


def hold_out(corpus: Corpus, sides: Index, groups: Sequence[str | None], fraction: float, seed: int) -> None:
    """Move a stratified part of the training clips to validation, `groups` (n,) kept whole; changes `sides` (n,) in place."""
    train = np.flatnonzero(sides == TRAIN)
    if len(train):
        among = [groups[i] for i in train.tolist()]
        sides[train] = stratify(corpus.targets[train], among, (1 - fraction, fraction), seed)


def _published(corpus: Corpus) -> list[int]:
    return sorted({int(f) for f in np.unique(corpus.folds) if f >= 0})


def _folds(corpus: Corpus, fold: int) -> list[int]:
    existing = _published(corpus)
    if fold not in existing:
        tail = "" if existing else "; use the split 'grouped', 'k_fold' or 'official'"
        raise UserError(f"{corpus.name!r} has no fold {fold}. Folds: {listed_folds(existing)}{tail}")
    return existing


def listed_folds(folds: list[int]) -> str:
    return ", ".join(map(str, folds)) or "none"


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
