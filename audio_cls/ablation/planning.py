"""What a suite can detect and what it costs, before it is trained.

The standard error of an arm's difference from the reference follows from the variances by source (clips, runs, training sets,
seeds; `metrics.sources`) for any number of seeds and folds. `Sources.detectable` gives the smallest difference that is found four
times in five by a test that estimates these variances itself. m arms are corrected by Holm's method, whose first step takes alpha / m.
Alpha is that of the next look at the suite (`looks`).
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from audio_cls.ablation.costs import Cost, cost_of, seconds_per_epoch
from audio_cls.ablation.looks import ALPHA, read_looks
from audio_cls.ablation.pilots import Pilot, find_pilot
from audio_cls.core.formatting import count, duration
from audio_cls.metrics.base import in_points, number_text
from audio_cls.metrics.crossed import power
from audio_cls.metrics.multiplicity import spend
from audio_cls.metrics.sources import TARGET
from audio_cls.queue.storage import load_study, study_names
from audio_cls.runs.folds import grid_text

if TYPE_CHECKING:
    import pandas as pd

    from audio_cls.ablation.suite import Suite

__all__ = ["Forecast", "GridForecast", "detectable_widely", "forecast"]

SEEDS = (1, 2, 3, 5, 10)
FEW_FOLDS = (1, 3)


@dataclass(frozen=True)
class GridForecast:
    """A grid of seeds and folds. detectable: the smallest difference that it finds four times in five, in the metric's units.
    seconds: of training all its runs one after the other. NaN where either is not known."""

    seeds: int
    folds: int
    runs: int
    detectable: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a suite can detect and what it costs.

    arms: besides the reference. alpha: of all of them together, at this look. pilot: where the spread comes from, None if it is not known.
    declared: the grid as declared. smallest, largest: its detectable difference by the single comparisons of the pilot. wide: the
    detectable difference where verdicts fall back to the wider test, NaN unless the pilot has such comparisons (of so many: n_wide).
    grids: other numbers of seeds and folds.
    """

    name: str
    metric: str
    arms: int
    alpha: float
    look: int
    size: str
    pilot: Pilot | None
    declared: GridForecast
    smallest: float
    largest: float
    wide: float
    n_wide: int
    grids: tuple[GridForecast, ...]
    cost: Cost
    workers: int = 1

    def lines(self) -> list[str]:
        """Return the forecast of the declared grid in sentences."""
        return [*self._detects(), *self._costs()]

    def _detects(self) -> list[str]:
        after = f" after Holm over {self.arms} arms" if self.arms > 1 else ""
        which = "a first look" if self.look == 1 else f"look {self.look} at it"
        tested = f"at {100 * self.alpha:.2g} %{after}, the level of {which}"
        if self.pilot is None:
            return [
                f"{self.size}. What it can detect in {self.metric} is not known: no run on this corpus to go by, and no guess for a "
                "metric in units of its own. Train one seed first: audio-cls ablate run FILE --seeds 1"
            ]
        spread = ""
        if self.largest > self.smallest:
            spread = (
                f" ({self.amount(self.smallest)} to {self.amount(self.largest)} by the pilot's comparisons one by one)"
            )
        at_least = "at best " if not self.pilot.comparisons else ""
        lines = [
            f"{self.size}: finds a true difference of {at_least}{self.amount(self.declared.detectable)} in {self.metric} four times "
            f"in five{spread}, {tested}",
            f"by {self.pilot.words}",
            *self.pilot.caveats,
        ]
        if self.n_wide:
            lines.append(
                f"in {self.n_wide} of the pilot's {count(len(self.pilot.comparisons), 'comparison')} training sets have an effect of "
                f"their own; there the wider test judges, which finds {self._widely()}"
            )
        return lines

    def _widely(self) -> str:
        return self.amount(self.wide) if isfinite(self.wide) else "no difference on this grid"

    def _costs(self) -> list[str]:
        cost = self.cost
        left = f"{count(cost.runs, 'run')}, {count(cost.epochs, 'epoch')} left to train"
        if not cost.runs:
            return ["nothing is left to train"]
        if not isfinite(cost.seconds):
            return [f"{left}; how long is not known: {cost.words}"]
        several = (
            f", {duration(cost.seconds / self.workers)} with {self.workers} workers that do not slow each other"
            if self.workers > 1
            else ""
        )
        return [f"{left}: {duration(cost.seconds)} with one worker{several} ({cost.words})"]

    def amount(self, value: float) -> str:
        """Return a difference as text, in points where the metric is a share."""
        if not isfinite(value):
            return "unknown"
        return f"{number_text(value, in_points(self.metric))}{' points' if in_points(self.metric) else ''}"

    def table(self) -> pd.DataFrame:
        """Return a row for each grid of seeds and folds: runs, detectable difference (metric's units), hours with one worker."""
        import pandas as pd

        rows = [(g.seeds, g.folds, g.runs, g.detectable, g.seconds / 3600) for g in self.grids]
        columns = ["seeds", "folds", "runs", "detectable", "hours"]
        return pd.DataFrame(rows, columns=columns).set_index(["seeds", "folds"])

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Return columns and rows of a table with a row for each number of seeds, a column for each number of folds."""
        folds = sorted({g.folds for g in self.grids})
        columns = ["seeds", *(count(n, "fold") for n in folds), "runs", "one worker"]
        rows = []
        for seeds in sorted({g.seeds for g in self.grids}):
            mine = [next(g for g in self.grids if (g.seeds, g.folds) == (seeds, n)) for n in folds]
            known = isfinite(mine[-1].seconds)
            cells = [number_text(g.detectable, in_points(self.metric)) if isfinite(g.detectable) else "" for g in mine]
            rows.append([seeds, *cells, mine[-1].runs, duration(mine[-1].seconds) if known else ""])
        return columns, rows

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines())
        return f"<p><b>{html.escape(self.name)}</b></p><ul>{lines}</ul>" + self.table().to_html(
            float_format="{:.4g}".format
        )


def forecast(suite: Suite, *, workers: int = 1, storage: str | Path | None = None) -> Forecast:
    """Return what a suite can detect by its first metric, and what is left to train. Nothing is trained or written.

    Args:
        workers: processes that share the training.
        storage: where the queue is kept; `optuna.db` in the workspace unless given.
    """
    ablation, plan = suite.ablation, suite.plan
    metric, arms = ablation.metrics[0], len(ablation.arms) - 1
    n_seeds, n_folds = len(tuple(ablation.seeds)), len(plan.folds)
    per_fold, in_all = _units(suite)
    units = round(min(n_folds * per_fold, in_all))
    pilot = find_pilot(suite, metric, units, storage)
    look, alpha = _next_look(suite, pilot.sources.standard_error if pilot else lambda *grid: 1.0, per_fold)
    per_epoch, words = seconds_per_epoch(suite)
    epochs = {arm: fmean(p.experiment.training.epochs for p in plan.cells if p.arm == arm) for arm in ablation.arms}
    of_each_arm = sum(epochs[arm] * per_epoch.get(arm, nan) for arm in ablation.arms)

    def grid(seeds: int, folds: int) -> GridForecast:
        measured = round(min(folds * per_fold, in_all))
        found = pilot.sources.detectable(seeds, folds, measured, alpha=alpha / arms) if pilot else nan
        return GridForecast(seeds, folds, len(ablation.arms) * seeds * folds, found, seeds * folds * of_each_arm)

    each = [one.detectable(n_seeds, n_folds, units, alpha=alpha / arms) for one in pilot.each] if pilot else [nan]
    wide, n_wide = _wide(suite, pilot, n_seeds, n_folds, alpha / arms)
    return Forecast(
        name=ablation.name,
        metric=metric,
        arms=arms,
        alpha=alpha,
        look=look,
        size=grid_text(arms=len(ablation.arms), seeds=n_seeds, folds=n_folds),
        pilot=pilot,
        declared=grid(n_seeds, n_folds),
        smallest=min(each),
        largest=max(each),
        wide=wide,
        n_wide=n_wide,
        grids=tuple(grid(s, k) for s in sorted({*SEEDS, n_seeds}) for k in _fold_counts(suite)),
        cost=cost_of(suite, per_epoch, words),
        workers=workers,
    )


def _next_look(suite: Suite, error_of: Callable[[int, int, int], float], per_fold: float) -> tuple[int, float]:
    """Return the number of the next look at a suite, and its level: of a first look where there was none, of the last one where nothing
    is left to train.

    Args:
        error_of: the standard error of a grid of seeds, folds and clips. per_fold: clips of a fold.
    """
    begun = suite.storage is not None and suite.study in study_names(suite.storage, None)
    looks = read_looks(load_study(suite.study, suite.storage).user_attrs).looks if begun and suite.storage else ()
    if not looks:
        return 1, spend(ALPHA, [1.0])
    information, last = [look.information for look in looks], looks[-1]
    if last.runs < len(suite.plan.cells):
        n_seeds, n_folds = len(tuple(suite.ablation.seeds)), len(suite.plan.folds)
        now = error_of(n_seeds, n_folds, round(n_folds * per_fold))
        then = error_of(len(last.seeds), len(last.folds), round(len(last.folds) * per_fold))
        information.append(last.information * (then / now) ** 2)
    return len(information), spend(ALPHA, information)


def _units(suite: Suite) -> tuple[float, int]:
    """Return how many clips, or groups of clips, a fold validates on, the mean over folds, and how many the corpus has."""
    ablation, corpus = suite.ablation, suite.corpus
    seed = next(iter(ablation.seeds))
    splits = [ablation.experiment(ablation.reference, seed, fold).data.assign(corpus) for fold in suite.plan.folds]
    sizes = [len(set(corpus.resampling_groups(split.validation))) for split in splits]
    return fmean(sizes), len(set(corpus.resampling_groups(range(len(corpus)))))


def _fold_counts(suite: Suite) -> list[int]:
    """Return the numbers of folds to show: few, those declared, and all that the split has."""
    declared = len(suite.plan.folds)
    if suite.ablation.fold_key is None:
        return [1]
    every = len(suite.ablation.base.data.split.folds(suite.corpus)) or declared
    return sorted({declared, every, *(n for n in FEW_FOLDS if n < every)})


def _wide(suite: Suite, pilot: Pilot | None, n_seeds: int, n_folds: int, alpha: float) -> tuple[float, int]:
    """Return what the wider test detects, for the comparisons of a pilot that it has to judge, the mean; and how many they are."""
    falling_back = [c for c in (pilot.comparisons if pilot else ()) if c.why_wide and c.components is not None]
    found = [
        detectable_widely(c.components, n_seeds, n_folds, suite.plan.test_to_train, alpha)
        for c in falling_back
        if c.components is not None
    ]
    return (fmean(found) if found else nan), len(falling_back)


def detectable_widely(components: Any, n_seeds: int, n_folds: int, test_to_train: float, alpha: float) -> float:
    """Return the smallest difference that the corrected resampled t test finds with a power of 80 %; NaN where it finds none."""

    def missing(difference: float) -> float:
        return float(power(difference, components, n_seeds, n_folds, test_to_train, alpha)) - TARGET

    scale = float(np.sqrt(components.fold + components.seed + components.residual))
    if not scale > 0 or missing(1000 * scale) < 0:
        return nan
    return float(scipy.optimize.brentq(missing, 0.0, 1000 * scale))
