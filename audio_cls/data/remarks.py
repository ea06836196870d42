"""What a reader must know of a corpus, and of what figures rest on: groups and identical clips on two sides, windows of long clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_cls.data.groups import shared_groups, shared_groups_declared, shared_groups_notes, shared_groups_text
from audio_cls.data.identical import (
    identical_declared,
    identical_notes,
    identical_on_two_sides,
    identical_text,
)
from audio_cls.data.name_groups import name_group_notes, name_group_warning
from audio_cls.data.near import near_notes, near_warning

if TYPE_CHECKING:
    from audio_cls.data.corpus import Corpus
    from audio_cls.data.splits import Split, SplitScheme
    from audio_cls.data.windows import EvaluationWindows

__all__ = [
    "OVERFIT",
    "OVERFIT_REMARK",
    "REMARKS",
    "corpus_notes",
    "declared_remarks",
    "recorded_remarks",
    "split_remarks",
    "split_warnings",
    "windows_remark",
]

WINDOWS = "evaluation.windows"
OVERFIT = "capacity_check"
OVERFIT_REMARK = "capacity check: trained and evaluated on the same clips (data.overfit=true): these figures say nothing of new clips"
REMARKS = ("split.shared_groups", "split.duplicates", WINDOWS, OVERFIT)
"""Facts and tags of a run that hold remarks on its figures; those without a remark are absent."""
_RANDOM = ("k_fold", "grouped")


def corpus_notes(corpus: Corpus) -> list[str]:
    """Return what to say of a corpus when it is prepared or described, a sentence or two each."""
    return [*shared_groups_notes(corpus), *identical_notes(corpus), *near_notes(corpus), *name_group_notes(corpus)]


def split_warnings(corpus: Corpus, scheme: SplitScheme) -> list[str]:
    """Return what to warn of before training on the split that a scheme makes.

    Raises:
        UserError: where the corpus cannot be split so.
    """
    split = scheme.assign(corpus)
    by_name = name_group_warning(corpus, split) if scheme.kind in _RANDOM else ""
    return [line for line in (near_warning(corpus, split), by_name) if line]


def split_remarks(corpus: Corpus, split: Split) -> dict[str, str]:
    """Return what to record of a split and to show with every figure: by the keys of `REMARKS`, without the empty ones."""
    texts = (
        shared_groups_text(len(shared_groups(corpus, split))),
        identical_text(len(identical_on_two_sides(corpus, split))),
    )
    return {key: text for key, text in zip(REMARKS[:2], texts, strict=True) if text}


def windows_remark(corpus: Corpus, split: Split, windows: EvaluationWindows, clip_samples: int) -> dict[str, str]:
    """Return what to record of the windows that clips are judged by, under the key `WINDOWS` of `REMARKS`; empty where each clip that is
    evaluated is one window at its own tempo.

    Args:
        clip_samples: samples (or rows) of a window.
    """
    evaluated = np.concatenate([split.validation, split.test])
    if not len(evaluated) or corpus.lengths[evaluated].max() <= clip_samples:
        return {WINDOWS: windows.describe_one()} if windows.has_views else {}
    return {WINDOWS: windows.describe(clip_samples / corpus.rate)}


def recorded_remarks(facts: Mapping[str, Any]) -> list[str]:
    """Return the remarks among the facts or tags of a run."""
    return [str(facts[key]) for key in REMARKS if facts.get(key)]


def declared_remarks(experiment: Mapping[str, Any]) -> list[str]:
    """Return the remarks on an experiment (as `to_dict` gives it) where its corpus is not at hand."""
    return [text for text in (shared_groups_declared(experiment), identical_declared(experiment)) if text]
