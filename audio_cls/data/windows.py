"""Which windows of a clip are evaluated, and how their probabilities become one row for the clip.

Training during and after epochs, the test split, the audit, thresholds and labelling of files all cut windows with this module.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from audio_cls.core.config import Component

__all__ = ["Centre", "EvaluationWindows", "WindowScores", "Windows", "place_of", "position", "window_starts"]

Combine = Literal["mean", "max", "noisy_or"]
_TINY = 1e-300  # keeps logarithms of probabilities that round to 0 or 1 finite


def window_starts(rows: int, length: int, hop: int) -> NDArray[np.int64]:
    """Return the first row of each window of `length` rows: 0, hop, 2 hop, ..., and the last place, so that all rows are covered.

    Rows that are no more than one window have one, at 0.
    """
    room = max(0, rows - length)
    starts = np.arange(0, room + 1, max(1, hop), dtype=np.int64)
    return starts if starts[-1] == room else np.append(starts, room)


def position(where: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the start of a window: 0 at the first place, `room` at the last, the middle at 0.5; each place is as likely under uniform
    `where`.
    """
    return np.minimum((where * (room + 1)).astype(np.int64), room)


def place_of(starts: NDArray[np.int64], room: int) -> NDArray[np.float64]:
    """Return `where` such that `position(where, room)` gives these starts."""
    return (starts + 0.5) / (room + 1)


class EvaluationWindows(Component, family=True):
    """Which windows of a clip that is longer than `data.clip_seconds` are evaluated; a shorter clip is one padded window."""

    added_fields = frozenset({"rates"})

    rates: tuple[Annotated[float, Field(ge=0.25, le=4)], ...] = Field(default=(1.0,), min_length=1)
    """Tempos at which each window of a spectrogram is judged, above 1 is faster; the mean of the probabilities counts. Test-time
    augmentation: 0.83,1,1.2 goes with augment.warp. Evaluation costs that many times as much."""

    @field_validator("rates")
    @classmethod
    def _each_once(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(rates)) < len(rates):
            raise PydanticCustomError("twice", "a tempo is named twice")
        return rates

    @property
    def has_views(self) -> bool:
        """Whether windows are judged at another tempo than their own."""
        return self.rates != (1.0,)

    @property
    def tempos(self) -> str:
        """The words for `rates` that go behind "windows of 2 s" in a sentence; empty for the windows' own tempo."""
        if not self.has_views:
            return ""
        names = [f"{rate:g}" for rate in self.rates]
        return f" at tempo {names[0]}" if len(names) == 1 else f" at tempos {', '.join(names[:-1])} and {names[-1]}"

    @property
    def combined_by(self) -> Combine | None:
        """How the probabilities of several windows are combined; None where there is one window."""
        return None

    def starts(self, rows: int, length: int, rows_per_second: float) -> NDArray[np.int64]:
        """Return the first row of each window of `length` rows in a clip of `rows` rows, ascending."""
        raise NotImplementedError

    def describe(self, clip_seconds: float) -> str:
        """Return in words what longer clips are judged by."""
        raise NotImplementedError

    def describe_one(self) -> str:
        """Return in words how clips are judged that are no longer than a window; empty where they are judged as they are."""
        return (
            f"clips are judged{self.tempos}, the mean of the probabilities (data.evaluation.rates)"
            if self.has_views
            else ""
        )


class Centre(EvaluationWindows, kind="centre"):
    """The middle window of each clip."""

    def starts(self, rows: int, length: int, rows_per_second: float) -> NDArray[np.int64]:
        return position(np.array([0.5]), np.array([max(0, rows - length)]))

    def describe(self, clip_seconds: float) -> str:
        return f"clips longer than {clip_seconds:g} s are judged by their middle {clip_seconds:g} s{self.tempos} (data.evaluation=centre)"


class Windows(EvaluationWindows, kind="windows"):
    """Several windows of each clip, from its start to its end. A clip's probabilities combine those of its windows."""

    number: int | None = Field(default=None, ge=1)
    """Windows of each clip, evenly spaced; fewer where the clip has fewer places. 1 is the middle one."""
    hop_seconds: float | None = Field(default=None, gt=0)
    """Seconds from one window to the next; the last one ends with the clip. None with no number is half a window."""
    combine: Combine = "mean"
    """mean or max of the windows' probabilities, or noisy_or: one less the product of their complements. With one label a clip
    they are scaled to the sum 1."""

    @property
    def combined_by(self) -> Combine:
        return self.combine

    @model_validator(mode="after")
    def _one_spacing(self) -> Windows:
        if self.number is not None and self.hop_seconds is not None:
            raise ValueError("number and hop_seconds both say how windows are spaced: set one of them")
        return self

    def starts(self, rows: int, length: int, rows_per_second: float) -> NDArray[np.int64]:
        room = max(0, rows - length)
        if self.number == 1:
            return position(np.array([0.5]), np.array([room]))
        if self.number is not None:
            return np.unique(np.round(np.linspace(0, room, self.number)).astype(np.int64))
        hop = length / 2 if self.hop_seconds is None else self.hop_seconds * rows_per_second
        return window_starts(rows, length, round(hop))

    def describe(self, clip_seconds: float) -> str:
        if self.number is not None:
            spaced = f"{self.number} windows of {clip_seconds:g} s"
        else:
            hop = clip_seconds / 2 if self.hop_seconds is None else self.hop_seconds
            spaced = f"windows of {clip_seconds:g} s every {hop:g} s"
        how = "the noisy-or" if self.combine == "noisy_or" else f"the {self.combine}"
        return f"clips longer than {clip_seconds:g} s are judged by {spaced}{self.tempos}, {how} of their probabilities (data.evaluation=windows)"


class WindowScores:
    """Logits of windows, combined into one row of logits for each clip as they arrive: memory for the clips, not their windows.

    Logits of several labels are combined label by label. Windows of one clip must arrive in order for equal results bit for bit.
    """

    def __init__(self, n_clips: int, n_classes: int, task: str, combine: Combine) -> None:
        self.multiclass, self.combine = task == "multiclass", combine
        shape = (n_clips, n_classes)
        self._yes = np.full(shape, -np.inf)  # mean: log sum of p; max: log p or the logit
        self._no = np.zeros(shape) if combine == "noisy_or" else np.full(shape, -np.inf)  # log of 1 - p likewise
        self._bad = np.zeros(n_clips, dtype=bool)

    def add(self, clips: NDArray[np.int64], logits: NDArray[np.floating]) -> None:
        """Take in windows.

        Args:
            clips: the clip of each window, counted from 0, (n,).
            logits: (n, n_classes).
        """
        from scipy.special import log_expit, log_softmax  # slow to load: only for clips of several windows

        wide = np.asarray(logits, dtype=np.float64)
        self._bad[clips[~np.isfinite(wide).all(axis=1)]] = True
        wide = np.nan_to_num(wide)
        yes = log_softmax(wide, axis=1) if self.multiclass else log_expit(wide)
        if self.combine == "max":
            np.maximum.at(self._yes, clips, yes if self.multiclass else wide)
        elif self.combine == "mean":
            np.logaddexp.at(self._yes, clips, yes)
            if not self.multiclass:
                np.logaddexp.at(self._no, clips, log_expit(-wide))
        else:
            np.add.at(self._no, clips, _log_complement(yes) if self.multiclass else log_expit(-wide))

    def logits(self) -> NDArray[np.float64]:
        """Return (n_clips, n_classes) logits whose softmax or sigmoid are the clips' probabilities; NaN for a clip with a window
        whose logits were not finite.
        """
        from scipy.special import log_softmax

        if self.combine == "noisy_or":
            yes = _log_complement(self._no)
            out = yes if self.multiclass else yes - self._no
        elif self.combine == "mean" and not self.multiclass:
            out = self._yes - self._no  # the number of windows cancels
        else:
            out = self._yes.copy()
        if self.multiclass:
            out = log_softmax(out, axis=1)
        out[self._bad] = np.nan
        return out


def _log_complement(log_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(1 - p), finite for p that round to 0 or 1."""
    return np.log(np.maximum(-np.expm1(np.minimum(log_p, -_TINY)), _TINY))
