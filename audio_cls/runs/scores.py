"""The stored predictions of a run: read back by clip of the corpus, and listened to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.predictions import Predictions
from audio_cls.training.predictions import (
    LAST_SCORES,
    SCORES,
    SNAPSHOTS,
    corpus_predictions,
    read_scores,
    snapshot_scores,
)

if TYPE_CHECKING:
    from pathlib import Path

    from audio_cls.report.page import Section
    from audio_cls.tracking import RunInfo, Tracker

__all__ = ["listening_audit", "read_predictions", "read_snapshots"]


def read_predictions(tracker: Tracker, run_id: str, corpus: Corpus, select: str = "best") -> Predictions | None:
    """Return the recorded predictions of a run's validation clips, by the weights of its best or of its last epoch;
    None if there are none (a run that failed, an older one). Labels are called from 0.5 on, see
    `Predictions.tuned`.

    Raises:
        UserError: where they are of another corpus: naming the clip or the class.
    """
    try:
        path = tracker.download(run_id, LAST_SCORES if select == "last" else SCORES)
    except UserError:
        return None
    return _read(path, run_id, corpus)


def read_snapshots(tracker: Tracker, info: RunInfo, corpus: Corpus) -> list[Predictions]:
    """Return the recorded predictions of a run's validation clips at the end of each cycle of its schedule, in order of the epochs; empty for
    a run that kept none.

    Raises:
        UserError: as `read_predictions`, and where one that the run recorded cannot be read.
    """
    epochs = [int(epoch) for epoch in info.tags.get(SNAPSHOTS, "").split(",") if epoch.strip()]
    return [_read(tracker.download(info.run_id, snapshot_scores(e)), info.run_id, corpus) for e in epochs]


def _read(path: Path, run_id: str, corpus: Corpus) -> Predictions:
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
    return corpus_predictions(corpus, np.array([rows[c] for c in found.clips], dtype=np.int64), found.values)


def listening_audit(predictions: Predictions, corpus: Corpus, whose: str) -> list[Section]:
    """Return the sections of a page on which the surest mistakes and the least sure hits can be heard, from stored
    predictions.
    """
    from audio_cls.report.audit import audit_sections
    from audio_cls.report.page import Section

    tuned = predictions.tuned()
    sections = audit_sections(tuned, lambda row: corpus.values(int(tuned.rows[row])), corpus.rate)
    return [Section(section.heading, [whose, *section.content]) for section in sections]
