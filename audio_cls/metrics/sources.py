"""The variance of a suite's mean difference by source: clips, training sets, seeds and runs; and the test that verdicts use.

The runs' figures alone (`crossed.py`) know a suite of 5 folds by 4 degrees of freedom. Its clips say much more: how much a figure varies
because other clips could have been drawn. So, for K folds and S seeds,

    variance = C + max(B - c, least c) / K + max(G - M, least M) / (K S)

C, c: sampling variance of the mean, and of one fold's mean, over clips or groups of clips (`clip_differences.py`; seeds averaged).
B: variance between the folds' means, which in excess of c comes from training sets and runs. G, M: mean squares of seeds and of what
is left; G in excess of M comes from seeds. Degrees of freedom by Satterthwaite 1946; where B or G is only just explained by chance
(`DOUBTFUL`) it has K - 1, or S - 1, as a whole. Where it is not explained (`SIGNIFICANT`), or is doubtful and the interval would be wider
than that of `crossed.py`, that is said and `crossed.py` judges.

This speaks of new clips and seeds and of training sets like these: what the training sets of all folds share cannot be seen within a suite,
and belongs to the question. Measured by `benchmarks/false_verdicts.py`: false verdicts 1 to 6 % (the wide test: 1 to 3 %), and 4
points on 400 clips found in 41 % of suites (19 %). A hierarchical bootstrap, a mixed model and variance components without fallback find
somewhat more, and err in 9 to 17 % where training sets matter very much; sign flips err as soon as they matter. docs/results.md has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from audio_cls.core.rng import numpy_rng
from audio_cls.metrics.base import p_text
from audio_cls.metrics.clip_differences import ClipSpread
from audio_cls.metrics.crossed import Cell, MeanEstimate, combine_variances

__all__ = ["TARGET", "Effect", "Judged", "Sources", "SourcesEstimate", "estimate_sources", "judge_sources"]

Array = NDArray[Any]

TARGET = 0.8  # the power that forecasts ask for
DRAWS = 1000  # simulated suites behind a forecast of power
SIGNIFICANT = 0.05
"""An effect of training sets or seeds below this p is said, and verdicts fall back to the wider test."""

DOUBTFUL = 0.15
"""Below this p an effect may be all there is, and the variance is as uncertain as n - 1 degrees of freedom make it (a liberal
level, as preliminary tests need: Bancroft 1944)."""

LEAST = 0.3
"""At least LEAST / (n - 1)^2 of what chance alone makes n folds (or seeds) vary by is counted as their own effect besides: two or three
of them know it badly."""


@dataclass(frozen=True)
class Sources:
    """Variances of a difference by source, in squared units of the metric.

    clip: of one clip (or group of clips) that all seeds share. clip_by_seed: of one clip, new with each seed. run: new in each
    run. training_set: of one fold's training set. seed: of one seed, in all folds alike.
    n_seeds, n_folds, n_units: of the grid they were estimated from. separated: False with one seed, when what seeds
    change is counted elsewhere or not seen at all, and predictions for more seeds are too hopeful.
    """

    clip: float
    clip_by_seed: float
    run: float
    training_set: float
    seed: float
    n_seeds: int
    n_folds: int
    n_units: int
    separated: bool = True

    @staticmethod
    def of_shares(disagreement: float, n_units: int) -> Sources:
        """Return the sampling of clips alone, for a share such as accuracy: a lower bound when there is no pilot.

        Args:
            disagreement: the share of clips (0 to 1) that one arm gets right and the other wrong.
        """
        return Sources(disagreement, 0.0, 0.0, 0.0, 0.0, 1, 1, n_units, separated=False)

    @staticmethod
    def pooled(found: Sequence[Sources]) -> Sources:
        """Return the mean variances of several comparisons on the same grid and clips."""
        if not found:
            raise ValueError("need at least one comparison to pool")
        names = ("clip", "clip_by_seed", "run", "training_set", "seed")
        means: dict[str, Any] = {name: float(np.mean([getattr(one, name) for one in found])) for name in names}
        return replace(found[0], **means, separated=all(one.separated for one in found))

    def standard_error(
        self, n_seeds: int | None = None, n_folds: int | None = None, n_units: int | None = None
    ) -> float:
        """Return the standard error of the mean difference of a grid; by default that of the grid at hand.

        n_units: clips (or groups) in all folds together; by default as many in each fold as there are now.
        """
        seeds, folds = n_seeds or self.n_seeds, n_folds or self.n_folds
        units = n_units or self.n_units * folds / self.n_folds
        of_clips = (self.clip + self.clip_by_seed / seeds) / units
        return float(np.sqrt(of_clips + self.training_set / folds + self.run / (seeds * folds) + self.seed / seeds))

    def power(
        self,
        difference: float,
        n_seeds: int | None = None,
        n_folds: int | None = None,
        n_units: int | None = None,
        *,
        alpha: float = 0.05,
    ) -> float:
        """Return the chance to find a true `difference` (metric's units) in a two-sided test, these variances being the true ones, where
        the test does not fall back to the wider one.

        alpha: of the one test; with m arms after Holm the first must pass alpha / m.
        """
        return self._power(abs(difference), self._tests(n_seeds, n_folds, n_units, alpha))

    def detectable(
        self,
        n_seeds: int | None = None,
        n_folds: int | None = None,
        n_units: int | None = None,
        *,
        alpha: float = 0.05,
        target: float = TARGET,
    ) -> float:
        """Return the smallest true difference (metric's units) that is found with the power `target`."""
        tests = self._tests(n_seeds, n_folds, n_units, alpha)
        if not tests[1].max() > 0:
            return 0.0
        return float(scipy.optimize.brentq(lambda d: self._power(d, tests) - target, 0.0, 100 * float(tests[1].max())))

    @staticmethod
    def _power(difference: float, tests: tuple[float, Array]) -> float:
        sd, reach = tests
        if not sd > 0:
            return float(difference > 0)
        return float(
            (scipy.stats.norm.sf((reach - difference) / sd) + scipy.stats.norm.sf((reach + difference) / sd)).mean()
        )

    def _tests(
        self, n_seeds: int | None, n_folds: int | None, n_units: int | None, alpha: float
    ) -> tuple[float, Array]:
        """Return the standard deviation of the mean, and how far from 0 it is significant in `DRAWS` suites that such grids would give:
        the test does not know these variances, and estimates them.
        """
        seeds, folds = n_seeds or self.n_seeds, n_folds or self.n_folds
        units = n_units or self.n_units * folds / self.n_folds
        rng, cells = numpy_rng(0, "planning"), [(s, k) for s in range(seeds) for k in range(folds)]

        def drawn(expected: float, df: float) -> Array:
            return expected * rng.chisquare(df, DRAWS) / df if df > 0 else np.full(DRAWS, np.nan)

        by_seed = self.clip_by_seed * folds / units
        fold = self.clip * folds / units + by_seed / seeds
        clips = max(units / 4, 4.0)  # degrees of freedom of clips, of which most say the same of both arms
        run = by_seed + self.run + (self.seed if folds == 1 else 0.0)
        between = drawn(fold + self.training_set + self.run / seeds, folds - 1)
        residual = drawn(run, (seeds - 1) * max(folds - 1, 1))
        of_seeds = drawn(run + folds * self.seed, seeds - 1) if folds > 1 else residual * np.nan
        spread_fold, spread_run = drawn(fold, clips), drawn(by_seed, clips if seeds > 1 else 0)
        spread = ClipSpread(spread_fold / folds, np.full(DRAWS, clips), spread_fold, spread_run, int(units))
        figures = _figures(seeds, folds, between, residual, of_seeds)
        e = estimate_sources(cells, figures, spread)
        kept = ~e.wide | e.wide.all()  # where it falls back, `crossed.power` speaks
        sd = self.standard_error(seeds, folds, int(units))
        if folds == 1:
            sd = float(np.sqrt(sd**2 - self.training_set))  # one split does not claim to speak of others
        return sd, (scipy.stats.t.isf(alpha / 2, e.df) * np.sqrt(e.variance))[kept]


def _figures(seeds: int, folds: int, between: Array, residual: Array, seed_square: Array) -> MeanEstimate:
    """Return what `crossed.estimate_mean` finds in complete grids with these mean squares."""
    zero, ratio = np.zeros(np.shape(residual)), 1 / max(folds - 1, 1)
    fold = seed = of_seeds = zero
    variance, df = residual / seeds, zero + seeds - 1
    if folds > 1 and seeds > 1:
        fold, seed = np.maximum(between - residual / seeds, 0.0), np.maximum(seed_square - residual, 0.0) / folds
        of_seeds = seed / seeds
        variance, df = combine_variances(between, fold, of_seeds, folds, seeds, ratio)
    elif folds > 1:
        variance, df = between * (1 / folds + ratio), zero + folds - 1
    separated = seeds > 1
    return MeanEstimate(
        zero,
        variance,
        df,
        fold,
        seed,
        residual,
        separated,
        "simulated",
        between,
        of_seeds,
        seed_square,
        (seeds - 1) * max(folds - 1, 1),
    )


@dataclass(frozen=True)
class Effect:
    """What training sets, or seeds, change about the difference beyond the sampling of clips.

    name: "training sets" or "seeds". sd: estimated standard deviation, in the metric's units. p: of the F test that there is none;
    NaN where the grid cannot tell.
    """

    name: str
    sd: float
    p: float

    @property
    def significant(self) -> bool:
        return self.p < SIGNIFICANT


@dataclass(frozen=True, eq=False)
class Judged:
    """One grid judged clip by clip. why_wide: why the wider test has to be used instead, in words; empty if it need not."""

    variance: float
    df: float
    population: str
    why_wide: str
    sources: Sources
    effects: tuple[Effect, ...]


@dataclass(frozen=True, eq=False)
class SourcesEstimate:
    """One or many grids judged clip by clip; arrays have the leading shape of the figures.

    variance, df: of the mean. training_set_p, seed_p: of the F tests that training sets, or seeds, have an effect of
    their own; NaN where the grid cannot tell. wide: where the wide test has to be used: one of them has an effect, or may have one and the
    wide test's interval is the narrower.
    The rest as in `Sources`, except clip and clip_by_seed, which are of a fold's mean.
    """

    variance: Array
    df: Array
    training_set_p: Array
    seed_p: Array
    wide: Array
    clip: Array
    clip_by_seed: Array
    run: Array
    training_set: Array
    seed: Array


def estimate_sources(cells: Sequence[Cell], figures: MeanEstimate, spread: ClipSpread) -> SourcesEstimate:
    """Return variance and degrees of freedom of the mean by the method at the head of the module.

    Args:
        figures: `estimate_mean` of the differences of `cells`.
        spread: of the same differences' clips; for many grids with arrays in its fields.
    """
    n_seeds, n_folds = len({s for s, _ in cells}), len({k for _, k in cells})
    if n_folds == 1:
        return _one_split(n_seeds, figures, spread)
    zero = np.zeros(np.shape(figures.mean))
    by_seed = np.nan_to_num(spread.run) + zero
    run = np.maximum(figures.residual - by_seed, 0.0) if figures.separated else zero
    training_p = _f_test(figures.between, spread.fold + run / n_seeds, n_folds - 1, spread.df)
    excess, of_folds = _excess(figures.between, spread.fold, n_folds, training_p)
    seed_p, of_seeds, wobble_seeds = zero + np.nan, zero, zero
    if figures.separated:
        seed_p = _f_test(figures.seed_square, figures.residual, n_seeds - 1, figures.df_residual)
        of_seeds, wobble_seeds = _excess(figures.seed_square / n_folds, figures.residual / n_folds, n_seeds, seed_p)
    variance = spread.mean + excess + of_seeds
    df = _satterthwaite(variance, spread.mean**2 / spread.df + of_folds + wobble_seeds)
    doubtful = (training_p < DOUBTFUL) | (seed_p < DOUBTFUL)
    return SourcesEstimate(
        variance=variance,
        df=df,
        training_set_p=training_p,
        seed_p=seed_p,
        wide=(training_p < SIGNIFICANT)
        | (seed_p < SIGNIFICANT)
        | doubtful & (_reach(variance, df) > _reach(figures.variance, figures.df)),
        clip=np.maximum(spread.fold - by_seed / n_seeds, 0.0),
        clip_by_seed=by_seed,
        run=run,
        training_set=np.maximum(figures.between - spread.fold - run / n_seeds, 0.0),
        seed=figures.seed,
    )


def _one_split(n_seeds: int, figures: MeanEstimate, spread: ClipSpread) -> SourcesEstimate:
    """One fold: seeds (or runs, which are the same here) vary by more than their clips do, or not."""
    zero = np.zeros(np.shape(figures.mean))
    by_seed = np.nan_to_num(spread.run) + zero
    seed_p = _f_test(figures.residual, by_seed, n_seeds - 1, spread.df)
    excess, wobble = _excess(figures.residual, by_seed, n_seeds, seed_p)
    variance = spread.mean + excess
    return SourcesEstimate(
        variance=variance,
        df=_satterthwaite(variance, spread.mean**2 / spread.df + wobble),
        training_set_p=zero + np.nan,
        seed_p=seed_p,
        wide=np.zeros(np.shape(zero), bool),
        clip=np.maximum(spread.fold - by_seed / n_seeds, 0.0),
        clip_by_seed=by_seed,
        run=zero,
        training_set=zero,
        seed=np.maximum(figures.residual - by_seed, 0.0),
    )


def _excess(square: Array, expected: Array, n: int, p: Array) -> tuple[Array, Array]:
    """Return what n folds (or seeds) add to the variance of the mean, and its wobble: variance^2 / degrees of freedom.

    square: the variance between them, of n - 1 degrees of freedom. expected: without an effect of their own. p: that there is none.
    """
    if n < 2:
        nothing = np.zeros(np.shape(square))
        return nothing, nothing
    excess = np.maximum(square - expected, LEAST / (n - 1) ** 2 * expected)
    uncertain = np.where(p < DOUBTFUL, np.maximum(square, excess), excess)
    return excess / n, (uncertain / n) ** 2 / (n - 1)


def _f_test(square: Array, expected: Array, df: int, df_expected: Array | float) -> Array:
    """Return p that a mean square is what is expected without an effect of its own; NaN without degrees of freedom."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p: Array = scipy.stats.f.sf(np.asarray(square) / expected, df, df_expected)
    return p


def _satterthwaite(variance: Array, wobble: Array) -> Array:
    """Return the degrees of freedom of a sum of variances: no fewer than the one that two folds or seeds have."""
    with np.errstate(divide="ignore", invalid="ignore"):
        df: Array = np.where(wobble > 0, np.maximum(variance**2 / wobble, 1.0), 1.0)
    return df


def _reach(variance: Array, df: Array) -> Array:
    """Return half the width of the 95 % interval."""
    reach: Array = scipy.stats.t.isf(0.025, df) * np.sqrt(variance)
    return reach


def judge_sources(cells: Sequence[Cell], figures: MeanEstimate, spread: ClipSpread) -> Judged:
    """Return the test of one grid: variance, degrees of freedom, population, and whether the wider test has to be used."""
    e = estimate_sources(cells, figures, spread)
    n_seeds, n_folds = len({s for s, _ in cells}), len({k for _, k in cells})
    per_fold = spread.n_units / n_folds
    sources = Sources(
        float(e.clip) * per_fold,
        float(e.clip_by_seed) * per_fold,
        float(e.run),
        float(e.training_set),
        float(e.seed),
        n_seeds,
        n_folds,
        spread.n_units,
        n_seeds > 1,
    )
    effects = (
        Effect("training sets", float(np.sqrt(e.training_set)), float(e.training_set_p)),
        Effect("seeds", float(np.sqrt(e.seed)), float(e.seed_p)),
    )
    found = [f"{one.name} have an effect of their own ({p_text(one.p)})" for one in effects if one.significant]
    found = found or [
        f"{one.name} may have an effect of their own ({p_text(one.p)}), which {n} of them know badly"
        for one, n in zip(effects, (n_folds, n_seeds), strict=True)
        if one.p < DOUBTFUL
    ]
    why = " and ".join(found) if bool(e.wide) else ""
    return Judged(float(e.variance), float(e.df), _population(n_seeds, n_folds), why, sources, effects)


def _population(n_seeds: int, n_folds: int) -> str:
    if n_folds == 1:
        return "new clips and seeds, on this split"
    if n_seeds == 1:
        return "new clips, training sets like these, this one seed"
    return "new clips and seeds, training sets like these"
