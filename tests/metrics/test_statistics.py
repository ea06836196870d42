"""Paired statistics against scipy, figures worked out by hand, properties, and simulated suites without a difference."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audio_cls.core.errors import UserError
from audio_cls.metrics.bootstrap import Counted, bootstrap_interval, clip_bootstrap, metric_function
from audio_cls.metrics.classification import evaluate
from audio_cls.metrics.crossed import Components, estimate_mean, power, seeds_needed
from audio_cls.metrics.multiplicity import holm
from audio_cls.metrics.paired import Comparison, compare, mean_interval
from audio_cls.metrics.verdict import in_points, verdict, verdicts

Cell = tuple[int, int]


def grid(seeds: int, folds: int) -> list[Cell]:
    return [(s, k) for s in range(seeds) for k in range(folds)]


def against_zero(values: dict[Cell, float], ratio: float = 0.25, **options: object) -> Comparison:
    return compare(values, dict.fromkeys(values, 0.0), test_to_train=ratio, **options)  # type: ignore[arg-type]


def figures(rng: np.random.Generator, seeds: int, folds: int) -> dict[Cell, float]:
    return {cell: float(0.8 + 0.03 * rng.standard_normal()) for cell in grid(seeds, folds)}


# -- parity ------------------------------------------------------------------------------------------------------------


def test_nadeau_bengio_by_hand() -> None:
    """Differences 1..5 over five folds: mean 3, s^2 = 2.5, variance 2.5 (1/5 + 1/4) = 1.125, t = 2.8284 with 4 df."""
    c = against_zero({(0, k): float(k + 1) for k in range(5)})
    assert (c.mean, c.n, c.df) == (3.0, 5, 4.0)
    assert c.standard_error**2 == pytest.approx(1.125)
    assert c.t == pytest.approx(2 * math.sqrt(2))
    assert c.p == pytest.approx(2 * stats.t.sf(2 * math.sqrt(2), 4))
    assert (c.low, c.high) == pytest.approx(
        (3 - 2.776445 * math.sqrt(1.125), 3 + 2.776445 * math.sqrt(1.125)), abs=1e-5
    )


def test_variance_components_by_hand() -> None:
    """d = [[0, 4, 2], [6, 8, 10]], two seeds x three folds: the analysis of variance worked out on paper.

    Fold means 3, 6, 6 (v = 3), grand mean 5; sum of squares 2 (4 + 1 + 1) = 12, mean square 6. Seed means 2, 8: 3 (9 + 9) =
    54, mean square 54. Total 25 + 1 + 9 + 1 + 9 + 25 = 70; residual 4 with 2 df, mean square 2.
    f = (6 - 2) / 2 = 2, g = (54 - 2) / 3 = 52/3, e = 2. With r = 1/2 the folds give 3 / 3 + 2 / 2 = 2, the seeds 26/3.
    """
    values = {(0, 0): 0.0, (0, 1): 4.0, (0, 2): 2.0, (1, 0): 6.0, (1, 1): 8.0, (1, 2): 10.0}
    c = against_zero(values, 0.5)
    assert c.components is not None
    assert (c.components.fold, c.components.seed, c.components.residual) == pytest.approx((2, 52 / 3, 2))
    assert c.standard_error**2 == pytest.approx(2 + 26 / 3)
    assert c.df == pytest.approx((32 / 3) ** 2 / (2**2 / 2 + (26 / 3) ** 2 / 1))


def test_without_fold_effects_half_the_correction_stays() -> None:
    """d = [[1, 2, 6], [3, 4, 2]]: fold means 2, 3, 4 (v = 1), mean square 2; seeds 0; residual 12 / 2 = 6, so f = g = 0."""
    c = against_zero({(0, 0): 1.0, (0, 1): 2.0, (0, 2): 6.0, (1, 0): 3.0, (1, 1): 4.0, (1, 2): 2.0}, 0.5)
    assert c.components is not None
    assert (c.components.fold, c.components.seed, c.components.residual) == pytest.approx((0, 0, 6))
    assert (c.standard_error**2, c.df) == pytest.approx((1 / 3 + 0.5 * 0.5, 2))


def test_one_fold_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    a, b = figures(rng, 8, 1), figures(rng, 8, 1)
    c = compare(a, b, test_to_train=0.25)
    expected = stats.ttest_rel(list(a.values()), list(b.values()))
    interval = expected.confidence_interval()
    assert (c.t, c.p, c.df, c.low, c.high) == pytest.approx(
        (expected.statistic, expected.pvalue, 7, interval.low, interval.high)
    )
    assert c.single_split


def test_information_matches_scipy() -> None:
    rng = np.random.default_rng(2)
    a, b = figures(rng, 3, 5), figures(rng, 3, 5)
    c = compare(a, b, test_to_train=0.25)
    x, y = np.array(list(a.values())), np.array(list(b.values()))
    assert c.wilcoxon_p == pytest.approx(stats.wilcoxon(x, y).pvalue)
    assert c.d_z == pytest.approx((x - y).mean() / (x - y).std(ddof=1))
    assert c.hedges_g / c.d_z == pytest.approx(1 - 3 / (4 * 14 - 1), abs=1e-3)  # Hedges' approximation
    assert c.wins + c.losses + c.ties == 15


def test_wilcoxon_sees_ties_through_rounding() -> None:
    """0.75 - 0.7 and 0.65 - 0.6 differ in the last bit; signed ranks must not."""
    a = {(0, 0): 0.75, (1, 0): 0.65, (2, 0): 0.3, (3, 0): 0.55, (4, 0): 0.9, (5, 0): 0.8}
    b = {(0, 0): 0.7, (1, 0): 0.6, (2, 0): 0.35, (3, 0): 0.5, (4, 0): 0.9, (5, 0): 0.7}
    c = compare(a, b, test_to_train=0.25)
    assert (c.wins, c.losses, c.ties) == (4, 1, 1)
    assert c.wilcoxon_p == pytest.approx(stats.wilcoxon([1, 1, -1, 1, 0, 2], zero_method="pratt").pvalue)
    for d in ([1, 1, -1, 2, 3, -3, 0], [2, 2, 2, 1], [-1, 0, 0, -2], [3, -1, -1, -2, 2, 2, 5, -4]):
        pairs = {(i, 0): float(x) for i, x in enumerate(d)}
        assert against_zero(pairs).wilcoxon_p == pytest.approx(stats.wilcoxon(d, zero_method="pratt").pvalue)


def test_holm_by_hand() -> None:
    # sorted 0.01 0.02 0.03 0.04 -> 0.04, 0.06, 0.06 (2 * 0.03), 0.06 (max)
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with_nan = holm([0.01, math.nan])  # the arm that cannot be tested yet still counts
    assert with_nan[0] == pytest.approx(0.02)
    assert math.isnan(with_nan[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float], alpha: float) -> None:
    order = np.argsort(p, kind="stable")
    rejected = set()
    for step, i in enumerate(order):
        if (len(p) - step) * p[i] > alpha:
            break
        rejected.add(int(i))
    assert {i for i, q in enumerate(holm(p)) if q <= alpha} == rejected


def test_power_of_the_one_sample_t_test() -> None:
    """Cohen's table: effect 0.5, two-sided 5 %, power 80 % takes 34 pairs; 0.8 takes 15."""
    unit = Components(0.0, 0.0, 1.0, True)
    assert seeds_needed(0.5, unit, 1, 0.0) == 34
    assert seeds_needed(0.8, unit, 1, 0.0) == 15
    assert float(power(0.5, unit, 34, 1, 0.0)) == pytest.approx(0.808, abs=0.001)
    assert float(power(0.0, unit, 34, 1, 0.0)) == pytest.approx(0.05)


# -- properties --------------------------------------------------------------------------------------------------------


@st.composite
def grids(draw: st.DrawFn) -> dict[Cell, float]:
    """Differences on whole grids and on grids with holes, few distinct values (ties) or many."""
    seeds, folds = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    cells = draw(st.lists(st.sampled_from(grid(seeds, folds)), unique=True, min_size=1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = 0.03 * rng.standard_normal(len(cells))
    if draw(st.booleans()):
        values = np.round(values * 40) / 40
    return dict(zip(cells, values.tolist(), strict=True))


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, rel=1e-6, abs=1e-9)


@given(grids())
@settings(deadline=None, max_examples=50)
def test_flipping_the_arms_flips_the_sign(d: dict[Cell, float]) -> None:
    zero = dict.fromkeys(d, 0.0)
    there, back = compare(d, zero, test_to_train=0.25), compare(zero, d, test_to_train=0.25)
    assert there.mean == -back.mean
    assert same(there.low, -back.high)
    assert same(there.p, back.p)
    assert same(there.wilcoxon_p, back.wilcoxon_p)
    assert (there.wins, there.losses) == (back.losses, back.wins)


@given(grids(), st.floats(-5, 5), st.floats(0.1, 100))
@settings(deadline=None, max_examples=50)
def test_shift_moves_and_scale_stretches(d: dict[Cell, float], shift: float, scale: float) -> None:
    plain = against_zero(d)
    assert plain.low <= plain.mean <= plain.high or not plain.decidable
    if not plain.decidable:
        return
    moved = against_zero({c: v + shift for c, v in d.items()})
    assert same(moved.low, plain.low + shift)
    assert same(moved.high, plain.high + shift)
    stretched = against_zero({c: v * scale for c, v in d.items()})
    assert same(stretched.high - stretched.low, scale * (plain.high - plain.low))
    assert same(stretched.p, plain.p)


@given(grids(), st.randoms())
@settings(deadline=None, max_examples=50)
def test_order_and_names_of_cells_do_not_matter(d: dict[Cell, float], random: object) -> None:
    items = list(d.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    renamed = against_zero({(100 - 7 * s, 3 * k + 1): v for (s, k), v in items})
    plain = against_zero(d)
    assert same(renamed.mean, plain.mean)
    assert same(renamed.low, plain.low)
    assert same(renamed.p, plain.p)


@given(grids())
@settings(deadline=None, max_examples=50)
def test_more_overlap_never_narrows(d: dict[Cell, float]) -> None:
    few, much = against_zero(d, 0.0), against_zero(d, 1.0)
    assert not few.decidable or much.standard_error >= few.standard_error * (1 - 1e-9)


def test_power_agrees_with_simulated_suites() -> None:
    """Components known, the share of simulated 3 x 5 suites that find the difference; folds correlate as supposed."""
    rng = np.random.default_rng(3)
    parts = Components(0.5, 0.2, 4.0, True)
    for seeds, tolerance in ((3, 0.1), (10, 0.05)):  # with few seeds g and f are found larger than they are
        d = simulated(rng, 4000, seeds, 5, math.sqrt(0.5), math.sqrt(0.2), 2.0, 0.25) + 2.0
        found = rejections(d, grid(seeds, 5), 0.25)
        assert float(power(2.0, parts, seeds, 5, 0.25)) == pytest.approx(found, abs=tolerance)


# -- false positives ---------------------------------------------------------------------------------------------------


def simulated(
    rng: np.random.Generator, n: int, seeds: int, folds: int, fold: float, seed: float, run: float, ratio: float
) -> np.ndarray:
    """(n, seeds * folds) differences of true mean 0; fold effects correlate as Nadeau and Bengio suppose."""
    overlap = fold * math.sqrt(ratio) * rng.standard_normal((n, 1, 1))
    d = overlap + fold * rng.standard_normal((n, 1, folds)) + seed * rng.standard_normal((n, seeds, 1))
    return (d + run * rng.standard_normal((n, seeds, folds))).reshape(n, -1)


def rejections(d: np.ndarray, cells: list[Cell], ratio: float) -> float:
    e = estimate_mean(cells, d, ratio)
    return float((2 * stats.t.sf(np.abs(e.mean) / np.sqrt(e.variance), e.df) < 0.05).mean())


@pytest.mark.parametrize(("seeds", "folds"), [(1, 5), (2, 5), (3, 5), (10, 5), (3, 10), (3, 3), (8, 1)])
@pytest.mark.parametrize(
    "sds", [(0, 0, 2), (0, 1, 2), (1, 0, 2), (2, 1, 2), (4, 1, 1)], ids=["noise", "seed", "fold", "both", "folds"]
)
def test_false_positives_stay_below_nominal(seeds: int, folds: int, sds: tuple[float, float, float]) -> None:
    """20,000 suites without a difference; 5.9 % would be 5.5 standard errors above the nominal 5 %.

    The known exception: a fifth of the variance is the seeds', and three of them stand against ten folds: 6.4 %.
    """
    most = 0.069 if (seeds, folds) == (3, 10) and sds == (0, 1, 2) else 0.059
    ratio = 1 / (folds - 1) if folds > 1 else 0.25
    fold, seed, run = sds
    if folds == 1:
        fold = 0  # one split speaks of itself only
    rng = np.random.default_rng(4)
    share = rejections(simulated(rng, 20_000, seeds, folds, fold, seed, run, ratio), grid(seeds, folds), ratio)
    assert 0.006 < share < most
    if seeds > 1:
        assert share > 0.011  # several seeds: not so timid either


def test_holes_do_not_raise_false_positives() -> None:
    rng = np.random.default_rng(5)
    cells = grid(3, 5)
    for kept in ([*range(14)], [*range(7)], [*range(11)], [0, 1, 3, 4, 5, 7, 8, 9, 11, 12, 14], [0, 1, 7, 8]):
        for sds in ((0, 0, 2), (0, 1, 2), (4, 1, 2)):
            d = simulated(rng, 10_000, 3, 5, *sds, 0.25)[:, kept]
            assert rejections(d, [cells[i] for i in kept], 0.25) < 0.059


def test_the_usual_tests_would_cry_wolf() -> None:
    """The reason for all this, and proof that the simulation can tell a bad test from a good one."""
    rng = np.random.default_rng(6)
    d = simulated(rng, 5000, 3, 5, 2, 0, 2, 0.25)
    assert (stats.ttest_1samp(d, 0, axis=1).pvalue < 0.05).mean() > 0.25
    # Bouckaert & Frank's, which takes seeds on the same folds for new evidence
    d = simulated(rng, 5000, 10, 5, 4, 0, 1, 0.25)
    t = d.mean(axis=1) / np.sqrt(d.var(axis=1, ddof=1) * (1 / 50 + 0.25))
    assert (2 * stats.t.sf(np.abs(t), 49) < 0.05).mean() > 0.15


def test_intervals_cover_and_equivalence_errs_at_most_as_told() -> None:
    rng = np.random.default_rng(7)
    e = estimate_mean(grid(3, 5), simulated(rng, 20_000, 3, 5, 0.2, 0.1, 0.3, 0.25) + 1.0, 0.25)
    reach = stats.t.isf(0.025, e.df) * np.sqrt(e.variance)
    assert 0.94 < (np.abs(e.mean - 1.0) <= reach).mean() < 0.99
    # the truth is just at the margin of 1
    beyond = stats.t.cdf((e.mean - 1.0) / np.sqrt(e.variance), e.df) < 0.05
    assert beyond.mean() < 0.059


# -- what cannot be told -----------------------------------------------------------------------------------------------


def test_one_pair_cannot_tell() -> None:
    c = compare({(0, 0): 0.82}, {(0, 0): 0.80, (1, 0): 0.7}, test_to_train=0.25)
    v = verdict(c)
    assert (v.word, c.n, c.pairs.cells) == ("cannot tell", 1, ((0, 0),))
    assert math.isnan(c.low)
    assert "+2.0 points, 1 pair" in v.text


def test_no_pair_and_no_spread_cannot_tell() -> None:
    assert verdict(compare({}, {}, test_to_train=0.25)).word == "cannot tell"
    twins = dict.fromkeys(grid(3, 5), 0.8)
    c = compare(twins, twins, test_to_train=0.25)
    assert (c.mean, c.wilcoxon_p, c.decidable) == (0.0, 1.0, False)
    assert verdict(c).word == "no difference"
    assert verdict(c).text.startswith("equal in all 15 pairs")
    few = dict.fromkeys(grid(2, 2), 0.8)
    assert verdict(compare(few, few, test_to_train=0.25)).word == "cannot tell"
    # a constant difference: 0.1 in figures that rounding makes differ in the last bit
    above = {cell: 0.1 * (cell[1] + 1) + 0.1 for cell in grid(2, 5)}
    c = compare(above, {cell: 0.1 * (cell[1] + 1) for cell in grid(2, 5)}, test_to_train=0.25)
    assert c.decidable is False
    c = against_zero(
        {(100, 1): 0.0, (100, 7): 0.0, (100, 4): 0.025, (93, 1): 0.0, (93, 4): -0.025}
    )  # cancel, but for rounding
    assert (c.decidable, verdict(c).word) == (False, "cannot tell")


def test_a_diverged_run_is_not_left_out_silently() -> None:
    rng = np.random.default_rng(8)
    a = {cell: 0.9 + v / 10 for cell, v in figures(rng, 3, 5).items()}
    b = {cell: v / 10 for cell, v in figures(rng, 3, 5).items()}
    assert verdict(compare(a, b, test_to_train=0.25)).word == "helps"
    c = compare(a | {(2, 3): math.nan}, b, test_to_train=0.25)
    assert (c.n, c.pairs.not_finite) == (14, ((2, 3),))
    assert verdict(c).word == "cannot tell"
    assert "seed 2 fold 3" in verdict(c).text


@pytest.mark.parametrize(
    "bad", [{"alpha": 0.0}, {"test_to_train": -0.1}, {"direction": "up"}, {"test_to_train": math.nan}]
)
def test_impossible_arguments(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="need 0 < alpha"):
        compare({}, {}, **({"test_to_train": 0.25} | bad))  # type: ignore[arg-type]


# -- verdicts ----------------------------------------------------------------------------------------------------------


def spread(mean: float, sd: float, seed: int = 0, seeds: int = 3, folds: int = 5) -> dict[Cell, float]:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(seeds * folds)
    noise = (noise - noise.mean()) / noise.std()
    return dict(zip(grid(seeds, folds), (mean + sd * noise).tolist(), strict=True))


def test_the_four_words() -> None:
    arms = {
        "better": against_zero(spread(0.05, 0.01)),
        "worse": against_zero(spread(-0.05, 0.01)),
        "same": against_zero(spread(0.001, 0.003)),
        "noisy": against_zero(spread(0.01, 0.05)),
    }
    said = verdicts(arms)
    assert [v.word for v in said.values()] == ["helps", "hurts", "no difference", "cannot tell"]
    form = r"\+5\.0 points \[\d\.\d, \d\.\d\], p (<|=) 0\.\d+ after Holm, 15 pairs: helps for new training sets of this source"
    assert re.match(form, said["better"].text)
    assert "1 point or more" in said["same"].text
    assert "point" in said["noisy"].hint  # what it would take
    assert said["better"].p == pytest.approx(holm([c.p for c in arms.values()])[0])
    assert "Holm" not in verdict(arms["better"]).text


def test_lower_is_better_for_a_loss() -> None:
    c = against_zero(spread(-0.2, 0.01), direction="minimize")
    v = verdict(c, points=in_points("val/loss"))
    assert (v.word, c.wins, c.losses) == ("helps", 15, 0)
    assert v.text.startswith("-0.2 [")
    assert "points" not in v.text
    near = against_zero(spread(0.001, 0.003), direction="minimize")
    assert verdict(near, points=False).word == "cannot tell"  # no margin was stated
    assert verdict(near, points=False, margin=0.01).word == "no difference"


def test_not_significant_is_not_the_same_as_no_difference() -> None:
    c = against_zero(spread(0.004, 0.05))
    assert c.p > 0.5
    assert verdict(c).word == "cannot tell"


def test_equivalence_is_the_interval_inside_the_margin() -> None:
    """TOST at 5 % says the same as the 90 % interval lying within the margin."""
    for seed in range(20):
        d = spread(0.002, 0.008, seed)
        c, ninety = against_zero(d), against_zero(d, alpha=0.1)
        assert (c.equivalence(0.01) < 0.05) == (ninety.low > -0.01 and ninety.high < 0.01)


def test_how_many_more_pairs() -> None:
    noisy = against_zero(spread(0.0, 0.03, seeds=6, folds=1))
    hint = noisy.more_pairs(0.02)
    assert hint is not None
    assert hint.pairs is not None
    assert hint.seeds == hint.pairs + 6
    assert noisy.power(0.02, hint.seeds) >= 0.8 > noisy.power(0.02, hint.seeds - 1)
    strict = noisy.more_pairs(0.02, tests=5)
    assert strict is not None
    assert strict.pairs is not None
    assert strict.pairs > hint.pairs


def test_fold_effects_cannot_be_outrun_by_seeds() -> None:
    """Only folds differ: more seeds bring nothing, and the verdict says so instead of asking for them."""
    rng = np.random.default_rng(9)
    c = against_zero({(s, k): 0.03 * (k - 2) + 0.002 * rng.standard_normal() for s, k in grid(3, 5)})
    hint = c.more_pairs(0.01)
    assert hint is not None
    assert hint.pairs is None
    assert "more seeds on these 5 folds" in verdict(c).hint
    one_seed = against_zero({(0, k): 0.01 * (k - 2) for k in range(5)})
    hint = one_seed.more_pairs(0.01)
    assert hint is not None
    assert hint.lower_bound
    assert "at least" in verdict(one_seed).hint


def test_half_a_grid_asks_for_its_holes_first() -> None:
    d = spread(0.0, 0.005)
    c = against_zero({cell: d[cell] for cell in list(d)[:13]})
    hint = c.more_pairs(0.03)
    assert hint is not None
    assert (hint.seeds, hint.pairs) == (3, 2)


# -- means -------------------------------------------------------------------------------------------------------------


def test_mean_interval() -> None:
    values = [0.8, 0.82, 0.79, 0.85]
    m = mean_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (m.low, m.high) == pytest.approx((expected.low, expected.high))
    assert math.isnan(mean_interval([0.8]).low)
    assert math.isnan(mean_interval([]).mean)
    assert math.isnan(mean_interval([0.8, math.nan]).mean)
    cells = figures(np.random.default_rng(10), 3, 5)
    c = against_zero(cells)
    crossed = mean_interval(cells, test_to_train=0.25)
    assert (crossed.low, crossed.high, crossed.n) == pytest.approx((c.low, c.high, 15))


# -- bootstrap ---------------------------------------------------------------------------------------------------------


def predictions(rng: np.random.Generator, n: int, sharpness: float, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    targets = np.eye(classes, dtype=np.float32)[rng.integers(classes, size=n)]
    return rng.random((n, classes)) + sharpness * targets, targets


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "micro_f1", "uar", "weighted_f1", "weighted_precision"])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_fast_and_slow_paths_agree(name: str, task: str) -> None:
    """On few clips, so that many resamples lack a class."""
    rng = np.random.default_rng(11)
    a, targets = predictions(rng, 12, 0.4)
    if task == "multilabel":
        targets = (rng.random(targets.shape) < 0.3).astype(np.float32)
        a = 0.6 * rng.random(targets.shape) + 0.3 * targets
    b = a + 0.3 * rng.random(a.shape)
    groups = rng.integers(6, size=12)
    fast = metric_function(f"val/{name}", task)
    assert isinstance(fast, Counted)

    def slow(scores: np.ndarray, truth: np.ndarray) -> float:
        return evaluate(scores, truth, task).overall[name]

    assert fast(a, targets) == pytest.approx(slow(a, targets))
    for by in (None, groups):
        quick = clip_bootstrap(a, b, targets, fast, by, n_resamples=200)
        loop = clip_bootstrap(a, b, targets, slow, by, n_resamples=200)
        assert (quick.estimate, quick.low, quick.high) == pytest.approx((loop.estimate, loop.low, loop.high), abs=1e-12)
        assert quick == clip_bootstrap(a, b, targets, fast, by, n_resamples=200)
        assert quick.low < quick.high


def test_seed_of_the_bootstrap() -> None:
    rng = np.random.default_rng(11)
    a, targets = predictions(rng, 60, 0.5)
    b = a + 0.3 * rng.random(a.shape)
    fast = metric_function("accuracy", "multiclass")
    few = [clip_bootstrap(a, b, targets, fast, n_resamples=20, seed=seed) for seed in range(5)]
    assert len(set(few)) > 1


def test_bootstrap_interval_matches_the_normal_one_and_groups_widen_it() -> None:
    rng = np.random.default_rng(12)
    right = rng.random(2000) < 0.8
    scores, targets = np.stack([right, ~right], 1).astype(float), np.tile([1.0, 0.0], (2000, 1))
    accuracy = metric_function("accuracy", "multiclass")
    i = bootstrap_interval(scores, targets, accuracy, n_resamples=4000)
    sd = math.sqrt(right.mean() * (1 - right.mean()) / 2000)
    assert (i.low, i.high) == pytest.approx((right.mean() - 1.96 * sd, right.mean() + 1.96 * sd), abs=0.15 * sd)
    copies = np.repeat(np.arange(200), 10)  # ten copies of each clip are worth one
    by_group = bootstrap_interval(scores[copies], targets[copies], accuracy, groups=copies)
    one_each = bootstrap_interval(scores[:200], targets[:200], accuracy)
    assert by_group.n_units == 200
    assert by_group.high - by_group.low == pytest.approx(one_each.high - one_each.low, rel=1e-9)


def test_paired_bootstrap_covers_the_true_difference() -> None:
    rng = np.random.default_rng(13)
    accuracy, covered = metric_function("accuracy", "multiclass"), 0
    for i in range(200):
        easy = rng.random(150)
        a, b = easy < 0.8, np.where(rng.random(150) < 0.2, rng.random(150) < 0.7, easy < 0.8)  # truth: 0.02 better
        left, right = (np.stack([x, ~x], 1).astype(float) for x in (a, b))
        found = clip_bootstrap(left, right, np.tile([1.0, 0.0], (150, 1)), accuracy, n_resamples=400, seed=i)
        covered += found.low <= 0.02 <= found.high
    assert 0.88 * 200 < covered < 0.995 * 200


def test_several_runs_are_averaged() -> None:
    rng = np.random.default_rng(14)
    runs = [predictions(rng, 80, s)[0] for s in (0.2, 0.5, 0.8)]
    targets = predictions(np.random.default_rng(15), 80, 0)[1]
    mean_ap = metric_function("map", "multiclass")
    i = bootstrap_interval(np.stack(runs), targets, mean_ap, n_resamples=20)
    assert i.estimate == pytest.approx(np.mean([mean_ap(r, targets) for r in runs]))
    same_twice = clip_bootstrap(np.stack(runs), np.stack(runs), targets, mean_ap, n_resamples=20)
    assert (same_twice.low, same_twice.high) == pytest.approx((0, 0), abs=1e-12)


def test_bootstrap_says_when_it_says_little() -> None:
    accuracy = metric_function("accuracy", "multiclass")
    perfect = np.eye(3)[[0, 1, 2, 0, 1]]
    assert "same figure" in bootstrap_interval(perfect, perfect, accuracy).note
    assert "single" in bootstrap_interval(perfect, perfect, accuracy, groups=["x"] * 5).note
    assert "no clips" in bootstrap_interval(perfect[:0], perfect[:0], accuracy).note
    assert "not numbers" in bootstrap_interval(perfect * math.nan, perfect, accuracy).note
    undefined = bootstrap_interval(perfect, perfect, lambda s, t: math.nan, n_resamples=10)
    assert "0 of 10" in undefined.note
    with pytest.raises(ValueError, match="do not fit"):
        bootstrap_interval(perfect[:, :2], perfect, accuracy)
    with pytest.raises(UserError, match="loss"):
        metric_function("loss", "multiclass")
