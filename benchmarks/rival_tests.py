"""Tests that `sources.py` was chosen from: `false_verdicts.py --choose` compares them. Each returns p of many suites at once.

hierarchical bootstrap: seeds, and units within each fold, drawn with replacement; percentile interval (Davison & Hinkley 1997, 3.8).
sign flips: of every unit's difference, averaged over seeds (Fisher's randomisation test): the sampling of clips alone.
components: the sampling of clips, and folds and seeds in excess of it, each with its own degrees of freedom; never falls back.
mixed model: the same variances by restricted maximum likelihood on a grid, normal quantiles, as mixed models are commonly used.
pooled at 0.25: clips alone unless folds or seeds vary significantly at 0.25, then the wide test (Bancroft 1944).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from simulated_suites import Setting

from audio_cls.metrics.clip_differences import ClipSpread, clip_spread
from audio_cls.metrics.crossed import MeanEstimate, estimate_mean
from audio_cls.metrics.sources import estimate_sources

Array = NDArray[np.float64]
RESAMPLES = 400


def _parts(setting: Setting, d: Array, influence: Array) -> tuple[MeanEstimate, ClipSpread]:
    return estimate_mean(setting.cells, d, 1 / (setting.folds - 1)), clip_spread(influence, setting.cells)


def _p(mean: Array, variance: Array, df: Any) -> Array:
    p: Array = 2 * stats.t.sf(np.abs(mean) / np.sqrt(variance), df)
    return p


def _never(d: Array) -> NDArray[np.bool_]:
    return np.zeros(len(d), bool)


def hierarchical_bootstrap(setting: Setting, d: Array, influence: Array) -> tuple[Array, NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    n, shape = len(d), (len(d), setting.seeds, setting.folds, -1)
    by_cell = influence.reshape(shape)
    p = np.empty(n)
    for i in range(n):
        drawn = np.zeros(RESAMPLES)
        seeds = rng.multinomial(setting.seeds, np.full(setting.seeds, 1 / setting.seeds), RESAMPLES) / setting.seeds
        cells = d[i].reshape(setting.seeds, setting.folds)
        for k in range(setting.folds):
            own = by_cell[i, :, k]
            own = own[:, (own != 0).any(axis=0)]
            units = rng.multinomial(own.shape[1], np.full(own.shape[1], 1 / own.shape[1]), RESAMPLES)
            drawn += ((cells[:, k] + units @ own.T) * seeds).sum(axis=1) / setting.folds
        below = ((drawn < 0).sum() + 0.5 * (drawn == 0).sum()) / RESAMPLES
        p[i] = 2 * min(below, 1 - below)
    return p, _never(d)


def sign_flips(setting: Setting, d: Array, influence: Array) -> tuple[Array, NDArray[np.bool_]]:
    rng, mean = np.random.default_rng(0), d.mean(axis=1)
    by_unit = influence.mean(axis=1)
    by_unit = by_unit + mean[:, None] / by_unit.shape[1]  # the units' own differences, whose sum is the mean
    p = np.empty(len(d))
    for i, own in enumerate(by_unit):
        flipped = np.where(rng.random((RESAMPLES, len(own)), np.float32) < 0.5, -1.0, 1.0) @ own
        p[i] = (1 + (np.abs(flipped) >= abs(own.sum()) - 1e-12).sum()) / (RESAMPLES + 1)
    return p, _never(d)


def components(setting: Setting, d: Array, influence: Array) -> tuple[Array, NDArray[np.bool_]]:
    figures, spread = _parts(setting, d, influence)
    folds = np.maximum(figures.between - spread.fold, 0.0) / setting.folds
    variance = spread.mean + folds + figures.of_seeds
    wobble = spread.mean**2 / spread.df + folds**2 / (setting.folds - 1)
    wobble = wobble + figures.of_seeds**2 / max(setting.seeds - 1, 1)
    return _p(figures.mean, variance, variance**2 / wobble), _never(d)


def pooled(setting: Setting, d: Array, influence: Array) -> tuple[Array, NDArray[np.bool_]]:
    figures, spread = _parts(setting, d, influence)
    e = estimate_sources(setting.cells, figures, spread)
    wide = (e.training_set_p < 0.25) | (e.seed_p < 0.25)
    clips = _p(figures.mean, spread.mean + e.run / (setting.seeds * setting.folds), spread.df)
    return np.where(wide, _p(figures.mean, figures.variance, figures.df), clips), wide


def mixed_model(setting: Setting, d: Array, influence: Array) -> tuple[Array, NDArray[np.bool_]]:
    figures, spread = _parts(setting, d, influence)
    seeds, folds = setting.seeds, setting.folds
    best, variance = np.full(len(d), -np.inf), np.zeros(len(d))
    ratios = np.r_[0.0, np.geomspace(0.05, 20, 12)]
    for run in ratios:
        of_run = spread.run * (1 + run)
        for fold in ratios:
            of_fold = spread.fold * (1 + fold) + spread.run * run / seeds
            for seed in ratios:
                of_seed = of_run * (1 + seed)
                fit = _log_density(figures.between, of_fold, folds - 1)
                fit = fit + _log_density(figures.residual, of_run, (seeds - 1) * (folds - 1))
                fit = fit + _log_density(figures.seed_square, of_seed, seeds - 1)
                here = of_fold / folds + (of_seed - of_run) / (seeds * folds)
                variance = np.where(fit > best, here, variance)
                best = np.maximum(best, fit)
    return _p(figures.mean, variance, np.inf), _never(d)


def _log_density(square: Array, expected: Array, df: int) -> Array:
    return -0.5 * df * (np.log(expected) + square / expected)


RIVALS = {
    "sign flips": sign_flips,
    "bootstrap": hierarchical_bootstrap,
    "mixed model": mixed_model,
    "components": components,
    "pooled at 0.25": pooled,
}
