"""Two arms compared pair by pair: difference, interval, corrected p, effect size, and how many more runs would decide.

A pair is two runs with the same seed and fold. `crossed.py` says which variance the mean difference has and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, isnan, lgamma, log, nan
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from audio_cls.metrics.clip_differences import ClipDifferences, clip_spread
from audio_cls.metrics.comparison import NO_PREDICTIONS, Comparison, Direction, MorePairs, Pairs, TTest
from audio_cls.metrics.crossed import Cell, MeanEstimate, estimate_mean
from audio_cls.metrics.sources import Effect, Sources, judge_sources

__all__ = ["Comparison", "Direction", "Mean", "MorePairs", "Pairs", "TTest", "compare", "mean_interval"]

NEW_TRAINING_SETS = "new training sets of this source"
ON_SPLIT = "new seeds, on this split"
METHOD = "clip by clip: sampling of clips, and what training sets and seeds vary by beyond it"
EXACT = 13  # pairs: up to here the signed-rank test goes through all signs where figures tie, as scipy does
NOTHING = TTest(nan, nan, nan, nan, nan, nan, "")


def compare(
    arm_values: Mapping[Cell, float],
    reference_values: Mapping[Cell, float],
    *,
    test_to_train: float,
    direction: Direction = "maximize",
    alpha: float = 0.05,
    arm: str = "arm",
    reference: str = "reference",
    clips: ClipDifferences | None = None,
) -> Comparison:
    """Compare two arms over the (seed, fold) that both have run; half a grid will do.

    Args:
        arm_values, reference_values: one figure for each (seed, fold). The folds of different seeds are the same splits.
        test_to_train: n_test / n_train of one fold (of the clips the figure was measured on): 1 / (K - 1) for
            K-fold cross-validation without a validation part. Without effect on a single fold.
        direction: which way the metric is better. alpha: 1 - level of the interval.
        clips: what each clip says (`clip_differences`), of every cell that both have run. Without it verdicts use the
            wider test, which knows the runs' figures only.

    Returns:
        the comparison; without interval and p when a figure is not finite (leaving diverged runs out would flatter the
        arm that diverges) or pairs show no spread.

    Raises:
        ValueError: for an alpha, a ratio or a direction that cannot be.
    """
    if not 0 < alpha < 1 or not test_to_train >= 0 or direction not in ("maximize", "minimize"):
        raise ValueError(
            f"need 0 < alpha < 1, test_to_train >= 0, a direction: {alpha}, {test_to_train}, {direction!r}"
        )
    both = sorted(arm_values.keys() & reference_values.keys())
    finite = [c for c in both if np.isfinite(arm_values[c]) and np.isfinite(reference_values[c])]
    d = np.array([arm_values[c] - reference_values[c] for c in finite], dtype=np.float64)
    figures = [abs(values[c]) for values in (arm_values, reference_values) for c in finite]
    noise = 1e-12 * max(figures, default=0.0)  # of subtraction
    pairs = Pairs(
        arm,
        reference,
        tuple(finite),
        d,
        test_to_train,
        direction,
        tuple(sorted(set(both) - set(finite))),
    )
    n, better = len(d), 1 if direction == "maximize" else -1
    ties = int((np.abs(d) <= noise).sum())
    wins = int((better * d > noise).sum())
    estimate = estimate_mean(pairs.cells, d, test_to_train) if n else None
    sd = float(d.std(ddof=1)) if n > 1 else nan
    sd = 0.0 if sd <= 2 * noise else sd
    judged = _judged(pairs, estimate, noise, alpha, clips)
    d_z = float(d.mean()) / sd if sd > 0 else nan
    return Comparison(
        pairs=pairs,
        alpha=alpha,
        n=n,
        n_seeds=len({s for s, _ in finite}),
        n_folds=len({k for _, k in finite}),
        mean=float(estimate.mean) if estimate else nan,
        sd=sd,
        **{name: getattr(judged.test, name) for name in ("standard_error", "low", "high", "t", "df", "p")},
        wilcoxon_p=_wilcoxon(d, noise),
        d_z=d_z,
        hedges_g=d_z * _small_sample(n - 1),
        wins=wins,
        losses=n - wins - ties,
        ties=ties,
        components=estimate.components if estimate and n > 1 else None,
        method=judged.method,
        population=judged.test.population,
        wide=judged.wide,
        clipwise=judged.clipwise,
        why_wide=judged.why_wide,
        sources=judged.sources,
        effects=judged.effects,
    )


@dataclass(frozen=True)
class _Judged:
    """The test that verdicts use, the wide one, and why they are the same where they are."""

    test: TTest
    wide: TTest
    method: str
    why_wide: str = ""
    sources: Sources | None = None
    effects: tuple[Effect, ...] = ()

    @property
    def clipwise(self) -> bool:
        return not self.why_wide


def _judged(
    pairs: Pairs, estimate: MeanEstimate | None, noise: float, alpha: float, clips: ClipDifferences | None
) -> _Judged:
    n, n_folds = len(pairs.cells), len({k for _, k in pairs.cells})
    population = ON_SPLIT if n_folds == 1 else NEW_TRAINING_SETS
    if estimate is None:
        return _Judged(NOTHING, NOTHING, "none: no pair", NO_PREDICTIONS)
    mean = float(estimate.mean)
    rounding = max(
        noise**2, 1e-14 * float((pairs.differences**2).max())
    )  # of the sums of squares behind a variance of 0
    spread = n > 1 and not pairs.not_finite and estimate.variance > rounding
    wide = (
        _test(mean, estimate.variance, estimate.df, alpha, population)
        if spread
        else replace(NOTHING, population=population)
    )
    if clips is None or not spread:
        return _Judged(wide, wide, estimate.method, NO_PREDICTIONS if clips is None else "the pairs show no spread")
    missing = len(set(pairs.cells) - set(clips.cells))
    if missing:
        return _Judged(wide, wide, estimate.method, f"the predictions of {missing} of {n} pairs are missing")
    judged = judge_sources(pairs.cells, estimate, clip_spread(clips.of(pairs.cells), pairs.cells))
    if judged.why_wide:
        return _Judged(wide, wide, estimate.method, judged.why_wide, judged.sources, judged.effects)
    test = _test(mean, judged.variance, judged.df, alpha, judged.population)
    return _Judged(test, wide, METHOD, "", judged.sources, judged.effects)


def _test(mean: float, variance: Any, df: Any, alpha: float, population: str) -> TTest:
    se, df = float(np.sqrt(variance)), float(df)
    found = TTest(se, df, mean / se, float(2 * scipy.stats.t.sf(abs(mean) / se, df)), nan, nan, population)
    low, high = found.interval(mean, alpha)
    return replace(found, low=low, high=high)


@dataclass(frozen=True)
class Mean:
    """The mean of an arm's runs: `n` of them, their standard deviation, and the interval of the mean."""

    n: int
    mean: float
    sd: float
    low: float
    high: float
    level: float


def mean_interval(
    values: Mapping[Cell, float] | Sequence[float], *, test_to_train: float = 0.0, level: float = 0.95
) -> Mean:
    """Return mean, spread and t interval of runs: NaN bounds for one run, all NaN for none or a figure that is not finite.

    Args:
        values: figures by (seed, fold), whose interval heeds folds, seeds and overlapping training sets as a
            comparison's does; or a sequence of independent figures.
        test_to_train: as for `compare`; only with (seed, fold).
    """
    if isinstance(values, Mapping):
        cells = tuple(sorted(values))
        y = np.array([values[c] for c in cells], dtype=np.float64)
    else:
        y = np.asarray(values, dtype=np.float64)
        cells = tuple((i, 0) for i in range(len(y)))
    if not len(y) or not np.isfinite(y).all():
        return Mean(len(y), nan, nan, nan, nan, level)
    estimate = estimate_mean(cells, y, test_to_train)
    mean = float(estimate.mean)
    if len(y) == 1:
        return Mean(1, mean, nan, nan, nan, level)
    reach = float(scipy.stats.t.ppf((1 + level) / 2, estimate.df) * np.sqrt(estimate.variance))
    return Mean(len(y), mean, float(y.std(ddof=1)), mean - reach, mean + reach, level)


def _wilcoxon(d: NDArray[Any], noise: float) -> float:
    """Return p of the signed-rank test; 1 when every pair ties, NaN for no pair."""
    if not len(d):
        return nan
    # figures such as 0.75 - 0.7 and 0.65 - 0.6 tie, except for rounding
    settled = np.round(d / noise / 4) * noise * 4 if noise > 0 else d
    if not settled.any():
        return 1.0
    sizes = np.abs(settled)
    if len(d) <= EXACT and (len(np.unique(sizes)) < len(d) or not sizes.all()):
        return _signed_rank(settled)
    with np.errstate(all="ignore"):
        p = float(scipy.stats.wilcoxon(settled, zero_method="pratt").pvalue)
    return 1.0 if isnan(p) else p


def _signed_rank(d: NDArray[Any]) -> float:
    """Return the exact p under ties: the share of all signs whose rank sum is as extreme. scipy's takes seconds for that."""
    ranks = scipy.stats.rankdata(np.abs(d))[d != 0]
    signs = np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks)) & 1
    sums, found = signs @ ranks, ranks[d[d != 0] > 0].sum()
    return float(min(1.0, 2 * min((sums <= found).mean(), (sums >= found).mean())))


def _small_sample(df: int) -> float:
    """Return Hedges' exact factor: Gamma(df / 2) / (sqrt(df / 2) Gamma((df - 1) / 2)) (Hedges 1981)."""
    if df < 2:
        return nan
    return exp(lgamma(df / 2) - lgamma((df - 1) / 2) - 0.5 * log(df / 2))
