"""Simulated suites of two arms that are equally good, clip by clip, for `false_verdicts.py`.

Accuracy: right and wrong answers from a logistic model in which clips differ in difficulty. Other metrics: scores of every class from
a normal model, scored by the real metric. Both know effects of groups, clip-by-arm interaction, training sets, seeds and runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio_cls.metrics.base import metric_of
from audio_cls.metrics.clip_differences import clip_differences
from audio_cls.metrics.predictions import Predictions

Array = NDArray[np.float64]

DIFFICULTY, LEVEL = 4.0, 3.7  # in logits: an accuracy of about 0.8, and two runs of an arm disagree on one clip in ten
POINTS_OF_A_LOGIT = 5.0  # what one logit more changes in accuracy, about


@dataclass(frozen=True)
class Setting:
    """A suite of two arms. clips: in all folds. group: clips of a recording, from and to.

    In points (standard deviations, of the difference of the arms): training_set, of what the folds do not share; source, of what
    they share; seed, alike in all folds; run. interaction: of clips with arms, in logits; 0 for identical arms.
    """

    name: str
    seeds: int = 3
    folds: int = 5
    clips: int = 400
    metric: str = "accuracy"
    classes: int = 10
    group: tuple[int, int] = (1, 1)
    interaction: float = 2.5
    training_set: float = 0.0
    source: float = 0.0
    seed: float = 0.0
    run: float = 1.0
    multilabel: bool = False

    @property
    def cells(self) -> list[tuple[int, int]]:
        return [(s, k) for s in range(self.seeds) for k in range(self.folds)]


def suites(setting: Setting, repeats: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Yield batches of simulated suites: differences (batch, n_cells) and influences (batch, n_cells, n_units)."""
    if setting.metric != "accuracy":
        for _ in range(repeats):
            yield scored_suite(setting, rng)
        return
    batch = max(1, int(6e6 / (setting.seeds * setting.folds * setting.clips)))
    for start in range(0, repeats, batch):
        yield answered_suites(setting, min(batch, repeats - start), rng)


def groups_of_fold(setting: Setting, n_clips: int) -> NDArray[np.int64]:
    """Return the group of each clip of a fold: sizes go up and down between the least and the most."""
    low, high = setting.group
    sizes = low + np.arange(n_clips) * 7 % (high - low + 1)
    return np.repeat(np.arange(n_clips), sizes)[:n_clips]


def answered_suites(setting: Setting, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Differences in accuracy, and the influence of each group on them."""
    seeds, folds = setting.seeds, setting.folds
    clips = setting.clips // folds
    group = groups_of_fold(setting, clips)
    n_groups = int(group[-1]) + 1

    def by_clip(sd: float, arms: int) -> Array:
        """Most of it shared by a group's clips: (n, arms, 1, folds, clips)."""
        shared = rng.normal(0, sd * np.sqrt(0.7), (n, arms, 1, folds, n_groups))[..., group]
        return shared + rng.normal(0, sd * np.sqrt(0.3), (n, arms, 1, folds, clips))

    def effect(points: float, *shape: int) -> Array:
        """Of the arms' difference, in points; each arm has 1 / sqrt(2) of it: (n, 2, ...)."""
        return rng.normal(0, points / POINTS_OF_A_LOGIT / np.sqrt(2), (n, 2, *shape, 1))

    logits = LEVEL + by_clip(DIFFICULTY, 1) + effect(setting.run, seeds, folds) + effect(setting.seed, seeds, 1)
    logits = logits + effect(setting.source, 1, 1)
    logits = logits + effect(setting.training_set, 1, folds)
    if setting.interaction:
        logits = logits + by_clip(setting.interaction, 2)
    right = rng.random(logits.shape, dtype=np.float32) < 1 / (1 + np.exp(-logits))
    d = right[:, 0].astype(np.float64) - right[:, 1]  # (n, seeds, folds, clips)
    figures = d.mean(axis=-1)
    member = np.eye(n_groups)[group]
    own = (d - figures[..., None]) @ member / clips * np.sqrt(n_groups / (n_groups - 1))
    influence = np.zeros((n, seeds, folds, folds, n_groups))
    for k in range(folds):
        influence[:, :, k, k] = own[:, :, k]
    return figures.reshape(n, -1), influence.reshape(n, seeds * folds, folds * n_groups)


def scored_suite(setting: Setting, rng: np.random.Generator) -> tuple[Array, Array]:
    """One suite by any metric, from scores of every class."""
    arms = predicted_arms(setting, 2, rng)
    found = clip_differences(arms[0], arms[1], setting.metric)
    metric = metric_of(setting.metric)
    figures = [
        [metric.compute(p.scores, p.targets > 0.5, p.called, p.task) for p in (arm[cell] for cell in setting.cells)]
        for arm in arms
    ]
    if found is None:
        raise ValueError(f"{setting.name}: a figure without influences")
    return np.array(figures[0])[None] - figures[1], found.influence[None]


def predicted_arms(setting: Setting, arms: int, rng: np.random.Generator) -> list[dict[tuple[int, int], Predictions]]:
    """Return the predictions of some arms, by cell."""
    clips, classes = setting.clips // setting.folds, setting.classes
    task = "multilabel" if setting.multilabel else "multiclass"
    group = groups_of_fold(setting, clips)
    names = tuple(map(str, range(classes)))
    out: list[dict[tuple[int, int], Predictions]] = [{} for _ in range(arms)]
    sharp = 0.04 / 2**0.5  # of the true class's score, for a point
    of_seed = rng.normal(0, setting.seed * sharp, (arms, setting.seeds))
    for k in range(setting.folds):
        targets = _labels(setting, group, rng)
        difficulty = rng.normal(size=(int(group[-1]) + 1, classes))[group] * 0.8 + rng.normal(size=targets.shape) * 0.6
        for a in range(arms):
            mean = difficulty + 0.5 * setting.interaction / 2.5 * rng.normal(size=targets.shape)
            trained = 2.2 + rng.normal(0, setting.training_set * sharp)
            for s in range(setting.seeds):
                true = trained + of_seed[a, s] + rng.normal(0, setting.run * sharp)
                scores = mean + true * targets + 0.4 * rng.normal(size=targets.shape)
                scores = 1 / (1 + np.exp(1.8 - scores)) if setting.multilabel else scores
                ids = tuple(f"{k}/{i}" for i in range(clips))
                own = tuple(f"{k}/{g}" for g in group)
                out[a][s, k] = Predictions(ids, scores, targets, names, task, groups=own)
    return out


def _labels(setting: Setting, group: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Return targets: one class for each group, common classes up to five times as often as rare ones; or several labels."""
    share = np.linspace(5, 1, setting.classes)
    if setting.multilabel:
        return (rng.random((len(group), setting.classes)) < 0.3 * share / 5).astype(np.float64)
    classes = rng.choice(setting.classes, int(group[-1]) + 1, p=share / share.sum())
    return np.eye(setting.classes)[classes[group]]
