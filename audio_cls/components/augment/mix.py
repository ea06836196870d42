"""Augmentations that mix clips with each other and their targets likewise; inputs of any domain."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Mixer, chosen

__all__ = ["Mixup"]


class Mixup(Augmentation, kind="mixup"):
    """x = l x_i + (1 - l) x_j and y likewise, l from Beta(alpha, alpha) for each clip, j from a permutation of the batch.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. A clip is mixed with probability `p`.
    """

    domain: ClassVar[str] = "mix"
    order: ClassVar[int] = 90

    alpha: float = Field(default=0.3, gt=0)
    """Of the Beta(alpha, alpha) from which the share of the first clip is drawn."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Mixer:
        def mix(x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
            batch = len(x)
            partner = torch.randperm(batch, generator=generator)
            # PyTorch's Beta takes no generator
            beta = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
            share = torch.from_numpy(beta.beta(self.alpha, self.alpha, batch).astype(np.float32))
            share = torch.where(chosen(self.p, batch, generator), share, torch.ones(()))
            partner, share = partner.to(x.device), share.to(x.device)
            return _blend(x, partner, share), _blend(y, partner, share)

        return mix


def _blend(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    weight = share.to(values.dtype).view(-1, *[1] * (values.dim() - 1))
    return torch.lerp(values[partner], values, weight)
