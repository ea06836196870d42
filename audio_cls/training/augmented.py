"""A training batch on its way to the model: augmented, turned into features, normalised, mixed."""

from __future__ import annotations

import torch

from audio_cls.experiment import Chain
from audio_cls.training.batches import Batch

__all__ = ["augment"]


def augment(
    chain: Chain, batch: Batch, random: torch.Generator, from_waveforms: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch on its way to the model: waveforms changed, then mixed; features, normalised, changed, then mixed.

    Features are taken of the clips whose waveform was changed, and rounded as the packed ones are, which the other clips keep.
    Normalised before feature operations, so that a mask of zeros is a mask of the training mean.
    """
    x, y = batch.x, batch.y
    with torch.no_grad():
        if from_waveforms:
            before = x if batch.packed is None else x.clone()  # an operation of a user's own may change its input
            for op in chain.augment.waveform:
                x = op(x, random)
            for mix in chain.augment.waveform_mix:
                x, y = mix(x, y, random)
            if batch.packed is None:
                x = chain.features(x)
            else:
                changed = (x != before).any(1).nonzero().flatten()
                fresh = chain.features(x[changed]).to(torch.float16).float()
                x = batch.packed.index_copy(0, changed, fresh)
        x = chain.classifier.normaliser(x)
        for op in chain.augment.features:
            x = op(x, random)
        for mix in chain.augment.mix:
            x, y = mix(x, y, random)
    return x, y
