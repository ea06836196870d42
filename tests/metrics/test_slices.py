"""Arms on groups of clips: figures, differences and intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.slices import compare_by, figures_by

N = 60
VALUES = ["10" if k % 3 else "9" for k in range(N)]
NINE = np.array([value == "9" for value in VALUES])


def predictions(n_right: int, seed: int = 0) -> Predictions:
    """Predictions of 60 clips of two recordings each, `n_right` of the first three quarters of them right and none of the others."""
    targets = np.eye(3)[np.arange(N) % 3]
    wrong = np.roll(targets, 1, axis=1)
    right = np.zeros(N, bool)
    right[np.random.default_rng(seed).permutation(45)[:n_right]] = True
    clips = tuple(f"clip{k}" for k in range(N))
    groups = tuple(f"recording {k // 2}" for k in range(N))
    return Predictions(
        clips, np.where(right[:, None], targets, wrong), targets, ("a", "b", "c"), "multiclass", groups=groups
    )


def hits(found: Predictions) -> np.ndarray:
    return np.asarray(found.scores).argmax(1) == np.asarray(found.targets).argmax(1)


def test_figures_of_arms_are_means_over_seeds_and_differences_are_paired() -> None:
    arms = {"plain": [predictions(20), predictions(15, 1)], "better": [predictions(40, 2), predictions(42, 3)]}
    found = compare_by(arms, "plain", VALUES)
    assert [(s.value, s.arm, s.n_clips) for s in found] == [
        ("9", "plain", 20), ("9", "better", 20), ("10", "plain", 40), ("10", "better", 40),
    ]  # fmt: skip
    for item in found:
        which = NINE if item.value == "9" else ~NINE
        mean = {name: float(np.mean([hits(run)[which].mean() for run in runs])) for name, runs in arms.items()}
        assert item.figure.estimate == pytest.approx(mean[item.arm])
        assert item.figure.low < item.figure.estimate < item.figure.high
        if item.arm == "plain":
            assert item.difference is None
        else:
            assert item.difference is not None
            assert item.difference.estimate == pytest.approx(mean["better"] - mean["plain"])
            assert 0 < item.difference.low < item.difference.estimate < item.difference.high


def test_one_seed_of_one_arm_has_the_figures_of_a_run() -> None:
    one = predictions(25)
    mine, theirs = compare_by({"plain": [one]}, "plain", VALUES), figures_by(one, VALUES)
    assert [(s.value, s.n_clips, s.figure) for s in mine] == [(s.value, s.n_clips, s.interval) for s in theirs]


def test_equal_arms_have_no_limits_and_arms_without_numbers_are_left_out() -> None:
    one = predictions(25)
    broken = replace(one, scores=np.full((N, 3), np.nan))
    others = [predictions(n, n) for n in (11, 23, 31)]  # thirds, whose sums are rounded
    found = compare_by({"broken": [broken], "plain": [one, *others], "same": [*others, one]}, "plain", VALUES)
    assert {s.arm for s in found} == {"plain", "same"}
    same = next(s.difference for s in found if s.arm == "same")
    assert same is not None
    assert same.estimate == 0
    assert np.isnan([same.low, same.high]).all()  # identical predictions do not tell how sure the difference is
    assert compare_by({"broken": [broken]}, "plain", VALUES) == []
    with pytest.raises(ValueError, match="59 values for 60 clips"):
        compare_by({"plain": [one]}, "plain", VALUES[1:])
