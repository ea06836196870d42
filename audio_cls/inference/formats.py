"""Answers and timelines as text: table, JSON lines, CSV, Audacity's labels, RTTM.

Audacity: https://manual.audacityteam.org/man/importing_and_exporting_labels.html (start, end, label, separated by tabs). RTTM: NIST, "The
2009 Rich Transcription Meeting Recognition Evaluation Plan", appendix A: one line `SPEAKER file 1 start duration <NA> <NA> label score <NA>`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from audio_cls.core.errors import UserError, choices
from audio_cls.inference.labeller import Labelled
from audio_cls.inference.timeline import Event

__all__ = ["FORMATS", "Writer", "make_writer", "one_line"]


def one_line(path: Path) -> str:
    """Return a path with its line breaks escaped, so that each answer is one line."""
    return str(path).replace("\n", "\\n").replace("\r", "\\r")


class Writer:
    """Turns answers and events into lines of text. A method that returns no line has nothing to say in this format.

    Attributes:
        timeline: events are written, not answers.
        models: the names of the models; with one, its name is left out where people read.
    """

    events_only: ClassVar[bool] = False
    one_model: ClassVar[bool] = False
    one_file: ClassVar[bool] = False

    def __init__(self, timeline: bool, models: Sequence[str]) -> None:
        self.timeline, self.models = timeline, list(models)

    def head(self) -> list[str]:
        """Return the lines before all others."""
        return []

    def begin(self, path: Path, windows: Mapping[str, str]) -> list[str]:
        """Return the lines before a file's timeline; `windows` says of each model how it is made."""
        return []

    def answer(self, model: str, found: Labelled, best: Sequence[tuple[str, float]]) -> list[str]:
        """Return the lines of one model's answer: `best` are the most probable labels."""
        return []

    def event(self, path: Path, model: str, event: Event, windows: str) -> list[str]:
        """Return the lines of an event."""
        return []

    def fault(self, path: Path, why: str) -> list[str]:
        """Return the lines of a file that cannot be labelled."""
        return []


class Table(Writer):
    """Lines for people, each as soon as it is known."""

    def begin(self, path: Path, windows: Mapping[str, str]) -> list[str]:
        how = [f"{one_line(path)}: {self._of(model)}{words}" for model, words in windows.items()]
        return [*how, f"{'start':>11} {'end':>11}  {'score':>5}  label"]

    def answer(self, model: str, found: Labelled, best: Sequence[tuple[str, float]]) -> list[str]:
        said = ", ".join(f"{label} {score:.3f}" for label, score in best)
        return [f"{one_line(found.path)}: {self._of(model)}{said}"]

    def event(self, path: Path, model: str, event: Event, windows: str) -> list[str]:
        start, end = clock(event.start), clock(event.end)
        return [f"{start:>11} {end:>11}  {event.score:5.3f}  {self._of(model)}{event.label}"]

    def _of(self, model: str) -> str:
        return f"{model}: " if len(self.models) > 1 else ""


class JsonLines(Writer):
    """One object a line."""

    def answer(self, model: str, found: Labelled, best: Sequence[tuple[str, float]]) -> list[str]:
        line = {"path": str(found.path), "model": model, "labels": dict(best)}
        return [_json({**line, "seconds": round(found.seconds, 3), "windows": found.windows})]

    def event(self, path: Path, model: str, event: Event, windows: str) -> list[str]:
        found = {"start": round(event.start, 3), "end": round(event.end, 3), "label": event.label, "score": event.score}
        return [_json({"path": str(path), "model": model, **found, "windows": windows})]

    def fault(self, path: Path, why: str) -> list[str]:
        return [_json({"path": str(path), "error": why})]


class Csv(Writer):
    """A row for each label or event."""

    def head(self) -> list[str]:
        times = ["start", "end", "label", "score"] if self.timeline else ["rank", "label", "score"]
        return [_row("path", "model", *times, "windows", "error")]

    def answer(self, model: str, found: Labelled, best: Sequence[tuple[str, float]]) -> list[str]:
        return [
            _row(found.path, model, rank, label, f"{score:.6f}", found.windows, "")
            for rank, (label, score) in enumerate(best, start=1)
        ]

    def event(self, path: Path, model: str, event: Event, windows: str) -> list[str]:
        times = f"{event.start:.3f}", f"{event.end:.3f}"
        return [_row(path, model, *times, event.label, f"{event.score:.6f}", windows, "")]

    def fault(self, path: Path, why: str) -> list[str]:
        return [_row(path, "", *[""] * (4 if self.timeline else 3), "", why)]


class Audacity(Writer):
    """A label track of one recording."""

    events_only, one_model, one_file = True, True, True

    def event(self, path: Path, model: str, event: Event, windows: str) -> list[str]:
        return [f"{event.start:.6f}\t{event.end:.6f}\t{' '.join(event.label.split())}"]


class Rttm(Writer):
    """Labels as speakers; blanks in names become underscores."""

    events_only, one_model = True, True

    def event(self, path: Path, model: str, event: Event, windows: str) -> list[str]:
        file, label = "_".join(path.stem.split()) or "-", "_".join(event.label.split()) or "-"
        span = f"{event.start:.3f} {event.end - event.start:.3f}"
        return [f"SPEAKER {file} 1 {span} <NA> <NA> {label} {event.score:.4f} <NA>"]


FORMATS: dict[str, type[Writer]] = {
    "table": Table, "jsonl": JsonLines, "csv": Csv, "audacity": Audacity, "rttm": Rttm
}  # fmt: skip


def make_writer(name: str, *, timeline: bool, models: Sequence[str], n_files: int) -> Writer:
    """Return the writer of a format.

    Args:
        models: the names of the models whose answers are written.

    Raises:
        UserError: for an unknown format, and for what a format cannot hold.
    """
    if name not in FORMATS:
        raise UserError(f"no format {name!r}. {choices(name, FORMATS)}")
    made = FORMATS[name]
    if made.events_only and not timeline:
        raise UserError(f"the format {name} holds events: add --timeline")
    if made.one_model and len(models) > 1:
        raise UserError(
            f"the format {name} holds the events of one model, not of {len(models)}: take --average, or one model"
        )
    if made.one_file and n_files > 1:
        raise UserError(
            f"the format {name} holds the labels of one recording, not of {n_files} files: take csv, or one file"
        )
    return made(timeline, models)


def clock(seconds: float) -> str:
    """Return a time in a recording: `7.50`, `1:07.50`, `10:01:07.50`."""
    hundredths = math.floor(seconds * 100 + 0.5)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 100:02d}.{rest % 100:02d}"
    if hours:
        return f"{hours}:{minutes:02d}:{tail}"
    return f"{minutes}:{tail}" if minutes else f"{rest // 100}.{rest % 100:02d}"


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value)


def _row(*cells: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # quotes a cell that holds one of these
    return text.getvalue().removesuffix("\r\n")
