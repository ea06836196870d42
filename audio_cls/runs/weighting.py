"""Warn of settings that weigh classes twice: class weights, sampling by class, and a bias that starts at the class priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from audio_cls.components.losses import class_weights
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment

__all__ = ["ClassShare", "class_shares", "weighting_warning"]

EPOCHS = 4  # over which the clips that a sampling shows are counted
MOST_ROWS = 12  # of the table; of more classes those whose share changes most


@dataclass(frozen=True)
class ClassShare:
    """One class: its share of the training labels, and its share of the loss (the positive terms of a loss by label)."""

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
    clips, loss = counts / max(counts.sum(), 1.0), weighed / max(float(weighed.sum()), 1e-12)
    return [ClassShare(*row) for row in zip(corpus.classes, clips.tolist(), loss.tolist(), strict=True)]


def weighting_warning(experiment: Experiment, corpus: Corpus) -> str:
    """Return a warning with a table of `class_shares`, where two settings of an experiment weigh its classes; else ""."""
    loss = experiment.loss
    weights, prior = getattr(loss, "class_weights", "none"), getattr(loss, "prior_bias", False)
    by_class = [f"loss.class_weights={weights}"] if weights != "none" else []
    if experiment.sampling.kind in ("balanced", "repeat_factor"):
        by_class.append(f"sampling.kind={experiment.sampling.kind}")
    if len(by_class) + prior < 2:
        return ""
    lines = []
    if len(by_class) == 2:
        lines.append(f"{' and '.join(by_class)} both raise rare classes. One of them is usually meant")
    if prior:
        lines.append(
            f"loss.prior_bias=true starts at the share of the clips, and {' and '.join(by_class)} trains towards the share of the loss"
        )
    shares = class_shares(experiment, corpus)
    shown = shares
    if len(shares) > MOST_ROWS:
        ratio = sorted(shares, key=lambda s: s.loss / max(s.clips, 1e-12))
        shown = [*ratio[-MOST_ROWS // 2 :][::-1], *ratio[: MOST_ROWS // 2]]
    width = max(5, *(len(share.name) for share in shown))
    table = [f"{'class':<{width}}  of the clips  of the loss"]
    table += [f"{share.name:<{width}}  {share.clips:>12.1%}  {share.loss:>11.1%}" for share in shown]
    if len(shown) < len(shares):
        table.append(f"(the {len(shown)} of {len(shares)} classes whose share changes most)")
    return "warning: " + "; ".join(lines) + "\n  " + "\n  ".join(table)
