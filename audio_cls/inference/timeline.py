"""From windows to events: when each label is heard in a recording.

A window speaks for the time that is closer to its middle than to another window's; the first one from the start of the recording, the
last one to its end. A label is heard where its probability reaches the threshold; neighbouring stretches are joined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError

if TYPE_CHECKING:
    from audio_cls.inference.labeller import Labeller, WindowScore

__all__ = ["DEFAULT_MERGING", "DEFAULT_THRESHOLD", "Event", "Merging", "merge_windows", "thresholds_of"]

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Event:
    """A label that is heard from `start` to `end` seconds; score: the mean probability of the windows that say so."""

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True)
class Merging:
    """How windows become events.

    Attributes:
        threshold: probability from which every label is heard; None for the labeller's own thresholds (`thresholds_of`).
        min_length: seconds; shorter events are left out.
        merge_gap: seconds; shorter gaps between two events of a label are closed.
    """

    threshold: float | None = None
    min_length: float = 0.0
    merge_gap: float = 0.0

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError(f"a threshold of {self.threshold:g}: it is a probability, from 0 to 1")
        for name in ("min_length", "merge_gap"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"{name} of {value:g} s: it must be 0 s or more")


DEFAULT_MERGING = Merging()


@dataclass
class _Open:
    """An event that may still grow."""

    start: float
    end: float
    total: float
    n_windows: int


def thresholds_of(labeller: Labeller, threshold: float | None = None) -> tuple[NDArray[np.float64], str]:
    """Return the thresholds (n_classes,) that labels are called by, and in words where they come from."""
    if threshold is not None:
        return np.full(len(labeller.classes), threshold), f"threshold {threshold:g}"
    if labeller.thresholds is not None and labeller.task == "multilabel":
        return labeller.thresholds, "thresholds by label, tuned on the run's validation clips"
    return np.full(len(labeller.classes), DEFAULT_THRESHOLD), f"threshold {DEFAULT_THRESHOLD:g}"


def merge_windows(
    windows: Iterable[WindowScore], labeller: Labeller, merging: Merging = DEFAULT_MERGING
) -> Iterator[Event]:
    """Yield events as they end, of windows in ascending order.

    Args:
        windows: of one recording, by `labeller.windows`.
        labeller: names the classes and their thresholds.

    Raises:
        UserError: for a threshold that is not a probability, or a negative time.
    """
    limits, _ = thresholds_of(labeller, merging.threshold)
    opened: dict[int, _Open] = {}
    for start, end, scores in _stretches(windows):
        for label in np.flatnonzero(scores >= limits).tolist():
            event = opened.get(label)
            if event is not None and start - event.end <= merging.merge_gap + 1e-9:
                event.end, event.total, event.n_windows = end, event.total + scores[label], event.n_windows + 1
                continue
            if event is not None:
                yield from _closed(event, label, labeller, merging)
            opened[label] = _Open(start, end, float(scores[label]), 1)
        for label in [k for k, event in opened.items() if end - event.end > merging.merge_gap + 1e-9]:
            yield from _closed(opened.pop(label), label, labeller, merging)
    for label, event in sorted(opened.items(), key=lambda item: (item[1].start, item[0])):
        yield from _closed(event, label, labeller, merging)


def _closed(event: _Open, label: int, labeller: Labeller, merging: Merging) -> Iterator[Event]:
    if event.end - event.start >= merging.min_length - 1e-9:
        yield Event(event.start, event.end, labeller.classes[label], event.total / event.n_windows)


def _stretches(windows: Iterable[WindowScore]) -> Iterator[tuple[float, float, NDArray[np.float64]]]:
    """Yield (start, end, scores): the time that each window speaks for."""
    before: WindowScore | None = None
    start = 0.0
    for window in windows:
        if before is not None:
            middle = (before.start + before.end + window.start + window.end) / 4
            if window.start >= before.end:  # windows with gaps between them speak for themselves
                yield start, before.end, before.scores
                start = window.start
            else:
                yield start, middle, before.scores
                start = middle
        else:
            start = window.start
        before = window
    if before is not None:
        yield start, before.end, before.scores
