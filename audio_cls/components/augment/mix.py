"""Augmentations that mix clips with each other and their targets likewise; inputs of any domain."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Mixer, Stage, chosen, spread

__all__ = ["CutMix", "Mixup", "beta_shares"]

On = Literal["features", "waveform"]


class Mixup(Augmentation, kind="mixup"):
    """x = l x_i + (1 - l) x_j and y likewise, l from Beta(alpha, alpha) for each clip, j from a permutation of the batch.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. A clip is mixed with probability `p`.
    """

    domain: ClassVar[str] = "mix"
    order: ClassVar[int] = 90
    added_fields = frozenset({"on"})

    alpha: float = Field(default=0.3, gt=0)
    """Of the Beta(alpha, alpha) from which the share of the first clip is drawn."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""
    on: On = "features"
    """What is mixed: normalised features, or the waveforms that they are computed from."""

    @property
    def stage(self) -> Stage:
        return "mix" if self.on == "features" else "waveform_mix"

    def build(self, sample_rate: int, hop_length: int) -> Mixer:
        def mix(x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
            partner = torch.randperm(len(x), generator=generator).to(x.device)
            share = beta_shares(self.alpha, self.p, len(x), generator)
            return torch.lerp(x[partner], x, spread(share, x)), torch.lerp(y[partner], y, spread(share, y))

        return mix


class CutMix(Augmentation, kind="cutmix"):
    """Replace a stretch of time by the same stretch of another clip of the batch; targets are mixed by their shares of the time.

    Yun et al., "CutMix", ICCV 2019, along time only: a share 1 - l of the clip is replaced, l from Beta(alpha, alpha), at a
    uniform place, where the other clip comes from a permutation of the batch.
    """

    domain: ClassVar[str] = "mix"
    domains: ClassVar[tuple[str, ...]] = ("waveform", "spectrogram", "sequence", "image")
    order: ClassVar[int] = 85

    alpha: float = Field(default=1.0, gt=0)
    """Of the Beta(alpha, alpha) from which the share of the clip that stays is drawn."""
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a clip is changed."""
    on: On = "features"
    """What is cut: normalised features, or the waveforms that they are computed from."""

    @property
    def stage(self) -> Stage:
        return "mix" if self.on == "features" else "waveform_mix"

    def build(self, sample_rate: int, hop_length: int) -> Mixer:
        def cut(x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
            batch, length = len(x), x.shape[-1]
            partner = torch.randperm(batch, generator=generator).to(x.device)
            share = beta_shares(self.alpha, self.p, batch, generator)
            width = ((1 - share) * length).round().long()
            start = (torch.rand(batch, generator=generator) * (length - width + 1)).long().minimum(length - width)
            place = torch.arange(length)
            inside = (place >= start[:, None]) & (place < (start + width)[:, None])
            inside = inside.to(x.device).view(batch, *[1] * (x.dim() - 2), length)
            return torch.where(inside, x[partner], x), torch.lerp(y[partner], y, spread(1 - width / length, y))

        return cut


def beta_shares(alpha: float, p: float, batch: int, generator: torch.Generator) -> Tensor:
    """Return draws from Beta(alpha, alpha), each replaced by 1 with probability 1 - `p`: (batch,) float32 on the CPU."""
    # PyTorch's Beta takes no generator
    beta = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
    share = torch.from_numpy(beta.beta(alpha, alpha, batch).astype(np.float32))
    return torch.where(chosen(p, batch, generator), share, torch.ones(()))
