"""Runs that have collapsed: how they are known, and that they are marked wherever their figures are shown."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from audio_cls.cli.leaderboard import leaderboard
from audio_cls.metrics.collapse import constant_scores
from audio_cls.queue.record import attributes
from audio_cls.queue.status import findings_of, study_status, summary
from audio_cls.runs.collapse import find_collapse, tell_collapse
from audio_cls.training.divergence import FIRST_LOSS, MEDIAN_LOSS
from audio_cls.training.loop import Fit
from tests.predictions import made

CLASSES = ("dog", "rain", "sea")


def test_constant_scores_are_told_from_one_answer_for_everything() -> None:
    one = np.tile([0.2, 0.7, 0.1], (20, 1))
    rng = np.random.default_rng(1)
    assert constant_scores(one, CLASSES) == "every clip gets the same probabilities (0.700 for 'rain')"
    assert constant_scores(one + 1e-7 * rng.random((20, 3)), CLASSES)  # to within rounding
    assert constant_scores(one + 1e-3 * rng.random((20, 3)), CLASSES) == ""  # all are called rain, but they are ranked
    assert constant_scores(one[:1], CLASSES) == ""
    assert constant_scores(np.full((5, 3), np.nan), CLASSES) == ""


def test_best_and_last_epoch_are_judged_each_by_itself() -> None:
    targets = np.eye(3)[[0, 1, 2, 0]]
    good, constant = made(targets * 0.8 + 0.1, targets), made(np.full((4, 3), 1 / 3), targets)
    history = [{FIRST_LOSS: 1.1, MEDIAN_LOSS: 1.0}, {MEDIAN_LOSS: 5e6}]
    late = Fit(history, 0, 0.8, predictions=good, last_predictions=constant)
    found = find_collapse(late)
    assert list(found) == ["last"]
    assert "every clip gets the same probabilities" in found["last"]
    assert "rose from 1.1 in the first step to 5e+06 in epoch 2" in found["last"]
    assert tell_collapse(found) == f"Collapsed at the last epoch: {found['last']}."
    both = find_collapse(Fit(history, 1, 0.8, predictions=constant, last_predictions=constant))
    assert tell_collapse(both) == f"Collapsed: {both['best']}."
    assert find_collapse(Fit(history, 0, 0.8, predictions=good, last_predictions=good)).keys() == {"last"}
    assert tell_collapse({}) == ""


# -- in a search ------------------------------------------------------------------------------------------------------


def trial(number: int, value: float, why: str = "") -> FrozenTrial:
    collapsed = {"collapsed": {"best": why, "last": why}, "findings": (f"Collapsed: {why}.",)} if why else {}
    attrs = attributes(config=number, ready=True, outcome="complete", **collapsed)
    return create_trial(state=TrialState.COMPLETE, value=value, user_attrs=attrs)


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def test_a_collapsed_trial_is_not_the_best_unless_all_are(study: optuna.Study) -> None:
    study.add_trials([trial(0, 0.9, "constant"), trial(1, 0.5), trial(2, 0.7)])
    status = study_status(study)
    assert [row.number for row in status.rows] == [2, 1, 0]
    assert status.best is not None
    assert (status.best.number, status.best.value) == (2, 0.7)
    assert status.rows[2].state_text == "complete (collapsed)"
    assert "3 complete, 1 of them collapsed" in summary(status)[0]
    states = list(leaderboard(status).columns[1].cells)
    assert states == ["complete", "complete", "complete (collapsed)"]


def test_where_all_trials_have_collapsed_the_best_one_says_so(study: optuna.Study) -> None:
    study.add_trials([trial(0, 0.1, "a"), trial(1, 0.2, "b")])
    status = study_status(study)
    assert status.best is not None
    assert status.best.number == 1
    assert findings_of(status) == ["Collapsed: b."]


def test_a_trial_that_collapsed_after_its_best_epoch_keeps_its_place(study: optuna.Study) -> None:
    attrs = attributes(config=0, ready=True, outcome="complete", collapsed={"last": "the loss rose"})
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.9, user_attrs=attrs))
    study.add_trial(trial(1, 0.5))
    status = study_status(study)
    assert status.best is not None
    assert (status.best.number, status.collapsed) == (0, 0)
