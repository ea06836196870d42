"""Augmentations of sequences of vectors, (batch, 1, n_values, frames), after normalisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Augmenter, Mixer, Range, chosen, spread, uniform
from audio_cls.core.payload import QUANTISED_PCA

__all__ = ["AveragePositives", "Offset"]


class Offset(Augmentation, kind="offset"):
    """Add one constant, drawn uniformly from `range`, to all values of a clip.

    The constant is in units of the normalised features: standard deviations of the training clips. It has no meaning for
    quantised PCA embeddings: the same constant along all principal components is a direction that no sound moves in.
    """

    domain: ClassVar[str] = "sequence"
    order: ClassVar[int] = 20

    range: Range = (-0.5, 0.5)
    """Lowest and highest constant, in standard deviations."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""
    force: bool = False
    """Apply it to values for which it has no meaning."""

    def refusal(self, values: str) -> str | None:
        if self.force or values != QUANTISED_PCA:
            return None
        return (
            "a constant added to all principal components is a direction that no sound moves in, and beyond the quantised range "
            "such values do not occur"
        )

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        def offset(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch = len(x)
            by = uniform(*self.range, (batch,), generator) * chosen(self.p, batch, generator)
            return x + spread(by, x)

        return offset


class AveragePositives(Augmentation, kind="average_positives"):
    """Replace a clip by the mean of it and another clip of the batch that has a label with it in common; targets become the larger of both.

    Clips without a partner stay as they are. For quantised PCA embeddings a mean of two is the embedding of no mixture: the
    network that made them is not linear.
    """

    domain: ClassVar[str] = "mix"
    domains: ClassVar[tuple[str, ...]] = ("sequence",)
    order: ClassVar[int] = 80

    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a clip is changed."""
    force: bool = False
    """Apply it to values for which it has no meaning."""

    def refusal(self, values: str) -> str | None:
        if self.force or values != QUANTISED_PCA:
            return None
        return "the mean of two embeddings is that of no sound: the network that made them is not linear"

    def build(self, sample_rate: int, hop_length: int) -> Mixer:
        def average(x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
            batch = len(x)
            labels = (y > 0.5).to("cpu", torch.float32)
            shared = (labels @ labels.T > 0) & ~torch.eye(batch, dtype=torch.bool)
            scores = torch.rand(batch, batch, generator=generator).masked_fill_(~shared, -1.0)
            changed = (chosen(self.p, batch, generator) & shared.any(1)).to(x.device)
            partner = scores.argmax(1).to(x.device)
            mean = torch.where(changed.view(-1, *[1] * (x.dim() - 1)), (x + x[partner]) / 2, x)
            return mean, torch.where(changed[:, None], torch.maximum(y, y[partner]), y)

        return average
