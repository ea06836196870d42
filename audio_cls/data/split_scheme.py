"""What a split is, and the family of schemes that make one; the members are in `splits`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.groups import check_leak
from audio_cls.data.identical import check_identical, undivided_groups

__all__ = ["TEST", "TRAIN", "UNUSED", "VALIDATION", "Index", "Published", "Split", "SplitScheme"]

Index = NDArray[np.int64]

UNUSED, TRAIN, VALIDATION, TEST = -1, 0, 1, 2


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

    def side_of(self) -> dict[int, str]:
        """Return the side of each clip that is on one: clip -> "train", "validation" or "test"."""
        return {int(i): name for name, side in self.sides().items() for i in side}


class SplitScheme(Component, family=True):
    """A way to split a corpus. Same scheme and same corpus, same split."""

    fold_key: ClassVar[str] = ""
    """The field that says at which fold the scheme stands; empty for a scheme without folds."""
    any_fold: ClassVar[bool] = False
    """Whether any number is a fold, so that they cannot be listed."""
    added_fields = frozenset({"allow_duplicates"})

    allow_duplicates: bool = False
    """Whether identical clips may stand on more than one side; recorded and shown with every figure. Otherwise a generated split
    keeps them on one side, and a published one that does not is refused."""

    def assign(self, corpus: Corpus) -> Split:
        """Split a corpus.

        Raises:
            UserError: an empty training or validation side, a fold or split that is not there (listing what is), or a
                group or identical clips on two sides (naming them) that the scheme does not allow.
        """
        sides = self.sides(corpus)
        train, validation, test = (np.flatnonzero(sides == s).astype(np.int64) for s in (TRAIN, VALIDATION, TEST))
        split = Split(train, validation, test, corpus.digest)
        for name in ("train", "validation"):
            if len(split.sides()[name]) == 0:
                found = ", ".join(f"{k} {len(v)}" for k, v in split.sides().items())
                raise UserError(f"split {self.kind!r} of {corpus.name!r}: the {name} side is empty ({found} clips)")
        check_leak(corpus, split, getattr(self, "allow_shared_groups", None))
        if not self.allow_duplicates:
            check_identical(corpus, split)
        return split

    def as_recorded(self, corpus: Corpus, split_digest: str | None) -> Self:
        """Return the scheme that makes a recorded split. Runs of the time before identical clips were looked for may have them on
        two sides: for those the scheme that allows it.

        Args:
            split_digest: as the run recorded it.
        """
        if self.allow_duplicates or not corpus.identical:
            return self
        former = self.model_copy(update={"allow_duplicates": True})
        return former if former.assign(corpus).digest == split_digest else self

    def undivided(self, corpus: Corpus) -> Sequence[str | None]:
        """Return what a generated split keeps whole, (n,): the groups and, unless duplicates are allowed, identical clips."""
        return corpus.groups if self.allow_duplicates else undivided_groups(corpus)

    def sides(self, corpus: Corpus) -> Index:
        """Return (n,): the side of each clip: 0 train, 1 validation, 2 test, -1 unused."""
        raise NotImplementedError

    def folds(self, corpus: Corpus) -> dict[int, str]:
        """Return the folds that a corpus has in this scheme: number -> name (of the group left out, else the
        number). Empty if there are none, and where any number is a fold.
        """
        return {}

    def fold_number(self, corpus: Corpus) -> int:
        """At which fold the scheme stands; 0 for a scheme without folds that can be listed."""
        return int(getattr(self, self.fold_key)) if self.fold_key and not self.any_fold else 0

    def fold_name(self, corpus: Corpus) -> str:
        """Return the name of the fold at which the scheme stands; empty for a scheme without folds that can be listed."""
        if not self.fold_key or self.any_fold:
            return ""
        number = self.fold_number(corpus)
        return self.folds(corpus).get(number, str(number))


class Published(SplitScheme):
    """A scheme that takes folds or sides as the data set names them, so that groups may stand on two sides."""

    added_fields = SplitScheme.added_fields | {"allow_shared_groups"}

    allow_shared_groups: bool = False
    """Whether groups (speakers, recordings) may stand on more than one side; recorded and shown with every figure."""
