"""Whether a complete run has collapsed: its loss has risen by orders of magnitude, or its predictions are constant.

Its figures are numbers, and stand; but they say nothing of what was compared, so they are marked wherever they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from audio_cls.metrics.collapse import constant_scores
from audio_cls.training.divergence import risen_loss
from audio_cls.training.loop import Fit

__all__ = ["COLLAPSED", "find_collapse", "tell_collapse"]

COLLAPSED = "collapsed"
"""Tag of a run in MLflow: why it has collapsed. Other runs have none."""


def find_collapse(result: Fit) -> dict[str, str]:
    """Return why the weights of the best and of the last epoch of a finished fit have collapsed, by "best" and "last"; only those
    that have. A run may collapse after its best epoch.
    """
    epochs = {"best": result.best_epoch, "last": len(result.history) - 1}
    predictions = {"best": result.predictions, "last": result.last_predictions}
    found = {}
    for which, epoch in epochs.items():
        made = predictions[which]
        constant = constant_scores(made.scores, made.classes) if made else ""
        reasons = [reason for reason in (constant, risen_loss(result.history, epoch)) if reason]
        if reasons:
            found[which] = "; ".join(reasons)
    return found


def tell_collapse(collapsed: Mapping[str, str]) -> str:
    """Return in a sentence what `find_collapse` found; empty for nothing."""
    if not collapsed:
        return ""
    reasons = set(collapsed.values())
    if len(reasons) == 1 and len(collapsed) == 2:
        return f"Collapsed: {reasons.pop()}."
    return " ".join(f"Collapsed at the {which} epoch: {reason}." for which, reason in collapsed.items())
