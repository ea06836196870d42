"""The mean of figures from a grid of seeds x folds, with a variance that accounts for the dependence between runs.

The runs of one fold share test clips and training clips, the runs of one seed share initial weights and order, and the
training sets of two folds overlap. A t test over all seeds x folds ignores these
correlations and rejects too often.

The model is y[s, k] = mean + fold[k] + seed[s] + residual[s, k] with variances f, g, e, estimated by the analysis of
variance (Searle, Casella & McCulloch 1992, Variance Components: fitting constants, Henderson's method III, so that grids
may have holes). With K folds, S seeds, r = n_test / n_train and v the variance of the folds' means,

    variance of the mean = v/K + r max(f, v/2) + g/S

v/K holds the folds' own share and the residuals. The second term is the correction of Nadeau & Bengio 2003 ("Inference for
the Generalization Error", corrected resampled t test): overlapping training sets correlate the figures of different
folds, so that their mean varies more than their spread shows. They correct the whole of v. Where several seeds let us tell
what depends on the split (f) from what depends on initialisation and order, only f needs it; but K - 1 degrees of freedom
know f poorly, so at least half of v counts. The third term is the effect of a seed that all folds share, which v does not show.
The degrees of freedom combine K - 1 and, for g, S - 1 as Satterthwaite does, and never exceed K - 1.

Bouckaert & Frank 2004 correct the variance of all runs and take S K - 1 degrees of freedom; that presumes that each repeat
draws new folds. Here the folds stay the same, and more seeds would only seem to add evidence: 10 seeds x 5 folds of arms that differ by fold
are declared different in up to 20 % of cases. `benchmarks/false_verdicts.py` compares the tests on simulated suites. What
no test sees is what one data set makes common to all its folds beyond r: there is no unbiased estimate of the variance of
a single cross-validation (Bengio & Grandvalet 2004).

With one seed, f cannot be distinguished from e, and it is the plain Nadeau-Bengio test over folds (conservative when the arms
differ by seed noise only). With one fold it is the t test over seeds and speaks of that split alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

__all__ = ["MAX_SEEDS", "Components", "MeanEstimate", "combine_variances", "estimate_mean", "power", "seeds_needed"]

Array = NDArray[np.float64]
Cell = tuple[int, int]

LEAST_FOLD_SHARE = 0.5
"""Of the variance of the folds' means, what the correction for overlap takes to depend on the split at the least. At 0 up to
7 % of equal arms are declared different when folds matter, at 1 only 1 % when they do not (nominal 5 %)."""

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
    distribution. fold, seed, residual: estimated variances, not below 0. between: variance of the folds' means, NaN with one.
    of_seeds: what seeds add to `variance`. seed_square: mean square of seeds, which is `residual` on average where seeds have
    no effect of their own; NaN where not separated. df_residual: degrees of freedom of `residual`.
    """

    mean: Array
    variance: Array
    df: Array
    fold: Array
    seed: Array
    residual: Array
    separated: bool
    method: str
    between: Array
    of_seeds: Array
    seed_square: Array
    df_residual: int

    @property
    def components(self) -> Components:
        """The components of a single grid."""
        return Components(float(self.fold), float(self.seed), float(self.residual), self.separated)


def estimate_mean(cells: Sequence[Cell], values: NDArray[Any], test_to_train: float) -> MeanEstimate:
    """Return the mean and its variance by the module's model.

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
        unknown = zero + np.nan
        return MeanEstimate(
            y.mean(axis=-1),
            spread / n,
            zero + (n - 1),
            zero,
            zero,
            spread,
            n > 1,
            method,
            unknown,
            zero,
            unknown,
            n - 1,
        )

    by_fold, by_seed = np.eye(n_folds)[fold_of], np.eye(n_seeds)[seed_of]  # (n, n_folds), (n, n_seeds)
    fold_means = y @ (by_fold / by_fold.sum(axis=0))
    mean, between = fold_means.mean(axis=-1), fold_means.var(axis=-1, ddof=1)
    both = np.hstack([by_fold, by_seed])
    df_residual = n - (n_folds + n_seeds - 1)
    if n_seeds == 1 or df_residual < 1 or np.linalg.matrix_rank(both) < n_folds + n_seeds - 1:
        method = "corrected resampled t over folds (seeds averaged)"
        variance = between * (1 / n_folds + test_to_train)
        residual = y.var(axis=-1, ddof=1)
        return MeanEstimate(
            mean,
            variance,
            zero + (n_folds - 1),
            zero,
            zero,
            residual,
            False,
            method,
            between,
            zero,
            zero + np.nan,
            n - 1,
        )

    y = y - y.mean(axis=-1, keepdims=True)  # sums of squares keep their digits when the mean is large
    fitted = _explained(y, both)
    residual = np.maximum((y**2).sum(axis=-1) - fitted, 0.0) / df_residual
    fold_square = (fitted - _explained(y, by_seed)) / (n_folds - 1)
    seed_square = (fitted - _explained(y, by_fold)) / (n_seeds - 1)
    fold = np.maximum(fold_square - residual, 0.0) * (n_folds - 1) / (n - n_seeds)
    seed = np.maximum(seed_square - residual, 0.0) * (n_seeds - 1) / (n - n_folds)
    weight = 1 / (n_folds * by_fold.sum(axis=0)[fold_of])  # of each run in the mean
    of_seeds = seed * ((by_seed.T @ weight) ** 2).sum()
    variance, df = combine_variances(between, fold, of_seeds, n_folds, n_seeds, test_to_train)
    method = "corrected resampled t over folds x seeds (variance components)"
    return MeanEstimate(
        mean, variance, df, fold, seed, residual, True, method, between, of_seeds, seed_square, df_residual
    )


def power(
    difference: float,
    components: Components,
    n_seeds: NDArray[Any] | int,
    n_folds: int,
    test_to_train: float,
    alpha: float = 0.05,
) -> Array:
    """Return the chance that a true mean of `difference` is found with complete grids of `n_seeds` x `n_folds` runs.

    Two-sided, by the noncentral t, which is exact for one fold; for several, the components are taken as known and the
    combined degrees of freedom as exact (with 2 or 3 seeds that is up to 0.1 too hopeful).
    """
    seeds = np.asarray(n_seeds, dtype=np.float64)
    f, g, e = components.fold, components.seed, components.residual
    if n_folds == 1:
        variance, df = (g + e) / seeds, seeds - 1
    else:
        between = f + e / seeds
        seen = np.where(seeds > 1, f, between)
        of_seeds = np.where(seeds > 1, g / seeds, 0.0)
        variance, df = combine_variances(between, seen, of_seeds, n_folds, np.maximum(seeds, 2), test_to_train)
    found = np.zeros(seeds.shape)
    known = df > 0
    shift = abs(difference) / np.sqrt(np.broadcast_to(variance, seeds.shape)[known])
    critical = scipy.stats.t.isf(alpha / 2, df[known])
    tail = scipy.stats.nct.sf(critical, df[known], shift) + scipy.stats.nct.cdf(-critical, df[known], shift)
    found[known] = np.where(
        np.isfinite(tail), tail, scipy.stats.norm.sf(critical - shift)
    )  # far out the series gives up
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
    """Return the fewest seeds (from `at_least` on) whose grid finds `difference` with the power `target`.

    None when even `MAX_SEEDS` would not do: more seeds shrink g/S and what e adds to v, but never f (1/K + r).
    """
    seeds = np.arange(max(at_least, 1), MAX_SEEDS + 1)
    enough = np.flatnonzero(power(difference, components, seeds, n_folds, test_to_train, alpha) >= target)
    return int(seeds[enough[0]]) if len(enough) else None


def _indices(values: list[int]) -> tuple[NDArray[np.int64], int]:
    distinct, index = np.unique(values, return_inverse=True)
    return index, len(distinct)


def combine_variances(
    between: Array, fold: Array, of_seeds: Array, n_folds: int, n_seeds: NDArray[Any] | int, test_to_train: float
) -> tuple[Array, Array]:
    """Return the variance of the mean and its degrees of freedom, by the formula at the head of the module."""
    of_folds = between / n_folds + test_to_train * np.maximum(fold, LEAST_FOLD_SHARE * between)
    variance = of_folds + of_seeds
    wobble = of_folds**2 / (n_folds - 1) + of_seeds**2 / (np.asarray(n_seeds) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(wobble > 0, np.minimum(variance**2 / wobble, n_folds - 1), n_folds - 1)
    return variance, df


def _explained(y: Array, design: Array) -> Array:
    """Return the sum of squares of `y` (..., n) that the columns of `design` (n, p) explain."""
    u, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = u[:, singular > 1e-9 * singular[0]]
    explained: Array = ((y @ basis) ** 2).sum(axis=-1)
    return explained
