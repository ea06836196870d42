"""The rules by which runs are trained, by version: a run, study or suite goes on by the rules with which it began.

A correction of the training code changes the results of some experiments. It raises `RULES`; checkpoints, studies and lists of
runs record the version that they began with, and the former behaviour stays available for them. Version 1 corrected:

- the moving average of the weights warms up (`training.ema_decay`);
- schedules count the steps that an epoch really has, and one-cycle ends on its last step, as PyTorch's does;
- features of augmented waveforms are those that the run would have packed: the same windows, in half precision;
- SpecAugment fills masks with the training mean also where features are not normalised;
- a batch that is trained in parts, for want of memory, has the gradient of the whole batch also where classes weigh differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audio_cls.experiment import Experiment

__all__ = [
    "ACCUMULATED",
    "CORRECTIONS",
    "FORMER",
    "RULES",
    "corrections",
    "fills_with_mean",
    "former_note",
    "uses_waveforms",
]

RULES = 1
"""The present version of the rules."""

FORMER = 0
"""The version of everything that records none."""

ACCUMULATED = "accumulate.loss"
"""Tag of a run whose batches were trained in parts: how the gradients of the parts were put together; absent by version 0."""

CORRECTIONS = "training.corrections"
"""Fact and tag of a run: the `corrections` that changed it; absent for none."""


def corrections(experiment: Experiment, n_train: int, rules: int = RULES) -> str:
    """Return what a version of the rules changes in a run, in words; empty where its result is that of version 0.

    Two runs of one experiment were trained alike where these texts are equal. The gradient of batches in parts is not among
    them, since only a lack of memory tells whether it matters.

    Args:
        experiment: resolved on its corpus.
        n_train: its training clips.
        rules: the version that it is trained by.
    """
    if rules == FORMER or experiment.model.closed_form:
        return ""
    changed = {
        "EMA warm-up": experiment.training.ema_decay is not None,
        "steps counted": _steps_differ(experiment, n_train),
        "one-cycle ends on the last step": experiment.schedule.kind == "one_cycle",
        "augmented windows as packed": uses_waveforms(experiment),
        "masks hold the mean": fills_with_mean(experiment),
    }
    return ", ".join(words for words, concerned in changed.items() if concerned)


def former_note(what: str, missing: str, anew: str) -> str:
    """Return the sentence that says of a run, study or suite that it goes on by former rules.

    Args:
        missing: the `corrections` that the present rules would make.
        anew: how it is begun by the present ones.
    """
    return f"{what} goes on by the training rules with which it began, without: {missing}. By the present ones: {anew}"


def uses_waveforms(experiment: Experiment) -> bool:
    """Whether waveforms are augmented before features are taken from them."""
    changes = any(op.stage.startswith("waveform") for op in experiment.augment.ops)
    return changes and experiment.features.output_domain != "waveform"


def fills_with_mean(experiment: Experiment) -> bool:
    """Whether masks must be told the training mean: features that are not normalised do not have it at 0."""
    masked = any(op.kind == "specaugment" and getattr(op, "fill", "") == "zero" for op in experiment.augment.ops)
    return masked and experiment.features.normalise == "none" and experiment.features.output_domain == "spectrogram"


def _steps_differ(experiment: Experiment, n_train: int) -> bool:
    """Whether an epoch may have other steps than clips divided by the batch size, where the schedule asks for it."""
    size, schedule = experiment.training.batch_size, experiment.schedule
    if schedule.kind == "constant" and schedule.warmup_epochs == 0:
        return False
    return experiment.sampling.kind not in ("uniform", "balanced") or (n_train > size and n_train % size == 1)
