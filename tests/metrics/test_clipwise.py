"""The clipwise test: what it takes for granted, when it falls back, what it says, and how often it errs on simulated suites."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audio_cls.metrics.base import metric_of
from audio_cls.metrics.clip_differences import ClipDifferences, ClipSpread, clip_differences, clip_spread
from audio_cls.metrics.crossed import estimate_mean
from audio_cls.metrics.multiplicity import holm, holm_levels, spend
from audio_cls.metrics.paired import Comparison, compare
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.sources import Sources, estimate_sources
from audio_cls.metrics.verdict import verdict, verdicts

Cell = tuple[int, int]
CLASSES = 6


def grid(seeds: int, folds: int) -> list[Cell]:
    return [(s, k) for s in range(seeds) for k in range(folds)]


def arm(
    seed: int, seeds: int = 3, folds: int = 5, n: int = 80, sharp: float = 2.2, group: int = 1, bias: Any = 0.0
) -> dict[Cell, Predictions]:
    """Predictions of an arm: the same clips for every `seed`, which is the arm. bias: (folds,) added to the true class's score."""
    shared, own = np.random.default_rng(0), np.random.default_rng([1, seed])
    out: dict[Cell, Predictions] = {}
    for k, more in enumerate(np.broadcast_to(bias, folds)):
        groups = np.arange(n) // group
        targets = np.eye(CLASSES)[shared.integers(CLASSES, size=n)[groups]]
        mean = shared.normal(size=targets.shape)[groups] + 0.6 * own.normal(size=targets.shape)[groups]
        for s in range(seeds):
            scores = mean + (sharp + more) * targets + 0.4 * own.normal(size=targets.shape)
            scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            names = tuple(f"{k}/{i}" for i in range(n))
            parents = tuple(f"{k}/g{g}" for g in groups)
            out[s, k] = Predictions(names, scores, targets, tuple("abcdef"), "multiclass", groups=parents)
    return out


def figures(predictions: dict[Cell, Predictions], metric: str = "accuracy") -> dict[Cell, float]:
    return {cell: p.evaluation.overall[metric] for cell, p in predictions.items()}


def against(one: dict[Cell, Predictions], other: dict[Cell, Predictions], metric: str = "accuracy") -> Comparison:
    clips = clip_differences(one, other, metric)
    return compare(figures(one, metric), figures(other, metric), test_to_train=0.25, clips=clips)


# -- variances ---------------------------------------------------------------------------------------------------------


def test_clip_spread_by_hand() -> None:
    """One fold of three clips, two seeds: means over seeds (1, 1, -2) and their variance of a mean; the rest is new with a seed."""
    influence = np.array([[2.0, 0.0, -2.0], [0.0, 2.0, -2.0]])
    spread = clip_spread(influence, [(0, 0), (1, 0)])
    assert (float(spread.mean), float(spread.fold)) == pytest.approx((6.0, 6.0))
    assert float(spread.run) == pytest.approx(4.0)  # deviations of 1 four times, one degree of freedom
    assert float(spread.df) == pytest.approx(2.0)  # at most n - 1


def test_the_standard_error_of_accuracy_is_that_of_the_mean_over_clips() -> None:
    """One seed, where folds vary by no more than their clips: the paired t test over clips, folds apart."""
    one, other = arm(1, seeds=1), arm(2, seeds=1)
    c = against(one, other)
    d = [(one[cell].called & (one[cell].targets > 0)).any(axis=1).astype(float) for cell in one]
    d = [x - (other[cell].called & (other[cell].targets > 0)).any(axis=1) for x, cell in zip(d, one, strict=True)]
    by_clips = math.sqrt(sum(x.var(ddof=1) / len(x) for x in d)) / len(d)
    assert c.clipwise
    assert c.standard_error == pytest.approx(by_clips, rel=0.05)
    assert c.population == "new clips, training sets like these, this one seed"
    assert c.wide.standard_error != c.standard_error


def test_groups_are_drawn_whole() -> None:
    """Ten copies of each clip say no more than one of them."""
    one, other = arm(1, n=40), arm(2, n=40)

    def copied(predictions: dict[Cell, Predictions]) -> dict[Cell, Predictions]:
        rows = np.repeat(np.arange(40), 10)
        return {
            cell: Predictions(
                tuple(f"{cell[1]}/{i}" for i in range(400)),
                p.scores[rows],
                p.targets[rows],
                p.classes,
                p.task,
                groups=tuple(f"{cell[1]}/{g}" for g in rows),
            )
            for cell, p in predictions.items()
        }

    few, many = against(one, other), against(copied(one), copied(other))
    assert many.standard_error == pytest.approx(few.standard_error, rel=1e-6)
    assert many.sources is not None
    assert many.sources.n_units == 200


@pytest.mark.parametrize("metric", ["macro_f1", "map", "lwlrap", "nll"])
def test_other_metrics_have_a_clipwise_test(metric: str) -> None:
    c = against(arm(1), arm(2), metric)
    assert c.clipwise
    assert 0 < c.standard_error < 2 * c.wide.standard_error


def test_planning_reproduces_the_grid_at_hand() -> None:
    """The standard error predicted for the suite's own grid is the one that it has, and more seeds, folds and clips shrink it."""
    one, other = arm(1), arm(2)
    clips = clip_differences(one, other, "accuracy")
    assert clips is not None
    c = against(one, other)
    assert c.sources is not None
    assert c.sources.standard_error() == pytest.approx(c.standard_error, rel=0.25)
    assert c.sources.standard_error(n_seeds=10) < c.sources.standard_error()
    assert c.sources.standard_error(n_units=4000) < c.sources.standard_error(n_units=400)
    smallest = c.sources.detectable(alpha=0.01)
    assert c.sources.power(smallest, alpha=0.01) == pytest.approx(0.8, abs=0.001)
    by_clips = Sources.of_shares(0.1, 400)
    assert by_clips.standard_error() == pytest.approx(math.sqrt(0.1 / 400))
    assert Sources.pooled([by_clips, Sources.of_shares(0.3, 400)]).clip == pytest.approx(0.2)


# -- when it falls back ------------------------------------------------------------------------------------------------


def test_without_predictions_the_wide_test_judges_and_says_so() -> None:
    one, other = arm(1), arm(2)
    c = compare(figures(one), figures(other), test_to_train=0.25)
    assert (c.clipwise, c.p, c.population) == (False, c.wide.p, "new training sets of this source")
    assert "without the clips' predictions" in verdict(c).text
    clips = clip_differences({cell: p for cell, p in one.items() if cell != (2, 4)}, other, "accuracy")
    c = compare(figures(one), figures(other), test_to_train=0.25, clips=clips)
    assert c.why_wide == "the predictions of 1 of 15 pairs are missing"


def test_training_sets_with_an_effect_of_their_own() -> None:
    c = against(arm(1, bias=[-1.0, -0.5, 0.0, 0.5, 1.0]), arm(2))
    assert (c.clipwise, c.p) == (False, c.wide.p)
    assert "training sets have an effect of their own (p" in c.why_wide
    assert "for new training sets of this source (" in verdict(c).text
    assert c.effects[0].name == "training sets"
    assert c.effects[0].significant


def test_what_predictions_cannot_say() -> None:
    one, other = arm(1), arm(2)
    assert clip_differences(one, other, "val/loss") is None
    assert clip_differences(one, {}, "accuracy") is None
    shorter = arm(2, n=79)
    assert clip_differences(one, shorter, "accuracy") is None
    assert clip_differences(arm(1, n=4, group=4), arm(2, n=4, group=4), "accuracy") is None  # one group in a fold
    broken = {cell: Predictions(p.clips, p.scores * math.nan, p.targets, p.classes, p.task) for cell, p in one.items()}
    assert clip_differences(broken, broken, "accuracy") is None


def test_one_split_speaks_of_new_clips_too() -> None:
    """On one split the runs' figures alone know no clips but these: the wide test is the narrower one there."""
    c = against(arm(1, folds=1), arm(2, folds=1))
    assert c.population == "new clips and seeds, on this split"
    assert c.wide.population.endswith("on this split")
    assert "on this split" in verdict(c).text
    assert c.standard_error > c.wide.standard_error


def test_a_grid_with_holes_is_judged_clip_by_clip() -> None:
    one, other = arm(1), arm(2)
    whole = against(one, other)
    c = against({cell: p for cell, p in one.items() if cell not in ((2, 4), (0, 1))}, other)
    assert c.clipwise
    assert c.n == 13
    assert c.standard_error == pytest.approx(whole.standard_error, rel=0.5)


# -- how often it errs -------------------------------------------------------------------------------------------------


def simulated(
    rng: np.random.Generator, seeds: int, folds: int, training_set: float, run: float, n: int = 4000
) -> tuple[np.ndarray, ClipSpread]:
    """Differences of true mean 0 whose clips make a fold's mean vary by 1 (0.4 of it new with a seed); (n, n_cells)."""
    by_seed = 0.4 * seeds
    d = math.sqrt(0.6 + training_set) * rng.normal(size=(n, 1, folds))
    d = d + math.sqrt(by_seed * (1 + run)) * rng.normal(size=(n, seeds, folds))
    c, q = (rng.chisquare(100, n) / 100 for _ in range(2))
    return d.reshape(n, -1), ClipSpread(c / folds, np.full(n, 100.0), c, by_seed * q, 400)


@pytest.mark.parametrize(
    ("training_set", "run"), [(0, 0), (0, 0.6), (0.3, 0.6), (1, 0.6)], ids=["none", "runs", "some", "as much as clips"]
)
def test_false_verdicts_stay_near_nominal(training_set: float, run: float) -> None:
    """The bounds are 5 % + 1.5 and the chance of 4000 suites; the wide test finds half of what this one finds."""
    cells = grid(3, 5)
    d, spread = simulated(np.random.default_rng(1), 3, 5, training_set, run)

    def rejected(shift: float) -> tuple[np.ndarray, np.ndarray]:
        e = estimate_mean(cells, d + shift, 0.25)
        found = estimate_sources(cells, e, spread)
        wide = 2 * stats.t.sf(np.abs(e.mean) / np.sqrt(e.variance), e.df) < 0.05
        p = 2 * stats.t.sf(np.abs(e.mean) / np.sqrt(found.variance), found.df)
        return np.where(found.wide, wide, p < 0.05), wide

    assert 0.01 < rejected(0.0)[0].mean() < 0.075
    clipwise, wide = rejected(1.1)
    assert clipwise.mean() > 1.7 * wide.mean()


def test_planning_knows_that_the_test_estimates_its_variances() -> None:
    """The forecast power is what simulated suites find, which is far less than if the variances were known."""
    cells, true = grid(3, 5), Sources(0.6 * 80, 1.2 * 80, 0.6 * 1.2, 0.3, 0.0, 3, 5, 400)
    d, spread = simulated(np.random.default_rng(2), 3, 5, 0.3, 0.6)
    e = estimate_mean(cells, d + 1.5, 0.25)
    found = estimate_sources(cells, e, spread)
    p = 2 * stats.t.sf(np.abs(e.mean) / np.sqrt(found.variance), found.df)
    empirical = (p[~found.wide] < 0.05).mean()
    assert true.power(1.5) == pytest.approx(empirical, abs=0.03)
    assert true.power(1.5) < stats.norm.sf(1.96 - 1.5 / true.standard_error()) - 0.05
    for seeds, folds in ((1, 5), (3, 1), (2, 2), (10, 10)):
        assert true.detectable(seeds, folds) > 2.8 * true.standard_error(seeds, folds) * 0.8


# -- several arms, several looks ---------------------------------------------------------------------------------------


def against_zero(mean: float, sd: float, seed: int) -> Comparison:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(15)
    noise = (noise - noise.mean()) / noise.std()
    values = dict(zip(grid(3, 5), (mean + sd * noise).tolist(), strict=True))
    return compare(values, dict.fromkeys(values, 0.0), test_to_train=0.25)


@given(
    st.lists(st.tuples(st.floats(-0.05, 0.05), st.floats(0.002, 0.06)), min_size=1, max_size=6),
    st.floats(0.005, 0.2),
    st.floats(0.003, 0.05),
)
@settings(deadline=None, max_examples=25)
def test_interval_verdict_and_p_never_contradict_each_other(
    arms: list[tuple[float, float]], alpha: float, margin: float
) -> None:
    compared = {str(i): against_zero(mean, sd, i) for i, (mean, sd) in enumerate(arms)}
    said = verdicts(compared, alpha=alpha, margin=margin)
    for name, v in said.items():
        assert (v.p < alpha) == (v.word in ("helps", "hurts")) == (not v.low <= 0 <= v.high)
        assert (v.p_equivalence < alpha) == (v.equal_within < margin)
        assert v.better + v.within + v.worse == pytest.approx(1)
        assert v.low < compared[name].mean < v.high
        assert f"{100 * v.low:.1f}".lstrip("-") in v.text
    assert [v.p for v in said.values()] == holm([c.p for c in compared.values()])


def test_levels_by_hand() -> None:
    """Of three, 0.01 is rejected at 0.05 / 3; 0.03 is not at 0.05 / 2, and the third stands there too."""
    assert holm_levels([0.2, 0.01, 0.03], 0.05) == pytest.approx([0.025, 0.05 / 3, 0.025])
    assert holm_levels([0.01, 0.02], 0.05) == pytest.approx([0.025, 0.05])
    assert holm_levels([], 0.05) == []


def test_what_is_said_beside_the_verdict() -> None:
    v = verdict(against_zero(0.004, 0.02, 0))
    assert v.word == "cannot tell"
    assert "equal within" in v.text
    at_margin = verdict(against_zero(0.004, 0.02, 0), margin=v.equal_within + 1e-9)
    assert at_margin.word == "no difference"
    better = verdict(against_zero(0.05, 0.01, 0))
    assert better.better > 0.99
    c = against_zero(-0.05, 0.01, 0)
    lower = compare(
        dict(zip(c.pairs.cells, c.pairs.differences.tolist(), strict=True)),
        dict.fromkeys(c.pairs.cells, 0.0),
        test_to_train=0.25,
        direction="minimize",
    )
    assert verdict(lower).better > 0.99  # lower is better
    with pytest.raises(ValueError, match="alpha"):
        verdict(c, alpha=1.0)


def test_alpha_is_spent_over_the_looks() -> None:
    """Simulated looks at growing data err with what was spent, and never with more than alpha."""
    rng, information = np.random.default_rng(0), np.array([1.0, 1.6, 4.0])
    steps = rng.normal(size=(100_000, 3)) * np.sqrt(np.diff(np.r_[0, information]))
    p = 2 * stats.norm.sf(np.abs(np.cumsum(steps, axis=1) / np.sqrt(information)))
    levels = np.array([spend(0.05, information[: k + 1].tolist()) for k in range(3)])
    for k, spent in enumerate((0.04, 0.048, 0.0496), 1):
        assert (p[:, :k] < levels[:k]).any(axis=1).mean() == pytest.approx(spent, abs=0.0025)
    assert spend(0.05, [3.0]) == pytest.approx(0.04)
    assert spend(0.05, [1.0, 1.0]) > spend(0.05, [1.0, 2.0])  # nothing new to err with
    for bad in ({"information": []}, {"information": [0.0]}, {"alpha": 0.0}, {"keep": 1.0}):
        with pytest.raises(ValueError, match="need 0 < alpha"):
            spend(**({"alpha": 0.05, "information": [1.0]} | bad))  # type: ignore[arg-type]


def test_a_metric_by_name() -> None:
    assert metric_of("val/accuracy").kind == "accuracy"
    assert isinstance(clip_differences(arm(1), arm(2), "val/accuracy"), ClipDifferences)
