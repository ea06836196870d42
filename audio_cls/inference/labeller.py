"""A classifier in use: what every labeller does, whatever computes its scores (a run's weights, an exported program).

Windows are cut by `data.windows`, as in training, evaluation and thresholds, from rows that `RowStream` computes in bounded memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audio_cls.core.errors import UserError
from audio_cls.data.audio import BadAudio
from audio_cls.data.windows import Centre, EvaluationWindows, Windows
from audio_cls.inference.batching import Job, batches, judge_batch
from audio_cls.inference.row_stream import WHOLE_SECONDS, RowStream, cut_windows
from audio_cls.inference.streaming import AudioStream, Blocks, Sound
from audio_cls.inference.timeline import DEFAULT_MERGING, Event, Merging, merge_windows
from audio_cls.training.predictions import probabilities

__all__ = ["Labelled", "Labeller", "WindowScore", "without_path"]

BATCH = 64  # windows that the model takes at a time
_SMALLEST = 1e-38  # keeps the logarithm of a probability that rounds to 0 finite
Opener = Callable[[Path, int], Blocks]


@dataclass(frozen=True)
class Labelled:
    """Probabilities of one file, (n_classes,), in the order of the labeller's classes; or why there are none.

    seconds: its length. windows: which part of it they are of, in words.
    """

    path: Path
    scores: NDArray[np.float64] | None
    error: str = ""
    seconds: float = 0.0
    windows: str = ""


@dataclass(frozen=True)
class WindowScore:
    """Probabilities (n_classes,) of a window from `start` to `end`, in seconds from the beginning of the recording."""

    start: float
    end: float
    scores: NDArray[np.float64]


class Labeller(ABC):
    """A classifier with its front end: from audio to probabilities.

    A subclass sets the attributes and computes `window_scores`; what it can share between overlapping windows it computes in `_rows` and
    `_judge`.

    Attributes:
        name: how its scores are headed.
        classes: the labels, in the order of all scores.
        task: "multiclass" (probabilities sum to 1) or "multilabel".
        sample_rate: of the waveforms that it takes, in Hz.
        window_seconds: the length that it was trained on; None if it judges recordings as a whole.
        evaluation: which windows of a longer recording make its one answer.
        pad: how a recording shorter than a window is filled: "zero", "end" or "tile".
        thresholds: (n_classes,) probabilities from which a label is called, tuned on validation clips; None if none were.
    """

    name: str
    classes: list[str]
    task: str
    sample_rate: int
    window_seconds: float | None
    evaluation: EvaluationWindows = Centre()
    pad: str = "zero"
    thresholds: NDArray[np.float64] | None = None
    hop_length: int = 1
    """Samples between the rows (of samples or frames) that windows are cut from."""
    window_rows: int = 0
    """Rows of a window."""

    @abstractmethod
    def window_scores(self, waveforms: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probabilities (n, n_classes) of windows (n, samples): mono float32 in [-1, 1] at `sample_rate`. Each row is judged
        as one window (with `window_seconds` None: as one recording).
        """

    @property
    def window_samples(self) -> int:
        """Samples of a window; 0 where recordings are judged as a whole."""
        return 0 if self.window_seconds is None else max(1, round(self.window_seconds * self.sample_rate))

    @property
    def hop_seconds(self) -> float:
        """Seconds from one window to the next unless another hop is asked for: that of `evaluation`, else half a window."""
        if isinstance(self.evaluation, Windows) and self.evaluation.hop_seconds is not None:
            return self.evaluation.hop_seconds
        return (self.window_seconds or 1.0) / 2

    # -- one recording ------------------------------------------------------------------------------------------------

    def scores(self, waveform: NDArray[np.float32], hop_seconds: float | None = None) -> NDArray[np.float64]:
        """Return probabilities (n_classes,) of one recording: mono float32 in [-1, 1] at `sample_rate`. A longer one than a window is
        judged by the windows that the evaluation used (`data.evaluation`); with `hop_seconds` by windows over all of it, their mean.
        """
        return self._answer([np.asarray(waveform, np.float32)], len(waveform), hop_seconds)

    def windows(self, blocks: Iterable[NDArray[np.float32]], hop_seconds: float | None = None) -> Iterator[WindowScore]:
        """Yield the probabilities of each window of a stream, as soon as its samples have arrived.

        The last window ends with the stream; one shorter than a window is padded.

        Args:
            blocks: mono float32 samples (n,) in [-1, 1] at `sample_rate`, each block of any length.
            hop_seconds: from one window to the next; `self.hop_seconds` unless given.

        Raises:
            UserError: when it judges recordings as a whole.
        """
        evaluation = self.check_hop(self.hop_seconds if hop_seconds is None else hop_seconds)
        stream = self._rows(blocks)
        starts = count(0, self._hop_rows(evaluation))
        held: list[tuple[int, Tensor]] = []
        for start, rows in cut_windows(stream, self.window_rows, starts, to_end=True):
            held.append((start, rows))
            if len(held) >= BATCH or not stream.has(start + self._hop_rows(evaluation) + self.window_rows):
                yield from self._window_scores_of(held, stream)
                held = []
        yield from self._window_scores_of(held, stream)

    def predict(self, sound: Sound, hop_seconds: float | None = None) -> dict[str, float]:
        """Return label -> probability of one recording, the most probable first.

        Args:
            sound: a path, the bytes of an audio file, an open file, or (samples, rate in Hz).
            hop_seconds: as in `scores`.

        Raises:
            UserError: for what cannot be read, naming it.
        """
        where = f"{sound}: " if isinstance(sound, (str, Path)) else ""
        try:
            stream = AudioStream(sound, self.sample_rate)
            return dict(self.top(self._answer(stream, stream.n_samples, hop_seconds), len(self.classes)))
        except BadAudio as error:
            raise UserError(f"{where}{error}") from None

    def timeline(
        self, sound: Sound, hop_seconds: float | None = None, merging: Merging = DEFAULT_MERGING
    ) -> Iterator[Event]:
        """Yield when each label is heard in a recording, as soon as each event has ended.

        Args:
            sound: as in `predict`.
            hop_seconds: as in `windows`.
            merging: thresholds, the shortest event, the gaps that are closed.

        Raises:
            UserError: for what cannot be read, naming it; when it judges recordings as a whole.
        """
        self.check_hop(self.hop_seconds if hop_seconds is None else hop_seconds)
        where = f"{sound}: " if isinstance(sound, (str, Path)) else ""
        try:
            blocks = AudioStream(sound, self.sample_rate)
            yield from merge_windows(self.windows(blocks, hop_seconds), self, merging)
        except BadAudio as error:
            raise UserError(f"{where}{error}") from None

    def top(self, scores: NDArray[np.floating], n: int) -> list[tuple[str, float]]:
        """Return the `n` most probable labels."""
        return [(self.classes[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:n]]

    # -- many recordings ----------------------------------------------------------------------------------------------

    def label(
        self, paths: Iterable[Path], hop_seconds: float | None = None, opener: Opener = AudioStream
    ) -> Iterator[Labelled]:
        """Label files in order; a file that is missing or cannot be read yields its reason instead of ending the rest.

        Windows of several files are judged together, so that many short files are fast: answers come in groups.

        Args:
            hop_seconds: as in `scores`.
            opener: makes the stream of a file, given its path and the sample rate.
        """
        waiting: deque[Job] = deque()

        def jobs() -> Iterator[tuple[Job, Iterator[Tensor]]]:
            for path in paths:
                job = self._job(path, hop_seconds)
                waiting.append(job)
                yield job, self._open_and_cut(job, opener, hop_seconds)

        for windows in batches(jobs(), BATCH):
            judge_batch(self._judge, windows)
            while waiting and waiting[0].is_done:
                yield self._labelled(waiting.popleft(), hop_seconds)

    def windows_note(self, seconds: float, hop_seconds: float | None = None) -> str:
        """Return which windows a recording of so many seconds is judged by; empty where it is no longer than one."""
        if self.window_seconds is None or round(seconds * self.sample_rate) <= self.window_samples:
            return ""
        return self._judged_by(hop_seconds).describe(self.window_seconds)

    # -- for subclasses -----------------------------------------------------------------------------------------------

    def _rows(self, blocks: Iterable[NDArray[np.float32]]) -> RowStream:
        """Return the rows that windows are cut from; here the samples themselves."""
        length = self.window_samples
        return RowStream(blocks, lambda x: x, lambda n: n, 1, 1, length, self.pad, self.sample_rate)

    def _judge(self, windows: Tensor) -> NDArray[np.floating]:
        """Return logits (n, n_classes) of windows of rows (n, ..., window_rows)."""
        p = np.clip(self.window_scores(windows.cpu().numpy()).astype(np.float64), _SMALLEST, 1.0)
        return np.log(p) if self.task == "multiclass" else np.log(p) - np.log(np.maximum(1 - p, _SMALLEST))

    def _whole(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return what `_judge` takes of a recording that is judged as a whole, (1, ...); here its samples."""
        return torch.from_numpy(waveform)[None]

    def check_hop(self, hop_seconds: float) -> Windows:
        """Return windows over all of a recording, every `hop_seconds`.

        Raises:
            UserError: when it judges recordings as a whole, or for a hop that is not positive.
        """
        if self.window_seconds is None:
            raise UserError(f"{self.name} judges recordings as a whole: it has no windows, and no timeline")
        if not hop_seconds > 0:
            raise UserError(f"a hop of {hop_seconds:g} s: it must be above 0 s")
        return Windows(hop_seconds=hop_seconds, rates=self.evaluation.rates)

    def _judged_by(self, hop_seconds: float | None) -> EvaluationWindows:
        return self.evaluation if hop_seconds is None else self.check_hop(hop_seconds)

    def _answer(
        self, blocks: Iterable[NDArray[np.float32]], n_samples: int | None, hop_seconds: float | None
    ) -> NDArray[np.float64]:
        """Return the probabilities (n_classes,) of one recording."""
        job = self._job(Path(), hop_seconds)
        for windows in batches([(job, self._cut(job, blocks, n_samples, hop_seconds))], BATCH):
            judge_batch(self._judge, windows)
        if job.error is not None:
            raise job.error
        return job.scores()

    def _job(self, path: Path, hop_seconds: float | None) -> Job:
        return Job(path, self.task, len(self.classes), self._judged_by(hop_seconds).combined_by or "mean")

    def _open_and_cut(self, job: Job, opener: Opener, hop_seconds: float | None) -> Iterator[Tensor]:
        stream = opener(job.path, self.sample_rate)
        yield from self._cut(job, stream, stream.n_samples, hop_seconds)

    def _cut(
        self, job: Job, blocks: Iterable[NDArray[np.float32]], n_samples: int | None, hop_seconds: float | None
    ) -> Iterator[Tensor]:
        """Yield the windows that a recording is judged by, (1, ...)."""
        if self.window_seconds is None:
            waveform = _joined(blocks, self.sample_rate)
            job.seconds = len(waveform) / self.sample_rate
            yield self._whole(waveform)
            return
        if n_samples is None:  # the header names no length: count
            n_samples = sum(len(block) for block in blocks)
        stream = self._rows(blocks)
        rows = stream.count(max(n_samples, self.window_samples))
        starts = self._judged_by(hop_seconds).starts(rows, self.window_rows, self.sample_rate / self.hop_length)
        for _, window in cut_windows(stream, self.window_rows, starts.tolist(), to_end=False):
            yield window
        stream.finish()  # what is wrong behind the last window is wrong with the file
        job.seconds = stream.n_samples / self.sample_rate

    def _labelled(self, job: Job, hop_seconds: float | None) -> Labelled:
        if job.error is not None:
            return Labelled(job.path, None, without_path(job.error, job.path), job.seconds)
        scores = job.scores()
        if not np.isfinite(scores).all():
            return Labelled(job.path, None, "the model gives no finite scores for it", job.seconds)
        windows = self.windows_note(job.seconds, hop_seconds) or self._one_window()
        return Labelled(job.path, scores, seconds=job.seconds, windows=windows)

    def _one_window(self) -> str:
        if self.window_seconds is None:
            return "judged as a whole"
        return f"judged as one window of {self.window_seconds:g} s{self.evaluation.tempos}"

    def actual_hop(self, hop_seconds: float | None = None) -> float:
        """Return the seconds from one window to the next where `hop_seconds` is asked for: whole rows."""
        evaluation = self.check_hop(self.hop_seconds if hop_seconds is None else hop_seconds)
        return self._hop_rows(evaluation) * self.hop_length / self.sample_rate

    def _hop_rows(self, evaluation: Windows) -> int:
        assert evaluation.hop_seconds is not None
        return max(1, round(evaluation.hop_seconds * self.sample_rate / self.hop_length))

    def _window_scores_of(self, held: Sequence[tuple[int, Tensor]], stream: RowStream) -> Iterator[WindowScore]:
        if not held:
            return
        logits = self._judge(torch.cat([rows for _, rows in held]))
        scores = probabilities(torch.from_numpy(logits), self.task)
        for (first, _), values in zip(held, scores, strict=True):
            start = first * self.hop_length / self.sample_rate
            end = start + self.window_samples / self.sample_rate
            yield WindowScore(start, min(end, max(stream.n_samples / self.sample_rate, start)), values)


def _joined(blocks: Iterable[NDArray[np.float32]], sample_rate: int) -> NDArray[np.float32]:
    """Return all samples of a recording.

    Raises:
        BadAudio: for one that is too long to be held.
    """
    out, n = [np.zeros(0, np.float32)], 0
    for block in blocks:
        n += len(block)
        if n > WHOLE_SECONDS * sample_rate:
            raise BadAudio(f"too long: this model judges recordings as a whole, up to {WHOLE_SECONDS / 60:g} minutes")
        out.append(block)
    return np.concatenate(out)


def without_path(error: Exception, path: Path) -> str:
    """Return why a file could not be read, without its name."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.removeprefix(f"{path}: ")
