"""The value that comparing two arms gives: difference, tests and their populations, effect size, power and how many more runs would decide.

`paired.compare` makes it. A pair is two runs with the same seed and fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from audio_cls.metrics.crossed import MAX_SEEDS, Cell, Components, power, seeds_needed
from audio_cls.metrics.sources import Effect, Sources

__all__ = ["Comparison", "Direction", "MorePairs", "Pairs", "TTest"]

Direction = Literal["maximize", "minimize"]

NO_PREDICTIONS = "without the clips' predictions"


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


@dataclass(frozen=True)
class TTest:
    """A two-sided t test of a mean difference of 0, and the interval of level 1 - alpha. population: what it speaks of, in words."""

    standard_error: float
    df: float
    t: float
    p: float
    low: float
    high: float
    population: str

    def interval(self, mean: float, level: float) -> tuple[float, float]:
        """Return the interval around `mean` that leaves out 0 where p < `level` (0.05 for the 95 % interval)."""
        reach = float(scipy.stats.t.isf(level / 2, self.df)) * self.standard_error if self.standard_error > 0 else nan
        return mean - reach, mean + reach


@dataclass(frozen=True, eq=False)
class Comparison:
    """An arm against its reference, on one metric. What cannot be computed is NaN.

    n, n_seeds, n_folds: pairs, and the seeds and folds they span.
    mean: difference arm - reference in the metric's units: the mean of the folds' means, in a complete grid the mean
    of all pairs. sd: of the pairs (n - 1). low, high: interval of level 1 - alpha.
    standard_error, t, df, p: two-sided; what verdicts use: by the clips' predictions where there are any (`sources.py`),
    else corrected for folds, seeds and overlapping training sets (`crossed.py`). population: what they speak of, in words.
    wide: the latter test, whether verdicts use it or not.
    clipwise: whether the clips' predictions were used. why_wide: why not, in words; empty where they were.
    sources: variances by source, for planning; None without predictions. effects: of training sets and seeds, with their significance.
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
    population: str
    wide: TTest
    clipwise: bool = False
    why_wide: str = NO_PREDICTIONS
    sources: Sources | None = None
    effects: tuple[Effect, ...] = ()

    @property
    def decidable(self) -> bool:
        """Whether there is an interval: more than one pair, every figure finite, and some spread between pairs."""
        return self.standard_error > 0

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval that leaves out 0 where p < `level` (0.05 for the 95 % interval)."""
        return self.test.interval(self.mean, level)

    @property
    def test(self) -> TTest:
        """The test that verdicts use."""
        return TTest(self.standard_error, self.df, self.t, self.p, self.low, self.high, self.population)

    def probabilities(self, margin: float) -> tuple[float, float, float]:
        """Return the probabilities that the arm is better by more than `margin` (metric's units), within it, and worse by more.

        As if nothing had been known before (a flat prior): the difference is then t distributed around the mean. NaN when not decidable.
        """
        if not margin >= 0:
            raise ValueError(f"margin must not be below 0, got {margin}")
        if not self.decidable:
            return nan, nan, nan
        above = float(scipy.stats.t.sf((margin - self.mean) / self.standard_error, self.df))
        below = float(scipy.stats.t.cdf((-margin - self.mean) / self.standard_error, self.df))
        better, worse = (above, below) if self.pairs.direction == "maximize" else (below, above)
        return better, max(1.0 - above - below, 0.0), worse

    def equal_within(self, level: float) -> float:
        """Return the smallest margin that two one-sided tests at `level` pass: the arms are equal to within it."""
        if not self.decidable:
            return nan
        return abs(self.mean) + float(scipy.stats.t.isf(level, self.df)) * self.standard_error

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
        below = scipy.stats.t.sf((self.mean + margin) / self.standard_error, self.df)
        above = scipy.stats.t.cdf((self.mean - margin) / self.standard_error, self.df)
        return float(max(below, above))

    def power(self, difference: float, n_seeds: int | None = None, *, tests: int = 1) -> float:
        """Return the chance to find a true `difference` with `n_seeds` (default: as many as there are) on these folds.

        tests: arms in the Holm family; the first of them must pass alpha / tests. NaN when not decidable.
        """
        if not self.decidable or self.components is None:
            return nan
        seeds = self.n_seeds if n_seeds is None else n_seeds
        if self.clipwise and self.sources is not None:
            return self.sources.power(difference, seeds, self.n_folds, alpha=self.alpha / tests)
        ratio = self.pairs.test_to_train
        return float(power(difference, self.components, seeds, self.n_folds, ratio, self.alpha / tests))

    def more_pairs(self, difference: float, *, tests: int = 1, target: float = 0.8) -> MorePairs | None:
        """Return how many more pairs would find a true `difference` (metric's units); None when not decidable.

        A hint: the variances behind it are themselves estimated from few runs.
        """
        if not self.decidable or self.components is None:
            return None
        lower_bound = not self.components.separated
        # without separation the components describe what several seeds would show, not the test at hand
        at_least = self.n_seeds + lower_bound
        if self.clipwise and self.sources is not None:
            seeds = self._fewest(difference, at_least, tests, target)
        else:
            seeds = seeds_needed(
                difference,
                self.components,
                self.n_folds,
                self.pairs.test_to_train,
                at_least=at_least,
                alpha=self.alpha / tests,
                target=target,
            )
        more = None if seeds is None else max(seeds * self.n_folds - self.n, 0)
        return MorePairs(difference, more, seeds, lower_bound)

    def _fewest(self, difference: float, at_least: int, tests: int, target: float) -> int | None:
        """Return the fewest seeds with the power `target`, by halving; None where `MAX_SEEDS` would not do."""
        low, high = at_least, MAX_SEEDS
        if self.power(difference, high, tests=tests) < target:
            return None
        while low < high:
            middle = (low + high) // 2
            enough = self.power(difference, middle, tests=tests) >= target
            low, high = (low, middle) if enough else (middle + 1, high)
        return low
