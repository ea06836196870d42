"""Distinguish failures of a run from failures of its surroundings, and wait for disk space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from audio_cls.core.disk import save_patiently
from audio_cls.core.stopping import Abandoned
from audio_cls.training.checkpoint import Checkpoint, CheckpointStore

if TYPE_CHECKING:
    from audio_cls.runs.objective import Record

__all__ = ["Caller", "CallerFailed", "PatientStore", "TakenOver", "out_of_memory"]


class CallerFailed(Exception):
    """A callback of whoever runs the experiment failed (its database, say): no fault of the run."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class TakenOver(Exception):
    """Another process continues with the run."""


class Caller:
    """The caller's functions, their failures distinguished from those of the run."""

    def __init__(
        self,
        report: Callable[[int, float], None] | None,
        should_stop: Callable[[], str | None] | None,
        leave_now: Callable[[], str | None] | None,
        is_mine: Callable[[], bool] | None,
        record: Record,
    ) -> None:
        self.report = _passing(report)
        self._ask = _passing(should_stop)
        self._leave_now = _passing(leave_now)
        self._is_mine = _passing(is_mine)
        self.record = replace(record, on_run_id=_passing(record.on_run_id), on_facts=_passing(record.on_facts))

    def is_mine(self) -> bool:
        return self._is_mine is None or bool(self._is_mine())

    def check_mine(self) -> None:
        """Before anything is recorded.

        Raises:
            TakenOver: when the run was given to another process while this one was stopped: what it records now is that one's.
        """
        if not self.is_mine():
            raise TakenOver("lease lost")

    def should_stop(self) -> str | None:
        return self._ask() if self._ask else None

    def on_step(self, step: int, epoch: int) -> None:
        reason = self._leave_now() if self._leave_now else None
        if reason:
            raise Abandoned(reason)


def _passing(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    if function is None:
        return None

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            raise CallerFailed(error) from error

    return call


class PatientStore(CheckpointStore):
    """A run's checkpoints, for which it waits while the disk is full."""

    def __init__(self, store: CheckpointStore, seconds: float, ask: Callable[[], str | None]) -> None:
        super().__init__(store.folder, store.previous, store.renamed)
        self._seconds, self._ask = seconds, ask

    def save(self, last: Checkpoint, best: Checkpoint | None) -> None:
        save = super().save
        save_patiently(lambda: save(last, best), self._seconds, lambda: self._ask() is not None)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory, the device's or the host's; PyTorch's allocator for the CPU raises RuntimeError."""
    text = str(error).lower()
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "out of memory" in text
        or "can't allocate memory" in text
        or "not enough memory" in text
    )
