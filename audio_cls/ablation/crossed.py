"""The mean of figures from a grid of seeds x folds, with a variance that does not pretend the runs are independent.

The runs of one fold share test clips and training clips, the runs of one seed share initial weights and order, and the
training sets of two folds overlap. A t test over all seeds x folds ignores the three and cries wolf: with 3 seeds x 5
folds it finds a false difference in 15 to 40 % of comparisons instead of 5 % (`benchmarks/false_verdicts.py`).

The model is y[s, k] = mean + fold[k] + seed[s] + residual[s, k] with variances f, g, e, estimated by the analysis of
variance (Searle, Casella & McCulloch 1992, Variance Components: fitting constants, Henderson's method III, so that grids
with holes are welcome). Then, with K folds, S seeds and r = n_test / n_train,

    variance of the mean = f (1/K + r) + g/S + e/(S K)

Nadeau & Bengio 2003 ("Inference for the Generalization Error", corrected resampled t test) replace 1/K by 1/K + r because overlapping
training sets correlate the figures of different folds. The correction is for what depends on the split. Where several
seeds let us tell that from what depends on initialisation and order alone, it is applied to the former only. Bouckaert
& Frank 2004 apply it to all runs at once with S K - 1 degrees of freedom; that presumes that each repeat draws new
folds. Here the folds stay, and more seeds would feign more evidence than there is. The degrees of freedom
follow Satterthwaite, never more than K - 1.

With one seed the parts cannot be told apart, and it is the plain Nadeau-Bengio test over folds (conservative when the
arms differ by seed noise only). With one fold it is the t test over seeds and speaks of that split alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["MAX_SEEDS", "Components", "MeanEstimate", "estimate_mean", "power", "seeds_needed"]

Array = NDArray[np.float64]
Cell = tuple[int, int]

MAX_SEEDS = 200
"""`seeds_needed` looks no further: who would need more needs other data."""


@dataclass(frozen=True)
class Components:
    """Variances, in squared units of the metric.

    fold: what the split changes (training clips, test clips). seed: what a seed changes alike in all folds.
    residual: the rest, new in each run. separated: False when there are too few runs to tell them apart; then
    all of it is called residual.
    """

    fold: float
    seed: float
    residual: float
    separated: bool


@dataclass(frozen=True, eq=False)
class MeanEstimate:
    """Means of one or many grids: each array has the leading shape of `values`.

    mean: of the folds' means. variance: of that mean; NaN for a single run. df: degrees of freedom of the t
    distribution. fold, seed, residual: estimated variances, not below 0.
    """

    mean: Array
    variance: Array
    df: Array
    fold: Array
    seed: Array
    residual: Array
    separated: bool
    method: str

    @property
    def components(self) -> Components:
        """The components of a single grid."""
        return Components(float(self.fold), float(self.seed), float(self.residual), self.separated)


def estimate_mean(cells: Sequence[Cell], values: NDArray[Any], test_to_train: float) -> MeanEstimate:
    """The mean and its variance by the module's model.

    Args:
        cells: n distinct (seed, fold).
        values: (..., n) finite figures in the order of `cells`; leading dimensions are grids of the same shape.
        test_to_train: n_test / n_train of one fold, 1 / (K - 1) for K-fold cross-validation.

    Raises:
        ValueError: for no cells, repeated cells, or values of another length.
    """
    y = np.asarray(values, dtype=np.float64)
    if len(set(cells)) != len(cells) or not cells or y.shape[-1] != len(cells):
        raise ValueError(f"need one value for each of the distinct cells, got {len(cells)} cells and shape {y.shape}")
    if not test_to_train >= 0:
        raise ValueError(f"test_to_train is n_test / n_train, got {test_to_train}")
    seed_of, n_seeds = _indices([s for s, _ in cells])
    fold_of, n_folds = _indices([k for _, k in cells])
    n = len(cells)
    zero = np.zeros(y.shape[:-1])
    if n_folds == 1:
        spread = y.var(axis=-1, ddof=1) if n > 1 else zero + np.nan
        method = "paired t over seeds, one split"
        return MeanEstimate(y.mean(axis=-1), spread / n, zero + (n - 1), zero, zero, spread, n > 1, method)

    by_fold, by_seed = np.eye(n_folds)[fold_of], np.eye(n_seeds)[seed_of]  # (n, n_folds), (n, n_seeds)
    fold_means = y @ (by_fold / by_fold.sum(axis=0))
    mean = fold_means.mean(axis=-1)
    classic = fold_means.var(axis=-1, ddof=1) * (1 / n_folds + test_to_train)
    both = np.hstack([by_fold, by_seed])
    df_residual = n - (n_folds + n_seeds - 1)
    if n_seeds == 1 or df_residual < 1 or np.linalg.matrix_rank(both) < n_folds + n_seeds - 1:
        method = "corrected resampled t over folds (seeds averaged)"
        spread = y.var(axis=-1, ddof=1)
        return MeanEstimate(mean, classic, zero + (n_folds - 1), zero, zero, spread, False, method)

    y = y - y.mean(axis=-1, keepdims=True)  # sums of squares keep their digits when the mean is large
    fitted = _explained(y, both)
    residual = ((y**2).sum(axis=-1) - fitted) / df_residual
    residual = np.maximum(residual, 0.0)  # rounding
    fold_square = np.maximum(fitted - _explained(y, by_seed), 0.0) / (n_folds - 1)
    seed_square = np.maximum(fitted - _explained(y, by_fold), 0.0) / (n_seeds - 1)
    fold_scale = (n_folds - 1) / (n - n_seeds)  # f = (mean square - residual) * scale
    seed_scale = (n_seeds - 1) / (n - n_folds)
    fold = np.maximum(fold_square - residual, 0.0) * fold_scale
    seed = np.maximum(seed_square - residual, 0.0) * seed_scale

    weight = 1 / (n_folds * by_fold.sum(axis=0)[fold_of])  # of each run in the mean
    # Where a component comes out negative, the overlap and the seed's share are left out, but not the fold's own
    # negative part: cutting that off too would make the test reject ten times too rarely when there is no fold effect.
    c_fold = fold_scale * (1 / n_folds + test_to_train * (fold > 0))
    c_seed = seed_scale * ((by_seed.T @ weight) ** 2).sum() * (seed > 0)
    c_residual = (weight**2).sum() - c_fold - c_seed
    of_fold, of_seed, rest = c_fold * fold_square, c_seed * seed_square, c_residual * residual
    variance = of_fold + of_seed + rest
    sure = (
        variance > 1e-3 * classic
    )  # a difference of mean squares can come out near or below 0 in grids with many holes
    with np.errstate(divide="ignore", invalid="ignore"):
        wobble = of_fold**2 / (n_folds - 1) + of_seed**2 / (n_seeds - 1) + rest**2 / df_residual
        df = np.clip(variance**2 / wobble, 1, n_folds - 1)
    return MeanEstimate(
        mean,
        np.where(sure, variance, classic),
        np.where(sure & np.isfinite(df), df, n_folds - 1.0),
        fold,
        seed,
        residual,
        True,
        "corrected resampled t over folds x seeds (variance components)",
    )


def power(
    difference: float,
    components: Components,
    n_seeds: NDArray[Any] | int,
    n_folds: int,
    test_to_train: float,
    alpha: float = 0.05,
) -> Array:
    """The chance that a true mean of `difference` is found with complete grids of `n_seeds` x `n_folds` runs.

    Two-sided; exact (noncentral t) but for Satterthwaite's degrees of freedom and for taking the components as known.
    """
    seeds = np.asarray(n_seeds, dtype=np.float64)
    f, g, e = components.fold, components.seed, components.residual
    r = test_to_train
    if n_folds == 1:
        variance, df = (g + e) / seeds, seeds - 1
    else:
        several = seeds > 1
        fold_square, seed_square = e + seeds * f, e + n_folds * g
        c_fold, c_seed = 1 / (seeds * n_folds) + (r / seeds) * (f > 0), (g > 0) / (seeds * n_folds)
        c_residual = 1 / (seeds * n_folds) - c_fold - c_seed
        parts = (c_fold * fold_square, c_seed * seed_square, c_residual * e)
        total = parts[0] + parts[1] + parts[2]
        variance = np.where(several, total, (f + e) * (1 / n_folds + r))
        dfs = (n_folds - 1, np.maximum(seeds - 1, 1), (n_folds - 1) * np.maximum(seeds - 1, 1))
        wobble = parts[0] ** 2 / dfs[0] + parts[1] ** 2 / dfs[1] + parts[2] ** 2 / dfs[2]
        df = np.where(several, np.clip(total**2 / wobble, 1, n_folds - 1), n_folds - 1)
    df = np.asarray(df, dtype=np.float64)
    found = np.zeros(seeds.shape)
    known = df > 0
    shift = abs(difference) / np.sqrt(np.broadcast_to(variance, seeds.shape)[known])
    critical = stats.t.isf(alpha / 2, df[known])
    tail = stats.nct.sf(critical, df[known], shift) + stats.nct.cdf(-critical, df[known], shift)
    found[known] = np.where(np.isfinite(tail), tail, stats.norm.sf(critical - shift))  # far out the series gives up
    return found


def seeds_needed(
    difference: float,
    components: Components,
    n_folds: int,
    test_to_train: float,
    *,
    at_least: int = 1,
    alpha: float = 0.05,
    target: float = 0.8,
) -> int | None:
    """The fewest seeds (from `at_least` on) whose grid finds `difference` with the power `target`.

    None when even `MAX_SEEDS` would not do: more seeds shrink g/S and e/(S K), but never f (1/K + r).
    """
    seeds = np.arange(max(at_least, 1), MAX_SEEDS + 1)
    enough = np.flatnonzero(power(difference, components, seeds, n_folds, test_to_train, alpha) >= target)
    return int(seeds[enough[0]]) if len(enough) else None


def _indices(values: list[int]) -> tuple[NDArray[np.int64], int]:
    distinct, index = np.unique(values, return_inverse=True)
    return index, len(distinct)


def _explained(y: Array, design: Array) -> Array:
    """The sum of squares of `y` (..., n) that the columns of `design` (n, p) explain."""
    u, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = u[:, singular > 1e-9 * singular[0]]
    explained: Array = ((y @ basis) ** 2).sum(axis=-1)
    return explained
