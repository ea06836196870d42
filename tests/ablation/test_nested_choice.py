"""Nested choice: the clips that measure an arm have no say in choosing it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from audio_cls.ablation.nested_choice import choose_arms, nested_choice
from audio_cls.ablation.test_figures import differences, pooled_interval
from audio_cls.ablation.test_groups import Group
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.predictions import Predictions

FOLDS, CLIPS = 5, 200


def stand_in_corpus() -> Corpus:
    targets = np.zeros((CLIPS, 2))
    targets[:, 0] = 1
    ids = tuple(map(str, range(CLIPS)))
    groups: Any = lambda rows: [f"clip {int(i)}" for i in rows]  # noqa: E731
    made = SimpleNamespace(
        targets=targets, ids=ids, classes=("a", "b"), task="multiclass", resampling_groups=groups, family_columns=()
    )
    return cast(Corpus, made)


def group(validation: dict[str, dict[tuple[int, int], float]], metric: str = "val/accuracy") -> Group:
    """Arms with the recorded figures of their runs."""
    plain = metric.removeprefix("val/")
    runs: Any = {
        arm: {cell: SimpleNamespace(metrics={f"last/{plain}": v}, tags={}) for cell, v in cells.items()}
        for arm, cells in validation.items()
    }
    return Group("suite s", cast(Any, None), runs, (metric,), "last", "by hand")


def test_a_fold_chooses_by_its_own_validation_clips_only() -> None:
    figures = {
        "a": {(0, 1): 0.9, (1, 1): 0.7, (0, 2): 0.1, (1, 2): 0.1},
        "b": {(0, 1): 0.7, (1, 1): 0.8, (0, 2): 0.9, (1, 2): 0.9},
        "failed once": {(0, 1): 1.0, (0, 2): 1.0, (1, 2): float("nan")},
    }
    found = choose_arms(group(figures))
    assert {fold: arm for fold, (arm, _) in found.folds.items()} == {1: "a", 2: "b"}
    assert found.folds[1][1] == pytest.approx(0.8)
    assert found.winner == "b"
    # What other folds say changes the winner over all folds, and nothing in fold 1.
    figures["a"] |= {(0, 2): 1.0, (1, 2): 1.0}
    again = choose_arms(group(figures))
    assert (again.folds[1], again.winner) == (found.folds[1], "a")
    falling = choose_arms(group({arm: figures[arm] for arm in "ab"}, "val/loss"))
    assert {fold: arm for fold, (arm, _) in falling.folds.items()} == {1: "b", 2: "b"}


def test_what_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(UserError, match="chooses among arms, and there is only alone"):
        choose_arms(group({"alone": {(0, 1): 0.5}}))
    with pytest.raises(UserError, match="in fold 2 no arm has val/accuracy of all 1 seeds"):
        choose_arms(group({"a": {(0, 1): 0.5}, "b": {(0, 1): 0.5, (0, 2): float("nan")}}))


def scored(right: np.ndarray, rows: np.ndarray, corpus: Corpus) -> Any:
    """A run that calls the clips `rows` right where `right` (n_clips,) says so."""
    scores = np.stack([right[rows], 1 - right[rows]], axis=1).astype(float)
    ids = tuple(corpus.ids[i] for i in rows)
    groups = tuple(corpus.resampling_groups(rows))
    predictions = Predictions(ids, scores, corpus.targets[rows], ("a", "b"), "multiclass", None, groups, rows)
    return SimpleNamespace(
        predictions=predictions, clips=rows, run=SimpleNamespace(tags={}), split=SimpleNamespace(train=rows)
    )


def test_of_equal_arms_nested_choice_tells_their_worth_and_the_winners_figure_more() -> None:
    """Thirty arms that are right on half of all clips, each on other ones: whatever chooses among them gains nothing."""
    corpus, rng = stand_in_corpus(), np.random.default_rng(3)
    rows = np.arange(CLIPS)
    tests = {fold: rows[rows % FOLDS == fold - 1] for fold in range(1, FOLDS + 1)}
    nested, winners = [], []
    for _ in range(12):
        right = {
            f"arm {i}": rng.permuted(np.repeat([0, 1], CLIPS)[rng.permutation(2 * CLIPS)][:CLIPS]) for i in range(30)
        }
        arms = {arm: {(0, fold): scored(mine, tests[fold], corpus) for fold in tests} for arm, mine in right.items()}
        # As with every fold in turn: fold k validates on the test clips of the next fold.
        figures = {
            arm: {(0, fold): float(mine[tests[fold % FOLDS + 1]].mean()) for fold in tests}
            for arm, mine in right.items()
        }
        suite = group(figures)
        found = nested_choice(suite, choose_arms(suite), arms, corpus, ["val/accuracy"])
        nested.append(found.figures["val/accuracy"]["value"])
        winners.append(found.winner_figures["val/accuracy"]["value"])
        gap = found.differences["val/accuracy"]
        assert gap["value"] == pytest.approx(nested[-1] - winners[-1])
        assert gap["low"] <= gap["value"] <= gap["high"]
        assert "nested accuracy" in found.lines()[0]
    assert np.mean(nested) == pytest.approx(0.5, abs=0.04)  # standard error 0.01
    assert np.mean(winners) > 0.55


def test_runs_that_test_on_the_same_clips_are_averaged_and_compared_on_one_split() -> None:
    corpus, rng = stand_in_corpus(), np.random.default_rng(0)
    rows = np.arange(0, CLIPS, 2)
    arms: dict[str, dict[tuple[int, int], Any]] = {
        arm: {(0, fold): scored(rng.integers(0, 2, CLIPS), rows, corpus) for fold in (1, 2, 3)} for arm in ("a", "b")
    }
    accuracies = [one.predictions.evaluation.overall["accuracy"] for one in arms["a"].values()]
    interval = pooled_interval(arms["a"], corpus, "val/accuracy")
    assert interval.estimate == pytest.approx(np.mean(accuracies))
    assert interval.n_units == len(rows)  # not three times as many
    found = differences(arms, ["val/accuracy"], "a", None)
    assert "on this split" in found["b"]["val/accuracy"]["text"]
