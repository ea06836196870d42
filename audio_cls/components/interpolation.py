"""Linear interpolation of spectrograms along one axis."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["interpolate", "tempo_places"]


def tempo_places(frames: int, rate: Tensor | float) -> Tensor:
    """Return where the frames of a clip at another tempo lie in the clip, float32, circular, the middle staying in place.

    Args:
        frames: of the clip and of the result.
        rate: above 1 is faster; a number, or (batch, 1) for places (batch, frames).
    """
    return ((torch.arange(frames) - frames / 2) * rate + frames / 2).remainder(frames)


def interpolate(x: Tensor, places: Tensor, axis: int, *, circular: bool) -> Tensor:
    """Return x (batch, channels, n_bins, frames) at fractional places along axis 2 or 3, linearly interpolated.

    Args:
        places: (batch, n), or (n,) for all of the batch; from 0 to the size of the axis, which itself is only allowed if `circular`.
        circular: the last value is followed by the first one; else it repeats.
    """
    size = x.shape[axis]
    low = places.floor()
    weight = (places - low).to(x.dtype)
    first = low.long().remainder(size)
    second = (first + 1).remainder(size) if circular else (first + 1).clamp(max=size - 1)
    if places.dim() == 1:
        weight = weight.view([-1 if i == axis else 1 for i in range(4)])
        return torch.lerp(x.index_select(axis, first), x.index_select(axis, second), weight)
    shape = [len(x), 1, 1, 1]
    shape[axis] = places.shape[1]
    target = [*x.shape]
    target[axis] = places.shape[1]
    one, other = (x.gather(axis, index.view(shape).expand(target)) for index in (first, second))
    return torch.lerp(one, other, weight.view(shape).expand(target))
