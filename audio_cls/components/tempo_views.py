"""Test-time augmentation: a spectrogram is judged at several tempos, and the probabilities are averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_cls.components.interpolation import interpolate, tempo_places

__all__ = ["TempoViews", "mean_logits"]


class TempoViews(nn.Module):
    """Judge spectrograms (batch, channels, n_bins, frames) at several tempos, as `augment.warp` changes them in training.

    Args:
        rates: tempos, above 1 is faster.
        multiclass: one label a clip; else several.
    """

    def __init__(self, rates: Sequence[float], *, multiclass: bool) -> None:
        super().__init__()
        self.rates, self.multiclass = tuple(rates), multiclass

    def forward(self, x: Tensor, model: Callable[[Tensor], Tensor]) -> Tensor:
        """Return logits (batch, n_classes) float32 of the mean of `model`'s probabilities over the tempos."""
        views = [x if rate == 1 else self._at(x, rate) for rate in self.rates]
        logits = model(torch.cat(views)).float()
        return mean_logits(logits.unflatten(0, (len(views), -1)), multiclass=self.multiclass)

    def _at(self, x: Tensor, rate: float) -> Tensor:
        return interpolate(x, tempo_places(x.shape[3], rate).to(x.device), 3, circular=True)


def mean_logits(logits: Tensor, *, multiclass: bool) -> Tensor:
    """Return the logits (batch, n_classes) whose softmax or sigmoid is the mean of the probabilities of logits (n, batch, n_classes)."""
    if multiclass:
        return functional.log_softmax(logits, dim=2).logsumexp(0) - math.log(logits.shape[0])
    return functional.logsigmoid(logits).logsumexp(0) - functional.logsigmoid(-logits).logsumexp(0)
