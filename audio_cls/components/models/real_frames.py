"""Which frames of a window are rows of the clip, and not padding or markers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audio_cls.components.normaliser import Normaliser
from audio_cls.components.row_features import RowExtractor

__all__ = ["RealFrames", "last_real_frame", "learn_filler_frames"]

_TOLERANCE = 1e-4  # relative; two frames of a clip differ by about one standard deviation


class RealFrames(nn.Module):
    """Tell rows of a clip from the padding and the begin and end markers that `features.kind=frames` puts around them.

    What such frames look like after normalisation is known once `learn_filler_frames` has been called; until then, and for features
    without them (spectrograms), every frame counts as real. A frame is a filler if it differs from one by the same number in all
    its values, so that a constant added to a whole clip (`augment.offset`) does not matter. Where an augmentation changes
    fillers otherwise (mixing a longer with a shorter clip), they count as real.

    Args:
        n_values: values of a frame.
    """

    fillers: Tensor
    known: Tensor

    def __init__(self, n_values: int) -> None:
        super().__init__()
        self.register_buffer("fillers", torch.zeros(3, n_values))  # padding, begin, end
        self.register_buffer("known", torch.zeros((), dtype=torch.bool))

    def learn(self, fillers: Tensor) -> None:
        """Take the frames that are no rows of a clip: (3, n_values), as a model is given them."""
        if fillers.shape[1] > 1:  # frames of one value cannot be told apart
            self.fillers.copy_(fillers)
            self.known.fill_(True)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """Return which of the frames (batch, n_values, n_frames) are rows of the clip: bool (batch, n_frames)."""
        real = torch.ones(frames.shape[0], frames.shape[2], dtype=torch.bool, device=frames.device)
        for filler in self.fillers.float():
            difference = frames.float() - filler[None, :, None]
            spread = difference.amax(1) - difference.amin(1)
            real = real & (spread > _TOLERANCE * (1 + filler.abs().amax(0)))
        return real | ~self.known


def last_real_frame(real: Tensor) -> Tensor:
    """Return the place of the last frame that is real, one-hot: (batch, frames) bool to (batch, frames) bool; the last of all if none is.

    A sum over frames weighted by it picks a frame with a gradient that is deterministic on CUDA, unlike an index.
    """
    at = torch.arange(real.shape[1], device=real.device)
    last = torch.where(real, at, -1).amax(1, keepdim=True)
    last = torch.where(last < 0, real.shape[1] - 1, last)
    return at[None] == last


def learn_filler_frames(model: nn.Module, features: nn.Module, normaliser: Normaliser) -> None:
    """Show each `RealFrames` of a model what padding and markers of its features look like after normalisation."""
    parts = [part for part in model.modules() if isinstance(part, RealFrames)]
    if not parts or not isinstance(features, RowExtractor):
        return
    values = features.filler_values()
    if values is None:
        return
    frames = torch.tensor(values)[:, None, None, None].expand(-1, 1, features.n_bins, 1)  # three clips of one frame
    with torch.no_grad():
        known = normaliser(frames.to(normaliser.mean.device))
    for part in parts:
        part.learn(known[:, 0, :, 0])
