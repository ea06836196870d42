"""Background noise from recordings, mixed into waveforms, (batch, samples)."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Range, chosen, uniform

__all__ = ["Background", "BackgroundNoise", "Recordings"]


class Recordings(Protocol):
    """Clips of int16 samples: a prepared corpus of waveforms."""

    digest: str

    def __len__(self) -> int: ...

    def samples_of(self, i: int) -> NDArray[Any]: ...


class Background(Augmentation, kind="background"):
    """Mix in clips of another prepared corpus as background noise, at a signal-to-noise ratio drawn from `snr_db` (over the whole clip).

    A part of a random clip is taken, at a random place; shorter clips are repeated. The corpus must have the sample rate of the
    training corpus and share no clip with it. Its digest is recorded with the run.
    """

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 28
    stands_alone: ClassVar[bool] = False

    corpus: str = ""
    """Name of a prepared corpus, or the path of its folder."""
    snr_db: Range = (0.0, 20.0)
    """Lowest and highest signal-to-noise ratio in dB."""
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> BackgroundNoise:
        """Return an `Augmenter` that changes nothing until it is given its `recordings`."""
        return BackgroundNoise(self)


class BackgroundNoise:
    """The augmenter of `Background`.

    Attributes:
        recordings: what it mixes in; None where nothing is trained.
    """

    recordings: Recordings | None = None

    def __init__(self, config: Background) -> None:
        self.config = config

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        batch = len(x)
        snr_db = uniform(*self.config.snr_db, (batch, 1), generator)
        which, where = torch.rand(2, batch, generator=generator, dtype=torch.float64).numpy()
        rows = chosen(self.config.p, batch, generator).nonzero().flatten()
        if len(rows) == 0 or self.recordings is None:
            return x
        cut = [_cut(self.recordings, which[row], where[row], x.shape[1]) for row in rows.tolist()]
        noise = torch.from_numpy(np.stack(cut)).to(x.device).float().mul_(1 / 32768)
        changed = rows.to(x.device)
        wanted = _rms(x[changed].float()) * 10 ** (-snr_db[rows].to(x.device) / 20)
        scale = wanted / _rms(noise).clamp_min(1e-5)  # silence of the recordings stays near to silence
        return x.index_add(0, changed, (noise * scale).to(x.dtype))


def _cut(recordings: Recordings, which: float, where: float, length: int) -> NDArray[Any]:
    """Return samples of a clip at a place, both of them drawn from [0, 1), (length,) as stored."""
    samples = recordings.samples_of(int(which * len(recordings)))
    if len(samples) < length:
        return np.resize(np.roll(samples, -int(where * len(samples))), length)
    start = int(where * (len(samples) - length + 1))
    return samples[start : start + length]


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(1, keepdim=True).sqrt()
