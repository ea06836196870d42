"""Averaged predictions of several runs, over folds and seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.runs.ensemble import average_predictions
from audio_cls.training.predictions import corpus_predictions


def test_clips_are_averaged_over_the_models_that_predict_them(tones_corpus: Path) -> None:
    """Two folds, two seeds, in any order of clips: each clip's mean is over its own two models."""
    corpus = Corpus.open(tones_corpus)
    rng = np.random.default_rng(0)
    folds = (np.arange(0, 30, 2), np.arange(1, 30, 2)[::-1])
    values = rng.dirichlet(np.ones(3), size=(2, 30))
    members = [corpus_predictions(corpus, rows, values[seed, rows]) for seed in range(2) for rows in folds]
    averaged, single = average_predictions(members, corpus)
    assert averaged.scores == pytest.approx(values.mean(0))
    assert averaged.clips == tuple(corpus.ids)
    assert np.array_equal(averaged.targets, corpus.targets)
    for seed, one in enumerate(single):
        assert one.scores == pytest.approx(values[seed])
    by_run = [
        corpus_predictions(corpus, rows, values[k, rows]) for rows in folds for k in range(2)
    ]  # snapshots of two runs
    assert [one.scores.tolist() for one in average_predictions(by_run, corpus)[1]] == [
        one.scores.tolist() for one in single
    ]
    with pytest.raises(UserError, match="judges each clip by as many models"):
        average_predictions(members[:3], corpus)
