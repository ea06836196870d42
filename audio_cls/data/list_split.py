"""The split scheme for published folds that are lists of clips (DCASE 2017): some clips are in two of them, some in none."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.splits import TEST, TRAIN, UNUSED, VALIDATION, Fraction, Index, Published, hold_out, listed_folds

__all__ = ["Lists"]


class Lists(Published, kind="lists"):
    """Published folds that are lists of clips, not a partition of them: what a fold's lists name trains and is held out, other
    clips are unused. The published test split, where there is one, tests.

    The held-out list validates, or with `held_out="test"` tests, where a stratified part of the training list validates.
    """

    fold_key = "fold"

    fold: int = 1
    """The published fold."""
    held_out: Literal["validation", "test"] = "validation"
    """What the held-out list is for; with test, a part of the training list validates."""
    val_fraction: Fraction = 0.2
    """With held_out=test, the share of the training list that validates."""
    seed: int = Field(default=0, ge=0)
    """With held_out=test, draws other validation clips."""

    def sides(self, corpus: Corpus) -> Index:
        lists = corpus.lists
        if self.fold not in lists:
            tail = "" if lists else "; use the split 'folds', 'official', 'grouped' or 'k_fold'"
            raise UserError(
                f"{corpus.name!r} has no lists of fold {self.fold}. Folds: {listed_folds(sorted(lists))}{tail}"
            )
        sides = np.full(len(corpus), UNUSED, dtype=np.int64)
        sides[[split == "test" for split in corpus.splits]] = UNUSED if self.held_out == "test" else TEST
        for side, number in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
            if side in lists[self.fold]:
                sides[lists[self.fold][side]] = number
        if self.held_out == "test":
            sides[sides == VALIDATION] = TEST
            hold_out(corpus, sides, self.undivided(corpus), self.val_fraction, self.seed)
        return sides

    def folds(self, corpus: Corpus) -> dict[int, str]:
        return {fold: str(fold) for fold in sorted(corpus.lists)}
