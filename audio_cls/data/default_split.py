"""The split that fits a corpus: what `data.split=auto`, the default, becomes."""

from __future__ import annotations

from collections.abc import Iterator

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.identical import undivided_groups
from audio_cls.data.list_split import Lists
from audio_cls.data.splits import CrossValidation, Folds, Index, KFold, Official, Split, SplitScheme

__all__ = ["AutoSplit", "choose_split"]

K_FOLDS = 5
UNGROUPED = "It names no groups: clips of one recording or speaker may be on both sides"


class AutoSplit(SplitScheme, kind="auto"):
    """Left to the data: published lists of folds, published folds, else the published split, else generated folds, stratified, with whole groups."""

    def assign(self, corpus: Corpus) -> Split:
        return choose_split(corpus, self.allow_duplicates)[0].assign(corpus)

    def sides(self, corpus: Corpus) -> Index:
        return choose_split(corpus, self.allow_duplicates)[0].sides(corpus)


def choose_split(corpus: Corpus, allow_duplicates: bool = False) -> tuple[SplitScheme, str]:
    """Return the split that fits a corpus, and why: the first candidate that can be assigned.

    Args:
        allow_duplicates: whether identical clips may stand on two sides; the split that is returned allows it too.

    Raises:
        UserError: when none can be: what is wrong with each.
    """
    faults: list[str] = []
    for candidate, why in _candidates(corpus):
        scheme = candidate.model_copy(update={"allow_duplicates": allow_duplicates})
        try:
            scheme.assign(corpus)
        except UserError as error:
            faults.append(f"{scheme.kind}: {error}")
            continue
        return scheme, "; ".join([why, *(f"not {fault}" for fault in faults)])
    raise UserError(f"{corpus.name!r} cannot be split:\n  " + "\n  ".join(faults))


def _candidates(corpus: Corpus) -> Iterator[tuple[SplitScheme, str]]:
    lists = sorted(corpus.lists)
    if lists:
        yield Lists(fold=lists[0]), f"the lists of its {len(lists)} folds"
    folds = sorted({int(fold) for fold in corpus.folds if fold >= 0})
    if len(folds) >= 3:
        yield Folds() if Folds().test_fold in folds else Folds(test_fold=folds[0]), f"its {len(folds)} folds"
    if len(folds) == 2:
        yield CrossValidation(fold=folds[0]), "its 2 folds, one of which validates; there is no test set"
    if any(corpus.splits):
        yield Official(), "its official split"
    kept_whole = undivided_groups(corpus)
    groups = {group for group in corpus.groups if group is not None}
    why = f"its {len(groups)} groups are kept whole" if groups else f"stratified by class. {UNGROUPED}"
    units = len(set(kept_whole) - {None}) + sum(group is None for group in kept_whole)
    if units >= 3:
        yield KFold(k=min(K_FOLDS, units), held_out="test"), why
    yield KFold(k=2), f"{why}; too few for a test set"
