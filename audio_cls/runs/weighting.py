"""Warn of settings that weigh classes twice: class weights, sampling by class, logit adjustment, a bias that starts at the class priors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from audio_cls.components.losses import LogitAdjusted, class_weights
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment

__all__ = ["ClassShare", "class_shares", "draws_warning", "settings_that_weigh", "weighting_warning"]

EPOCHS = 4  # over which the clips that a sampling shows are counted
MOST_ROWS = 12  # of the table; of more classes those whose share changes most


@dataclass(frozen=True)
class ClassShare:
    """One class: its share of the training labels, and its share of the loss (the positive terms of a loss by label).

    With logit adjustment `loss` is the share that has the same effect: clips of a class in the share p that are adjusted by
    tau log p count as p^(1 - tau), so that tau = 1 alone makes all classes equal.
    """

    name: str
    clips: float
    loss: float


def class_shares(experiment: Experiment, corpus: Corpus) -> list[ClassShare]:
    """Return the shares of each class in the training labels and in the loss, where every clip is equally wrong.

    A class counts in the loss as often as the sampling shows it, times its weight. The experiment must have been resolved.
    """
    split = experiment.data.assign(corpus)
    targets = np.asarray(corpus.targets[split.train], dtype=np.float64)
    counts = targets.sum(axis=0)
    order = experiment.sampling.build(targets)
    shown = sum(targets[order(experiment.seed, epoch)].sum(axis=0) for epoch in range(EPOCHS))
    how, beta = getattr(experiment.loss, "class_weights", "none"), getattr(experiment.loss, "effective_beta", 0.999)
    weighed = shown * class_weights(torch.from_numpy(counts), how, beta).numpy()
    if isinstance(experiment.loss, LogitAdjusted):
        weighed = weighed * np.maximum(counts, 0.5) ** -experiment.loss.tau
    clips, loss = counts / max(counts.sum(), 1.0), weighed / max(float(weighed.sum()), 1e-12)
    return [ClassShare(*row) for row in zip(corpus.classes, clips.tolist(), loss.tolist(), strict=True)]


def settings_that_weigh(experiment: Experiment) -> tuple[list[str], bool]:
    """Return the settings that raise rare classes, as KEY=VALUE, and whether the output bias starts at the class priors."""
    loss, sampling = experiment.loss, experiment.sampling.kind
    weights = getattr(loss, "class_weights", "none")
    found = [f"loss.class_weights={weights}"] if weights != "none" else []
    if isinstance(loss, LogitAdjusted) and loss.tau > 0:
        found.append(f"loss.kind={loss.kind}")
    if sampling in ("balanced", "rarest_label", "repeat_factor"):
        found.append(f"sampling.kind={sampling}")
    return found, bool(getattr(loss, "prior_bias", False))


def weighting_warning(experiment: Experiment, corpus: Corpus) -> str:
    """Return a warning with a table of `class_shares`, where two settings of an experiment weigh its classes; else ""."""
    by_class, prior = settings_that_weigh(experiment)
    if len(by_class) + prior < 2:
        return ""
    lines = []
    if len(by_class) > 1:
        lines.append(f"{' and '.join(by_class)} both raise rare classes. One of them is usually meant")
    if prior:
        lines.append(
            f"loss.prior_bias=true starts at the share of the clips, and {' and '.join(by_class)} trains towards the share of the loss"
        )
    return "warning: " + "; ".join(lines) + "\n  " + "\n  ".join(_table(class_shares(experiment, corpus)))


def draws_warning(experiments: Sequence[Experiment], base: Experiment) -> str:
    """Return a warning where experiments that were drawn from a search space weigh classes twice, and their base does not; else ""."""
    found, of_base = Counter[str](), settings_that_weigh(base)
    for experiment in experiments:
        by_class, prior = settings = settings_that_weigh(experiment)
        if len(by_class) + prior > 1 and settings != of_base:
            found[" with ".join([*by_class, *(["loss.prior_bias=true"] if prior else [])])] += 1
    if not found:
        return ""
    return (
        f"warning: {found.total()} of {len(experiments)} draws of this search space weigh classes twice ({', '.join(found)}). "
        "One of them is usually meant: let one choice of the space stand for the whole way to treat rare classes"
    )


def _table(shares: Sequence[ClassShare]) -> list[str]:
    shown = list(shares)
    if len(shares) > MOST_ROWS:
        ratio = sorted(shares, key=lambda s: s.loss / max(s.clips, 1e-12))
        shown = [*ratio[-MOST_ROWS // 2 :][::-1], *ratio[: MOST_ROWS // 2]]
    width = max(5, *(len(share.name) for share in shown))
    table = [f"{'class':<{width}}  of the clips  of the loss"]
    table += [f"{share.name:<{width}}  {share.clips:>12.1%}  {share.loss:>11.1%}" for share in shown]
    if len(shown) < len(shares):
        table.append(f"(the {len(shown)} of {len(shares)} classes whose share changes most)")
    return table
