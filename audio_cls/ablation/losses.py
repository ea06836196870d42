"""Arms that change the loss cannot be judged by `val/loss`: refused before training; said of suites of earlier versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from audio_cls.ablation.declaration import Ablation
from audio_cls.core.errors import UserError
from audio_cls.runs.loss_settings import COMPARABLE, is_loss, other_losses

if TYPE_CHECKING:
    from audio_cls.ablation.stored import SuiteState

__all__ = ["check_losses", "follows_own_loss", "loss_caveat"]


def check_losses(ablation: Ablation, before: SuiteState | None) -> None:
    """Refuse a suite that is judged by the loss while its arms change it.

    One that was started so `before` (by an earlier version) continues; its figures say what they are.

    Raises:
        UserError: naming the settings and the metric to judge by.
    """
    judged = [metric for metric in ablation.metrics if is_loss(metric)]
    if not judged:
        return
    if before is not None and _other_losses(ablation, [arm for arm in before.identity["arms"] if arm in ablation.arms]):
        return
    if found := _other_losses(ablation, ablation.arms):
        settings = "; ".join(f"{key}: {whose}" for key, whose in found.items())
        raise UserError(
            f"ablation {ablation.name!r}: metric={judged[0]!r} is each arm's own loss, and the arms change it ({settings}): they would "
            f"be measured with different rulers. Judge by {COMPARABLE}"
        )


def loss_caveat(ablation: Ablation, metric: str, arm: str) -> str:
    """Return why an arm cannot be compared with the reference by a metric: the settings of their losses; empty if it can."""
    if not is_loss(metric) or arm == ablation.reference:
        return ""
    found = _other_losses(ablation, [ablation.reference, arm])
    keys = ", ".join(found)
    return f"{metric} is each arm's own loss, and {arm} changes it ({keys}); judge by val/nll" if found else ""


def follows_own_loss(ablation: Ablation) -> str:
    """Say what else follows the loss in a suite whose arms change it: the schedule, or when training stops. The figures are compared by
    other metrics, so this is part of what an arm is, and no reason to refuse it. Empty where nothing does.
    """
    if not _other_losses(ablation, ablation.arms):
        return ""
    arms = [ablation.arm(arm) for arm in ablation.arms]
    parts = {
        "the plateau schedule": any(getattr(e.schedule, "monitor", "") in ("val/loss", "train/loss") for e in arms),
        "early stopping": any(is_loss(e.training.metric) and e.training.early_stopping for e in arms),
        "the choice of the best epoch": any(is_loss(e.training.metric) for e in arms),
    }
    return ", ".join(part for part, there in parts.items() if there)


def _other_losses(ablation: Ablation, arms: Iterable[str]) -> dict[str, str]:
    return other_losses({arm: ablation.arm(arm) for arm in arms})
