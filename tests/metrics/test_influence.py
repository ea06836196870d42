"""Influence of clips and groups on a figure against leaving them out one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from audio_cls.metrics.base import Metric, metric_of
from audio_cls.metrics.classification import REPORTED, evaluate
from audio_cls.metrics.influence import unit_influences
from audio_cls.metrics.predictions import Predictions

N, CLASSES = 300, 6


def predictions(task: str, seed: int = 0, n: int = N, groups: Any = None, sharp: float = 0.4) -> Predictions:
    truth, rng = np.random.default_rng(99), np.random.default_rng(seed)
    if task == "multiclass":
        targets = np.eye(CLASSES)[truth.integers(CLASSES, size=n)]
    else:
        targets = (truth.random((n, CLASSES)) < 0.3).astype(float)
    scores = np.round(0.6 * rng.random((n, CLASSES)) + sharp * targets * rng.random((n, 1)), 2)  # with ties
    ids = tuple(f"clip{i}" for i in range(n))
    return Predictions(ids, scores, targets, tuple("abcdef"), task, groups=groups)


@pytest.mark.parametrize("name", REPORTED)
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_influences_agree_with_leaving_one_group_out(name: str, task: str) -> None:
    p = predictions(task)
    group = np.arange(N) // 2
    found = unit_influences(p, metric_of(name), group, N // 2)
    kept = (group != g for g in range(N // 2))
    left = np.array([evaluate(p.scores[k], p.targets[k], task).overall[name] for k in kept])
    jackknife = (len(left) - 1) / len(left) * (left.mean() - left)
    assert found.sum() == pytest.approx(0, abs=1e-9)
    assert np.corrcoef(found, jackknife)[0, 1] > 0.98
    assert (found**2).sum() / (jackknife**2).sum() == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("name", ["family_map", "family_map_noisy_or"])
def test_influences_on_a_figure_of_families_agree_with_leaving_one_group_out(name: str) -> None:
    p, families = predictions("multilabel"), {"first": (0, 1, 2), "second": (2, 3), "third": (5,)}
    metric = metric_of(name).for_families(families)
    assert metric is not None
    found = unit_influences(p, metric, np.arange(N) // 2, N // 2)
    kept = (np.arange(N) // 2 != g for g in range(N // 2))
    left = np.array([evaluate(p.scores[k], p.targets[k], p.task, families=families).overall[name] for k in kept])
    jackknife = (len(left) - 1) / len(left) * (left.mean() - left)
    assert np.corrcoef(found, jackknife)[0, 1] > 0.98
    assert (found**2).sum() / (jackknife**2).sum() == pytest.approx(1, abs=0.12)


def test_an_own_metric_is_judged_by_leaving_blocks_out() -> None:
    """Known by its `score` alone: half the clips' mean, whose influence is known, in blocks that share it."""

    class HalfAccuracy(Metric):
        def score(self, scores: Any, targets: Any, called: Any) -> float:
            return 0.5 * float((called & targets).any(axis=1).mean())

    p = predictions("multiclass")
    exact = 0.5 * unit_influences(p, metric_of("accuracy"), np.arange(N), N)
    found = unit_influences(p, HalfAccuracy(), np.arange(N), N)
    assert (found**2).sum() == pytest.approx((exact**2).sum(), rel=0.5)
