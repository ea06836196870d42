"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from audio_cls.tracking import State

__all__ = ["Outcome", "State"]


@dataclass
class Outcome:
    """How a run ended. `value` is the chosen metric at its best epoch; None unless the run is COMPLETE or PRUNED.

    `reason` is `kind: details` (`oom: ...`, `diverged: ...`). `metrics` are the validation metrics of the best epoch, `last` those
    of the last one (chosen by nobody). `attrs` is what else is kept with a trial.
    """

    state: State
    value: float | None = None
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
