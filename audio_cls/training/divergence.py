"""What is no longer a number: checks of weights, buffers, normalisation and logits.

A run that fails one of them has diverged; it is never scored. An infinite value counts as much as NaN: features divided by an
infinite deviation, or by an infinite batch variance, are zeros, and the model then gives every clip the same finite answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from audio_cls.training.row_windows import PackedRows

if TYPE_CHECKING:
    from audio_cls.experiment import Chain
    from audio_cls.training.batches import Batches

__all__ = ["FIRST_LOSS", "MEDIAN_LOSS", "Diverged", "StateCheck", "check_logits", "risen_loss"]

FIRST_LOSS = "train/loss_first_step"
"""Key of the first epoch's row: the loss of the first step, before any weight has changed."""

MEDIAN_LOSS = "train/loss_median"
"""Key of each epoch's row: the median loss over its steps (of an even number the upper one), which single spikes do not move."""

RISE = 100.0  # times the first step's loss
LEAST = 0.1  # a loss that starts below is taken to start here: 0.001 that became 0.2 is no collapse
NORMALISER = "normaliser."  # prefix of its buffers in a classifier


class Diverged(Exception):
    """Training or evaluation left the finite numbers; the message says what, and where."""


class StateCheck:
    """Checks that the weights and buffers of a chain are finite.

    A buffer of the model may hold infinities from the start (an attention mask, say); it must then stay free of NaN.
    """

    def __init__(self, chain: Chain, batches: Batches) -> None:
        """Check a chain as it was built.

        Raises:
            Diverged: naming the weight or buffer, and the first training clip whose features are not finite.
        """
        self._module = chain.classifier
        buffers = dict(self._module.named_buffers())
        self._masks = {name for name, b in buffers.items() if not name.startswith(NORMALISER) and _has_infinity(b)}
        try:
            self.check("before training")
        except Diverged as error:
            clip = _first_bad_clip(batches)
            raise Diverged(f"{error}; the features of clip {clip!r} are not finite" if clip else str(error)) from None

    def check(self, when: str) -> None:
        """Check the chain as it is now; `when` joins the message ("after epoch 3").

        Raises:
            Diverged: naming the first weight or buffer with NaN or an infinity.
        """
        for kind, named in (("weight", self._module.named_parameters()), ("buffer", self._module.named_buffers())):
            for name, value in named:
                bad = torch.isnan(value) if name in self._masks else ~torch.isfinite(value)
                if bool(bad.any()):
                    raise Diverged(
                        f"the {kind} {name} is not finite {when}: {int(bad.sum())} of {value.numel()} values are NaN or infinite"
                    )


def check_logits(logits: Tensor, clips: Sequence[str], when: str) -> None:
    """Check the logits (n, n_classes) of some clips, named in the same order; `when` joins the message.

    Raises:
        Diverged: saying for how many clips they are NaN or infinite, and naming the first.
    """
    bad = (~torch.isfinite(logits)).any(dim=1)
    if bool(bad.any()):
        first = clips[int(bad.nonzero()[0])]
        raise Diverged(
            f"the logits of {int(bad.sum())} of {len(clips)} clips are NaN or infinite {when}, first those of clip {first!r}"
        )


def risen_loss(history: Sequence[Mapping[str, float]], epoch: int) -> str:
    """Say how far the training loss of an epoch (from 0) has risen above that of the first step; empty if it has not, or if that
    is not known (a run of an earlier version, a model fitted at once).

    The rule: the median over the epoch's steps is 100 times the first step's loss or more, and 10 or more. The first step's loss
    is that of the untrained model, so warm-up and soft targets of mixing do not matter; after a second step at a learning rate
    far too large, the loss has risen already.
    """
    if not 0 <= epoch < len(history):
        return ""
    first, median = history[0].get(FIRST_LOSS), history[epoch].get(MEDIAN_LOSS)
    if first is None or median is None or median < RISE * max(first, LEAST):
        return ""
    return f"the training loss rose from {first:.3g} in the first step to {median:.3g} in epoch {epoch + 1} (median of its steps)"


def _has_infinity(value: Tensor) -> bool:
    return value.is_floating_point() and bool(torch.isinf(value).any())


def _first_bad_clip(batches: Batches) -> str | None:
    """Return the id of the first training clip whose packed features are not finite; None if there is none."""
    if batches.is_waveform:
        return None
    for clip in batches.split.train.tolist():
        if isinstance(batches.packed, PackedRows):
            x = batches.features(np.array([clip]), np.array([0.5]))
        else:
            x = batches.packed.rows(np.array([clip]))
        if not bool(torch.isfinite(x).all()):
            return str(batches.corpus.ids[clip])
    return None
