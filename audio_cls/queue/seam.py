"""Between a queue and what it runs: an objective takes a `TrialContext`, returns an `Outcome`, and knows no Optuna."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audio_cls.core.config import Component
from audio_cls.queue.record import TrialRecord, attributes
from audio_cls.runs.outcome import Outcome

__all__ = ["Objective", "Outcome", "TrialContext"]


@dataclass(frozen=True)
class TrialContext:
    """One attempt at one configuration.

    A configuration that is interrupted or revived continues as a new trial: `number` is the trial's own, `root` that of the
    first attempt, `lineage` the earlier attempts, newest first. An objective writes its checkpoints under (root, number) and
    reads the newest one along (number, *lineage), so that a stalled worker never overwrites its successor's files.

    What the objective owes:

    - after each epoch, in this order: a durable checkpoint, then its own records (if still `is_mine()`), then
      `report(epoch, value)`, then `should_stop()`;
    - when it resumes a checkpoint: `report` every epoch in it (those already told are skipped) and ask `should_stop()`
      before training on, since its predecessor may have died between any two of these steps.
    """

    study: str
    number: int
    root: int
    config_index: int
    params: Mapping[str, Any]
    overrides: Mapping[str, Any]
    experiment: Component
    attempt: int  # 0 for the first
    lineage: tuple[int, ...]
    revived: bool  # resumed after pruning: never pruned again
    report: Callable[[int, float], None]
    should_stop: Callable[[], str | None]  # "pruned: ...", "interrupted: ..." or "lease lost"; None to continue
    attrs: Mapping[str, Any]  # what earlier attempts and this one have set, e.g. the id of the tracked run
    set_attr: Callable[[str, Any], None]  # durable at once, and handed on to later attempts
    leave_now: Callable[[], str | None] = lambda: (
        None
    )  # asked at each step: a reason to leave without finishing the epoch
    is_mine: Callable[[], bool] = lambda: (
        True
    )  # asked before anything is recorded that a successor may have recorded by now

    @property
    def record(self) -> TrialRecord:
        """What the trial carries by now."""
        return TrialRecord.of(self.attrs)

    def note(self, **values: Any) -> None:
        """Write attributes of the trial's record; durable at once, and handed on to later attempts."""
        for key, value in attributes(**values).items():
            self.set_attr(key, value)


Objective = Callable[[TrialContext], Outcome]
