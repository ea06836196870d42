"""What a running study shows: a bar where there is a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Any

from audio_cls.core.formatting import duration, printable
from audio_cls.queue.record import experiment_text
from audio_cls.queue.status import Row, StudyStatus
from audio_cls.queue.work import SEARCH

__all__ = ["Progress"]

LINE_SECONDS = 12.0


class Progress:
    """Told each status; prints each configuration that finished since, and how far the study is."""

    def __init__(self, console: Any = None, line_seconds: float = LINE_SECONDS) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=False, highlight=False)
        self._line_seconds = line_seconds
        self._seen: set[tuple[int, str]] | None = None
        self._line_due = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.fields[name]}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("study", total=None, name="", note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(printable(text), markup=False, soft_wrap=True)

    def update(self, status: StudyStatus, phases: str = "") -> None:
        """Show a status; `phases` is what the workers are doing besides training."""
        ended = {
            (r.number, r.state): r
            for r in status.rows
            if r.state in ("COMPLETE", "PRUNED", "FAILED") and r.config is not None
        }
        if self._seen is not None:
            for key in sorted(ended.keys() - self._seen):
                self.say(_line(ended[key], status))
        self._seen = set(ended)
        note = ", ".join(part for part in (_note(status), phases) if part)
        if self._bar:
            self._bar.update(self._task, total=status.total, completed=status.finished, name=status.name, note=note)
        elif time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + self._line_seconds
            self.say(f"{status.name}: {status.finished}/{status.total} finished, {note}")


def _line(row: Row, status: StudyStatus) -> str:
    # A pruned trial's reason says by which value it was judged: its last one beside it would be a second.
    value = f" {_metric(row, status)} {row.value:.4f}" if row.value is not None and row.state == "COMPLETE" else ""
    best = (
        " (best so far)"
        if status.kind == SEARCH and status.best is not None and status.best.number == row.number
        else ""
    )
    reason = "" if row.state == "COMPLETE" else f": {row.reason.removeprefix('pruned: ')}"
    taken = f", {duration(row.seconds)}" if row.seconds is not None else ""
    again = f", attempt {row.attempts}" if row.attempts > 1 else ""
    # Each attempt at a configuration is a trial: numbers of trials may be larger than the number of configurations.
    which = f"trial {row.number}" + (f" (configuration {row.config})" if row.config != row.number else "")
    if status.kind != SEARCH:
        which = ", ".join(f"{key} {value}" for key, value in row.params.items())
    return f"{which} {row.state.lower()}{value}{best}{taken}{again}{reason}"


def _metric(row: Row, status: StudyStatus) -> str:
    """Return the name of the metric that a row's value is of. A cell's value is what its run chose its best epoch by
    (`training.metric`), which may be another metric than the one that its suite compares arms by."""
    if status.kind == SEARCH or not row.record.experiment:
        return status.metric
    chosen_by = json.loads(experiment_text(row.record.experiment)).get("training", {}).get("metric", status.metric)
    return str(chosen_by)


def _note(status: StudyStatus) -> str:
    searched = status.kind == SEARCH
    parts = [f"{status.running} running", *([f"{status.pruned} pruned"] if searched else [])]
    if status.failed:
        parts.append(f"{sum(status.failed.values())} failed")
    if searched and status.best is not None and status.best.value is not None:
        parts.append(f"best {status.best.value:.4f}")
    if status.seconds_left:
        parts.append(f"about {duration(status.seconds_left)} left")
    return ", ".join(parts)
