"""Labels for sound as it arrives: every hop, each model judges the last seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audio_cls.data.audio import SILENCE_PEAK
from audio_cls.inference.microphone import LiveInput

if TYPE_CHECKING:
    from audio_cls.inference.labeller import Labeller

__all__ = ["Heard", "Latency", "Listener"]

WHOLE_CLIP_SECONDS = 5.0  # heard by a model that judges whole clips, of any length
LONGEST_WAIT = 0.1  # seconds until a request to stop is noticed
QUIETEST = -100.0  # dB, the level of digital silence

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """What the models say of the last seconds.

    Attributes:
        end: seconds of sound since the start, at the end of the windows.
        level: root mean square of the last hop in dB below full scale, `QUIETEST` at least.
        scores: probabilities (n_classes,) of each model; None where its whole window is silent.
        captured_at: when the last sample of the windows was captured, by the listener's clock.
    """

    end: float
    level: float
    scores: list[NDArray[np.floating] | None]
    captured_at: float


class Latency:
    """Seconds from the capture of a window's last sample until its labels are shown."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def __len__(self) -> int:
        return len(self._seconds)

    def describe(self) -> str:
        """Return median and 95th percentile in words; empty before the first one."""
        if not self._seconds:
            return ""
        median, high = np.percentile(self._seconds, [50, 95]) * 1000
        return f"latency from the end of a window to its labels: median {median:.0f} ms, 95th percentile {high:.0f} ms"


class Listener:
    """Several models that hear the same input, each with a ring buffer of its own window at its own sample rate.

    Sound that is shorter than a model's window so far is judged as a short clip is (`data.pad`). A machine that is too slow for the hop
    skips windows, `skipped` in number, so that what is shown is never old.

    Args:
        source: where the sound comes from.
        labellers: the models.
        hop_seconds: from one window to the next.
        clock: the one of the source's times.
    """

    def __init__(
        self,
        source: LiveInput,
        labellers: Sequence[Labeller],
        hop_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source, self.hop_seconds, self.skipped = source, hop_seconds, 0
        self._clock = clock
        self._hop = max(1, round(hop_seconds * source.sample_rate))
        self._ears = [_Ear(labeller, source.sample_rate) for labeller in labellers]
        self._fresh: list[Samples] = []  # since the last window
        self._n_samples, self._due = 0, self._hop
        self._captured_at = 0.0

    @property
    def seconds(self) -> float:
        """Return how many seconds of sound have been heard."""
        return self._n_samples / self.source.sample_rate

    def hear(self, seconds: float = math.inf, leave: Callable[[], bool] = lambda: False) -> Iterator[Heard]:
        """Yield what the models say every hop, until the input ends, `seconds` of sound are over or `leave` says so.

        Raises:
            UserError: where the input device is gone.
        """
        self.source.start()
        more = True
        while more and self.seconds < seconds and not leave():
            more = self._collect(leave)
            if self._n_samples >= self._due or (not more and self._is_new()):
                yield self._judge()

    def _collect(self, leave: Callable[[], bool]) -> bool:
        """Read until there is a hop of sound and no block waits; False at the end of the input."""
        while not leave():
            enough = self._n_samples >= self._due
            try:
                block = self.source.read(0.0 if enough else LONGEST_WAIT)
            except EOFError:
                return False
            if block is None:
                if enough:
                    return True
                continue
            for ear in self._ears:
                ear.take_in(block.samples)
            self._fresh.append(block.samples)
            self._n_samples += len(block.samples)
            self._captured_at = block.at
        return True

    def _is_new(self) -> bool:
        """Return whether the end of the input holds more than what has just been judged."""
        fresh = sum(map(len, self._fresh))
        return fresh >= self._hop / 2 or fresh == self._n_samples > 0

    def _judge(self) -> Heard:
        fresh = np.concatenate(self._fresh)
        self.skipped += max(0, (self._n_samples - self._due) // self._hop)
        self._fresh, self._due = [], (self._n_samples // self._hop + 1) * self._hop
        scores = [ear.scores() for ear in self._ears]
        late = max(ear.delay for ear in self._ears)
        return Heard(self.seconds, _level(fresh[-self._hop :]), scores, self._captured_at - late)


class _Ear:
    """One model's last seconds, at its sample rate."""

    def __init__(self, labeller: Labeller, source_rate: int) -> None:
        import soxr

        self._labeller, self._rate = labeller, labeller.sample_rate
        self._ratio = self._rate / source_rate
        same = self._rate == source_rate
        self._resampler = None if same else soxr.ResampleStream(source_rate, self._rate, 1, dtype="float32")
        window = round((labeller.window_seconds or WHOLE_CLIP_SECONDS) * self._rate)
        self._buffer = np.zeros(window, np.float32)  # its last `_filled` samples are sound
        self._filled, self._taken, self._given = 0, 0, 0
        labeller.scores(self._buffer)  # the first call is slow: not while sound arrives

    @property
    def delay(self) -> float:
        """Return by how many seconds the resampler holds sound back."""
        return max(0.0, self._taken * self._ratio - self._given) / self._rate

    def take_in(self, samples: Samples) -> None:
        self._taken += len(samples)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        self._given += len(samples)
        tail = samples[-len(self._buffer) :]
        if len(tail):
            self._buffer = np.concatenate([self._buffer[len(tail) :], tail])
            self._filled = min(len(self._buffer), self._filled + len(tail))

    def scores(self) -> NDArray[np.floating] | None:
        """Return probabilities (n_classes,) of the last seconds; None where they are silent."""
        heard = self._buffer[len(self._buffer) - self._filled :]
        if float(np.max(np.abs(heard), initial=0.0)) < SILENCE_PEAK:
            return None
        return self._labeller.scores(heard)


def _level(samples: Samples) -> float:
    """Return the root mean square in dB below full scale, at least `QUIETEST`."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return max(QUIETEST, 10 * math.log10(power)) if power > 0 else QUIETEST
