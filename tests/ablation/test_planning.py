"""Planning: what is said to be detectable is found four times in five."""

from __future__ import annotations

from math import isfinite, nan
from typing import Any

import numpy as np
import pytest

from audio_cls.ablation.costs import Cost
from audio_cls.ablation.pilots import Pilot
from audio_cls.ablation.planning import TARGET, Forecast, GridForecast, detectable_widely
from audio_cls.metrics.clip_differences import clip_differences
from audio_cls.metrics.crossed import Cell, Components, power
from audio_cls.metrics.paired import Comparison, compare
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.sources import Sources

FOLDS, CLIPS = 5, 200
ALPHA = 0.02


def simulate(rng: np.random.Generator, n_seeds: int, shift: float) -> Comparison:
    """Two arms of about 80 % on the same clips: some clips are hard for both, some for one arm, and each run errs anew."""
    hard, other = rng.normal(size=CLIPS), rng.normal(0, 0.5, size=(2, CLIPS))
    sides: list[dict[Cell, Predictions]] = [{}, {}]
    targets = np.tile([1.0, 0.0], (CLIPS, 1))
    for seed in range(n_seeds):
        for fold in range(FOLDS):
            rows = np.arange(fold, CLIPS, FOLDS)
            for arm, cells in enumerate(sides):
                right = hard[rows] + other[arm][rows] + rng.normal(0, 0.7, len(rows)) < 1.1 + shift * arm
                scores = np.stack([right, ~right], axis=1).astype(float)
                ids = tuple(map(str, rows))
                cells[seed, fold] = Predictions(ids, scores, targets[rows], ("a", "b"), "multiclass", rows=rows)
    figures = [{c: float(p.evaluation.overall["accuracy"]) for c, p in cells.items()} for cells in sides]
    clips = clip_differences(sides[1], sides[0], "accuracy")
    return compare(figures[1], figures[0], test_to_train=0.25, alpha=ALPHA, clips=clips)


def test_a_difference_that_is_said_to_be_detectable_is_found_four_times_in_five() -> None:
    """Predicted from a pilot of two seeds for four; true differences of that size are then simulated."""
    rng = np.random.default_rng(7)
    pilots = [simulate(rng, 2, 0.0).sources for _ in range(6)]
    pilot = Pilot("a pilot", tuple(found for found in pilots if found is not None))
    predicted = pilot.sources.detectable(4, FOLDS, CLIPS, alpha=ALPHA)
    assert 0.03 < predicted < 0.15
    # A share of 80 % moves by so much with the threshold: the density of the sum of the three there.
    sd = np.sqrt(1 + 0.25 + 0.49)
    density = np.exp(-((1.1 / sd) ** 2) / 2) / np.sqrt(2 * np.pi) / sd
    found = [simulate(rng, 4, 1.1 * predicted / density) for _ in range(60)]
    assert np.mean([c.mean for c in found]) == pytest.approx(predicted, rel=0.15)
    judged = [c for c in found if c.clipwise]
    assert len(judged) > 45
    assert np.mean([c.p < ALPHA for c in judged]) == pytest.approx(TARGET, abs=0.17)


def test_the_wider_test_is_planned_by_its_own_power() -> None:
    components = Components(fold=0.01**2, seed=0.005**2, residual=0.02**2, separated=True)
    found = detectable_widely(components, 3, 5, 0.25, 0.05)
    assert power(found, components, 3, 5, 0.25, 0.05) == pytest.approx(TARGET)
    assert np.isnan(detectable_widely(components, 1, 1, 0.25, 0.05))  # one run has no spread to be judged by


def made(**changes: Any) -> Forecast:
    grids = tuple(GridForecast(s, k, 2 * s * k, 0.1 / (s * k), 60.0 * s * k) for s in (1, 3) for k in (1, 5))
    pilot = Pilot("a pilot", (Sources.of_shares(0.16, 100),), caveats=("a lower bound",))
    given: dict[str, Any] = {
        "name": "s", "metric": "val/accuracy", "arms": 1, "alpha": 0.04, "look": 1, "size": "2 arms x 3 seeds x 5 folds = 30 runs",
        "pilot": pilot, "declared": grids[-1], "smallest": 0.01, "largest": 0.01, "wide": nan, "n_wide": 0, "grids": grids,
        "cost": Cost(30, 300, 900.0, "3 s an epoch, by 4 runs"), "workers": 2,
    }  # fmt: skip
    return Forecast(**{**given, **changes})


def test_a_forecast_in_words_and_as_a_table() -> None:
    guess = " ".join(made().lines())
    assert (
        "finds a true difference of at best 0.7 points in val/accuracy four times in five, at 4 %, the level" in guess
    )
    assert (
        "by a pilot a lower bound 30 runs, 300 epochs left to train: 15 min 00 s with one worker, 7 min 30 s with 2"
        in guess
    )
    unknown = " ".join(
        made(pilot=None, metric="val/nll", cost=Cost(2, 4, nan, "no finished run on this corpus")).lines()
    )
    assert "not known: no run on this corpus to go by" in unknown
    assert "how long is not known: no finished run on this corpus" in unknown
    columns, rows = made().rows()
    assert columns == ["seeds", "1 fold", "5 folds", "runs", "one worker"]
    assert rows[1] == [3, "3.3", "0.7", 30, "15 min 00 s"]
    assert isfinite(made().table().loc[(3, 5), "detectable"])
