"""Where the variance of a suite's mean difference comes from: clips, training sets, seeds, runs; and the test that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from audio_cls.metrics.clip_differences import ClipSpread
from audio_cls.metrics.crossed import Cell, MeanEstimate

__all__ = ["Effect", "Judged", "Sources", "SourcesEstimate", "estimate_sources", "judge_sources"]

Array = NDArray[Any]

TARGET = 0.8
SIGNIFICANT = 0.05  # of the effects of training sets and seeds


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
        """Return the chance to find a true `difference` (metric's units) in a two-sided test, these variances taken as known.

        alpha: of the one test; with m arms after Holm the first must pass alpha / m.
        """
        shift = abs(difference) / self.standard_error(n_seeds, n_folds, n_units)
        critical = stats.norm.isf(alpha / 2)
        return float(stats.norm.sf(critical - shift) + stats.norm.sf(critical + shift))

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
        reach = stats.norm.isf(alpha / 2) + stats.norm.ppf(target)
        return float(reach * self.standard_error(n_seeds, n_folds, n_units))


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
    their own; NaN where the grid cannot tell. The rest as in `Sources`, except clip and clip_by_seed, which are of a fold's mean.
    """

    variance: Array
    df: Array
    training_set_p: Array
    seed_p: Array
    clip: Array
    clip_by_seed: Array
    run: Array
    training_set: Array
    seed: Array


def estimate_sources(cells: Sequence[Cell], figures: MeanEstimate, spread: ClipSpread) -> SourcesEstimate:
    """Return variance and degrees of freedom of the mean: the clips' sampling variance, plus what folds and seeds vary by
    in excess of it (Satterthwaite 1946 for the degrees of freedom of the sum).

    Args:
        figures: `estimate_mean` of the differences of `cells`. spread: of the same differences' clips, for many grids with arrays in its fields.
    """
    n_seeds, n_folds = len({s for s, _ in cells}), len({k for _, k in cells})
    zero = np.zeros(np.shape(figures.mean))
    new_by_seed = np.nan_to_num(spread.run)
    shared = np.maximum(spread.fold - new_by_seed / n_seeds, 0.0)
    nan = zero + np.nan
    if n_folds == 1:
        excess = np.maximum(figures.residual - new_by_seed, 0.0) if n_seeds > 1 else zero
        variance = spread.mean + excess / n_seeds
        wobble = spread.mean**2 / spread.df + (excess / n_seeds) ** 2 / max(n_seeds - 1, 1)
        p = stats.f.sf(figures.residual / new_by_seed, n_seeds - 1, np.inf) if n_seeds > 1 else nan
        return SourcesEstimate(variance, variance**2 / wobble, nan, p, shared, zero + new_by_seed, zero, zero, excess)
    excess = np.maximum(figures.between - spread.fold, 0.0)
    variance = spread.mean + excess / n_folds + figures.of_seeds
    wobble = spread.mean**2 / spread.df + (excess / n_folds) ** 2 / (n_folds - 1)
    if figures.separated:
        wobble = wobble + figures.of_seeds**2 / (n_seeds - 1)
    run = np.maximum(figures.residual - new_by_seed, 0.0) if figures.separated else zero
    training_set = np.maximum(excess - run / n_seeds, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        fold_p = stats.f.sf(figures.between / (spread.fold + run / n_seeds), n_folds - 1, spread.df)
        seed_p = stats.f.sf(figures.seed_square / figures.residual, n_seeds - 1, figures.df_residual)
    return SourcesEstimate(
        variance, variance**2 / wobble, fold_p, seed_p, shared, zero + new_by_seed, run, training_set, figures.seed
    )


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
    why = (
        f"the training sets have an effect of their own (p = {e.training_set_p:.2g})" if effects[0].significant else ""
    )
    return Judged(float(e.variance), float(e.df), _population(n_seeds, n_folds), why, sources, effects)


def _population(n_seeds: int, n_folds: int) -> str:
    if n_folds == 1:
        return "new clips and seeds, on this split"
    if n_seeds == 1:
        return "new clips, training sets like these, this one seed"
    return "new clips and seeds, training sets like these"
