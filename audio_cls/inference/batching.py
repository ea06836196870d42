"""Windows of several recordings judged together: a job for each recording, batches of windows over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audio_cls.data.audio import BadAudio
from audio_cls.data.windows import Combine, WindowScores
from audio_cls.training.predictions import probabilities

__all__ = ["MOST_VALUES", "Job", "batches", "judge_batch"]

MOST_VALUES = 1 << 24  # of float32, 64 MiB: windows that hold so many are judged, however few they are


class Job:
    """One recording: its windows as they are cut, and their combined scores.

    Attributes:
        pending: windows that are cut and not yet judged.
        is_cut: all windows are cut.
        error: why the recording cannot be labelled.
        seconds: its length, once it is cut.
    """

    def __init__(self, path: Path, task: str, n_classes: int, combine: Combine) -> None:
        self.path = path
        self.pending, self.is_cut, self.seconds = 0, False, 0.0
        self.error: Exception | None = None
        self._task = task
        self._combined = WindowScores(1, n_classes, task, combine)

    @property
    def is_done(self) -> bool:
        return self.is_cut and not self.pending

    def add(self, logits: NDArray[np.floating]) -> None:
        """Take in the logits (n, n_classes) of the next windows."""
        self._combined.add(np.zeros(len(logits), dtype=np.int64), logits)
        self.pending -= len(logits)

    def scores(self) -> NDArray[np.float64]:
        """Return the recording's probabilities (n_classes,); NaN where a window's were not finite."""
        return probabilities(torch.from_numpy(self._combined.logits()), self._task)[0]


def batches(jobs: Iterable[tuple[Job, Iterator[Tensor]]], size: int) -> Iterator[list[tuple[Job, Tensor]]]:
    """Yield up to `size` windows at a time, of one recording or several; also, perhaps none, after each recording that cannot be read.

    Long recordings that are judged as a whole come in smaller groups, each ended by the one that brings it to `MOST_VALUES`. What goes
    wrong while a recording is read becomes its error.
    """
    held: list[tuple[Job, Tensor]] = []
    values = 0
    for job, windows in jobs:
        try:
            for window in windows:
                held.append((job, window))
                job.pending += 1
                values += window.numel()
                if len(held) == size or values >= MOST_VALUES:
                    yield held
                    held, values = [], 0
        except (BadAudio, OSError, ValueError) as error:
            job.error = error
        job.is_cut = True
    yield held


def judge_batch(judge: Callable[[Tensor], NDArray[np.floating]], windows: list[tuple[Job, Tensor]]) -> None:
    """Judge windows (1, ...), those of equal shape together, and hand each job its logits."""
    for _, same in groupby(windows, key=lambda pair: pair[1].shape):
        group = list(same)
        logits = judge(torch.cat([window for _, window in group]))
        for job in dict.fromkeys(job for job, _ in group):
            job.add(logits[[owner is job for owner, _ in group]])
