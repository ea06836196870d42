"""Two arms compared pair by pair: difference, interval, corrected p, effect size, and how many more runs would decide.

A pair is two runs with the same seed and fold. `crossed.py` says which variance the mean difference has and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, isnan, lgamma, log, nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from audio_cls.metrics.crossed import Cell, Components, estimate_mean, power, seeds_needed

__all__ = ["Comparison", "Direction", "Mean", "MorePairs", "Pairs", "compare", "holm", "mean_interval"]

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Differences of two arms, arm minus reference, in the metric's units.

    cells: (seed, fold) of each pair, sorted. differences: (n_pairs,).
    not_finite: cells both have run where a figure is NaN or infinite (a diverged run, d' of perfect scores).
    test_to_train: n_test / n_train of one fold.
    """

    arm: str
    reference: str
    cells: tuple[Cell, ...]
    differences: NDArray[np.float64]
    test_to_train: float
    direction: Direction
    not_finite: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class MorePairs:
    """What it takes to find a true difference with 80 % power, in complete grids of seeds x the folds at hand.

    pairs: how many more than there are, 0 when these suffice; None when more seeds will not do (`crossed.MAX_SEEDS`
    tried), as what the split changes stays however many seeds run on it. seeds: the seeds then, in all. lower_bound: with one seed nothing tells
    seed noise from fold effects; the figure then supposes all of it to be seed noise.
    """

    difference: float
    pairs: int | None
    seeds: int | None
    lower_bound: bool


@dataclass(frozen=True, eq=False)
class Comparison:
    """An arm against its reference, on one metric. What cannot be computed is NaN.

    n, n_seeds, n_folds: pairs, and the seeds and folds they span.
    mean: difference arm - reference in the metric's units: the mean of the folds' means, in a complete grid the mean
    of all pairs. sd: of the pairs (n - 1). low, high: interval of level 1 - alpha.
    standard_error, t, df, p: corrected for folds, seeds and overlapping training sets, two-sided; what verdicts use.
    wilcoxon_p: signed-rank test over all pairs as if they were independent, for information. Differences of zero are ranked with the others and
    then left out (`zero_method="pratt"`): figures on few clips tie often, and a tie speaks against a difference.
    d_z: mean of pairs / sd (Cohen's d for pairs); hedges_g: d_z without its small-sample bias.
    wins, losses, ties: pairs in which the arm is better, worse, equal. components: variances by source, if n > 1.
    """

    pairs: Pairs
    alpha: float
    n: int
    n_seeds: int
    n_folds: int
    mean: float
    sd: float
    standard_error: float
    low: float
    high: float
    t: float
    df: float
    p: float
    wilcoxon_p: float
    d_z: float
    hedges_g: float
    wins: int
    losses: int
    ties: int
    components: Components | None
    method: str

    @property
    def decidable(self) -> bool:
        """Whether there is an interval: more than one pair, every figure finite, and some spread between pairs."""
        return self.standard_error > 0

    @property
    def single_split(self) -> bool:
        """Whether the result speaks of one split only."""
        return self.n_folds == 1

    def equivalence(self, margin: float) -> float:
        """Return p of two one-sided tests (TOST, Schuirmann 1987) that the true difference lies beyond +-margin.

        Small means equivalent. Same standard error and degrees of freedom as `p`; NaN when not decidable.
        """
        if not margin > 0:
            raise ValueError(f"margin must be above 0 in the metric's units, got {margin}")
        if not self.decidable:
            return nan
        below = stats.t.sf((self.mean + margin) / self.standard_error, self.df)
        above = stats.t.cdf((self.mean - margin) / self.standard_error, self.df)
        return float(max(below, above))

    def power(self, difference: float, n_seeds: int | None = None, *, tests: int = 1) -> float:
        """Return the chance to find a true `difference` with `n_seeds` (default: as many as there are) on these folds.

        tests: arms in the Holm family; the first of them must pass alpha / tests. NaN when not decidable.
        """
        if not self.decidable or self.components is None:
            return nan
        seeds = self.n_seeds if n_seeds is None else n_seeds
        ratio = self.pairs.test_to_train
        return float(power(difference, self.components, seeds, self.n_folds, ratio, self.alpha / tests))

    def more_pairs(self, difference: float, *, tests: int = 1, target: float = 0.8) -> MorePairs | None:
        """Return how many more pairs would find a true `difference` (metric's units); None when not decidable.

        A hint: the variances behind it are themselves estimated from few runs.
        """
        if not self.decidable or self.components is None:
            return None
        lower_bound = not self.components.separated
        seeds = seeds_needed(
            difference,
            self.components,
            self.n_folds,
            self.pairs.test_to_train,
            # without separation the components describe what several seeds would show, not the test at hand
            at_least=self.n_seeds + lower_bound,
            alpha=self.alpha / tests,
            target=target,
        )
        more = None if seeds is None else max(seeds * self.n_folds - self.n, 0)
        return MorePairs(difference, more, seeds, lower_bound)


def compare(
    arm_values: Mapping[Cell, float],
    reference_values: Mapping[Cell, float],
    *,
    test_to_train: float,
    direction: Direction = "maximize",
    alpha: float = 0.05,
    arm: str = "arm",
    reference: str = "reference",
) -> Comparison:
    """Compare two arms over the (seed, fold) that both have run; half a grid will do.

    Args:
        arm_values, reference_values: one figure for each (seed, fold). The folds of different seeds are the same splits.
        test_to_train: n_test / n_train of one fold (of the clips the figure was measured on): 1 / (K - 1) for
            K-fold cross-validation without a validation part. Without effect on a single fold.
        direction: which way the metric is better. alpha: 1 - level of the interval.

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
    mean, sd, se, df, components, method = nan, nan, nan, nan, None, "none: no pair"
    if n:
        estimate = estimate_mean(pairs.cells, d, test_to_train)
        mean, method = float(estimate.mean), estimate.method
        if n > 1:
            sd, components = float(d.std(ddof=1)), estimate.components
            if sd <= 2 * noise:
                sd = 0.0
            if not pairs.not_finite and estimate.variance > noise**2:
                se, df = float(np.sqrt(estimate.variance)), float(estimate.df)
    t = mean / se
    reach = float(stats.t.isf(alpha / 2, df)) * se if se > 0 else nan
    d_z = float(d.mean()) / sd if sd > 0 else nan
    return Comparison(
        pairs=pairs,
        alpha=alpha,
        n=n,
        n_seeds=len({s for s, _ in finite}),
        n_folds=len({k for _, k in finite}),
        mean=mean,
        sd=sd,
        standard_error=se,
        low=mean - reach,
        high=mean + reach,
        t=t,
        df=df,
        p=float(2 * stats.t.sf(abs(t), df)),
        wilcoxon_p=_wilcoxon(d, noise),
        d_z=d_z,
        hedges_g=d_z * _small_sample(n - 1),
        wins=wins,
        losses=n - wins - ties,
        ties=ties,
        components=components,
        method=method,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p, in the order given (Holm 1979): compare with alpha as they stand.

    The i-th smallest of m becomes min(1, max over j <= i of (m - j + 1) p_j). A NaN (an arm that cannot be tested yet)
    stays NaN but counts as one of the m, so that results do not change their family as runs come in.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(np.where(np.isnan(p), inf, p), kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * np.where(np.isnan(p), 1.0, p)[order]), 1.0)
    adjusted[np.isnan(p)] = nan
    return [float(value) for value in adjusted]


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
    reach = float(stats.t.ppf((1 + level) / 2, estimate.df) * np.sqrt(estimate.variance))
    return Mean(len(y), mean, float(y.std(ddof=1)), mean - reach, mean + reach, level)


def _wilcoxon(d: NDArray[Any], noise: float) -> float:
    """Return p of the signed-rank test; 1 when every pair ties, NaN for no pair."""
    if not len(d):
        return nan
    # figures such as 0.75 - 0.7 and 0.65 - 0.6 tie, except for rounding
    settled = np.round(d / noise / 4) * noise * 4 if noise > 0 else d
    if not settled.any():
        return 1.0
    with np.errstate(all="ignore"):
        p = float(stats.wilcoxon(settled, zero_method="pratt").pvalue)
    return 1.0 if isnan(p) else p


def _small_sample(df: int) -> float:
    """Return Hedges' exact factor: Gamma(df / 2) / (sqrt(df / 2) Gamma((df - 1) / 2)) (Hedges 1981)."""
    if df < 2:
        return nan
    return exp(lgamma(df / 2) - lgamma((df - 1) / 2) - 0.5 * log(df / 2))
