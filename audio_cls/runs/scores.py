"""The stored predictions of a run: read back by clip of the corpus, and listened to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.classification import fit_thresholds
from audio_cls.training.predictions import LAST_SCORES, SCORES, read_scores

if TYPE_CHECKING:
    from audio_cls.report.page import Section
    from audio_cls.tracking import Tracker

__all__ = ["CellScores", "listening_audit", "read_cell_scores"]


@dataclass(frozen=True, eq=False)
class CellScores:
    """Probabilities of one run. clips: (n,) rows of the corpus. values: (n, n_classes)."""

    clips: NDArray[np.int64]
    values: NDArray[np.float64]


def read_cell_scores(tracker: Tracker, run_id: str, corpus: Corpus, select: str) -> CellScores | None:
    """The stored probabilities of a run, by corpus row; None where they are not there (a run that failed, an older one).

    Raises:
        UserError: where they are of another corpus: naming the clip or the class.
    """
    try:
        path = tracker.download(run_id, LAST_SCORES if select == "last" else SCORES)
    except UserError:
        return None
    found = read_scores(path)
    if found.classes != tuple(corpus.classes):
        raise UserError(
            f"run {run_id[:8]}: predictions of the classes {found.classes}, the corpus has {corpus.classes}"
        )
    rows = {clip: row for row, clip in enumerate(corpus.ids)}
    missing = [clip for clip in found.clips if clip not in rows]
    if missing:
        raise UserError(
            f"run {run_id[:8]}: predictions of the clip {missing[0]!r}, which {corpus.name!r} does not have"
        )
    return CellScores(np.array([rows[c] for c in found.clips], dtype=np.int64), found.values)


def listening_audit(scores: CellScores, corpus: Corpus, whose: str) -> list[Section]:
    """The sections of a page on which the surest mistakes and the least sure hits can be heard, from stored predictions."""
    from audio_cls.report.audit import audit_sections
    from audio_cls.report.page import Section

    targets = corpus.targets[scores.clips]
    rows = scores.clips.tolist()
    sections = audit_sections(
        scores.values,
        targets,
        corpus.task,
        corpus.classes,
        [corpus.ids[row] for row in rows],
        lambda row: corpus.waveform(rows[row]),
        corpus.sample_rate,
        fit_thresholds(scores.values, targets) if corpus.task == "multilabel" else None,
    )
    return [Section(section.heading, [whose, *section.content]) for section in sections]
