"""Which runs can be compared by their loss: those whose loss has the same settings.

`val/loss` is the loss that a run was trained on. Focal loss is smaller than cross entropy for the same predictions, and smoothed
targets cost more: such figures are measured with other rulers. Within one run, where the loss chooses the epoch, stops early or
drives a plateau schedule, there is one ruler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.experiment import Experiment
from audio_cls.metrics.base import plain_name

__all__ = ["COMPARABLE", "is_loss", "loss_remark", "other_losses"]

COMPARABLE = "val/nll (or val/brier), a proper score of the probabilities that every run records"
"""What to judge by instead, as messages say it."""


def is_loss(metric: str) -> bool:
    """Whether a metric, with or without a prefix, is the loss that was trained on."""
    return plain_name(metric) == "loss"


def other_losses(experiments: Mapping[str, Experiment]) -> dict[str, str]:
    """Return the settings in which the losses of experiments, by name, differ, with who has which value; empty for one loss.

    Settings that leave the loss's value alone (`Loss.value_settings`) do not count. The same function with different settings
    (focal loss with gamma 0, say) counts as different.
    """
    settings = {name: experiment.loss.value_settings() for name, experiment in experiments.items()}
    found: dict[str, str] = {}
    for key in dict.fromkeys(key for own in settings.values() for key in own):
        names: dict[str, list[str]] = {}
        for name, own in settings.items():
            names.setdefault(str(own.get(key, "absent")), []).append(name)
        if len(names) > 1:
            found[f"loss.{key}"] = ", ".join(f"{value} in {_listed(whose)}" for value, whose in names.items())
    return found


def loss_remark(metric: str, experiments: Mapping[str, Any]) -> str:
    """Return the sentence that says that runs were judged by different losses; empty if they were not.

    Studies of earlier versions were not refused.

    Args:
        experiments: as they were recorded, by the names of their runs; those that cannot be read here are left out.
    """
    if not is_loss(metric):
        return ""
    known = {}
    for name, stored in experiments.items():
        try:
            known[name] = Experiment.from_json(stored) if isinstance(stored, str) else Experiment.parse(stored)
        except UserError:
            continue
    found = other_losses(known)
    return (
        f"Not comparable: the runs differ in {', '.join(found)}, and {metric} is each one's own loss." if found else ""
    )


def _listed(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
