"""The frame classifier of DCASE 2017: a small MLP sees some frames at a time, and the frames of a clip vote."""

from __future__ import annotations

import itertools
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from audio_cls.components.models.base import Model, refuse_shape

__all__ = ["FrameLayers", "FrameMlp", "frames_of"]


class FrameMlp(Model, kind="frame_mlp"):
    """The official baseline of DCASE 2017: linear layers on each frame with its neighbours, then a vote of the frames: 13,365 parameters
    for 40 mel bands and 15 classes, 25,679 for 64 bands and hidden=64,64 (Mesaros et al., DCASE 2017).

    Each frame is seen with `context` frames around it as one vector (5 x 40 = 200 values); at the edges of a clip the first and the
    last frame are repeated. Hidden layers have ReLU and dropout. The baseline uses windows of 40 ms with a hop of 20 ms.

    Vote: `mean` gives the mean of the frames' logits, whose softmax is the normalised geometric mean of the frames' probabilities.
    `majority` is the baseline's: each frame gives one vote to its best class, and the logits of a clip with n frames are
    log((votes + p) / (n + 1)), p being the softmax of the mean, which breaks ties and keeps the logarithm finite. It is for clips of
    one label; a training step always uses the mean.

    Training: the baseline minimises the mean over frames of each frame's cross entropy. With `training_frames=all` a step minimises
    the loss of the mean logits of all frames; cross entropy is then smaller than the frames' mean loss by
    -log sum_c (prod_t p_tc)^(1/n), which is 0 where the frames agree. With `one` a step uses one frame of each clip, drawn uniformly: the
    expectation of its loss, for any loss, is the baseline's, but it learns from few frames a step.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "sequence")

    context: int = Field(default=5, ge=1)
    """Frames that are seen at once; the frame itself is in their middle."""
    hidden: tuple[PositiveInt, ...] = Field(default=(50, 50), min_length=1)
    """Units of each hidden layer."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """After each hidden layer."""
    vote: Literal["mean", "majority"] = "mean"
    """How a clip is judged: by the mean of its frames' logits, or by the class that most frames choose (one label a clip)."""
    training_frames: Literal["all", "one"] = "all"
    """Frames of a clip that a training step learns from: all, through their mean, or one drawn at random."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        return _FrameMlp(self, frames_of(self, input_shape), n_classes)


def frames_of(model: Model, input_shape: tuple[int, ...]) -> int:
    """Return the number of values of a frame.

    Raises:
        ConfigError: for a shape that is not (channels, n_values, frames).
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise refuse_shape(
            model, input_shape, "(channels, n_bins, frames), for example features.kind=log_mel or frames"
        )
    return input_shape[0] * input_shape[1]


class FrameLayers(nn.Module):
    """Linear layers with ReLU and dropout on each frame and its neighbours: (batch, channels, n_bins, frames) to (batch, frames, hidden[-1]).

    The first layer, on `context` frames as one vector, is a convolution over time with the same weights.
    """

    def __init__(self, n_values: int, context: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.before, self.after = context // 2, context - 1 - context // 2
        self.first = nn.Conv1d(n_values, hidden[0], context)
        layers: list[nn.Module] = [nn.ReLU(inplace=True), nn.Dropout(dropout)]
        for size, width in itertools.pairwise(hidden):
            layers += [nn.Linear(size, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)  # (batch, n_values, frames)
        first, last = x[:, :, :1], x[:, :, -1:]
        # replication padding has no deterministic gradient on CUDA
        x = torch.cat([first.expand(-1, -1, self.before), x, last.expand(-1, -1, self.after)], 2)
        return self.layers(self.first(x).transpose(1, 2))


class _FrameMlp(nn.Module):
    def __init__(self, config: FrameMlp, n_values: int, n_classes: int) -> None:
        super().__init__()
        self.frames = FrameLayers(n_values, config.context, config.hidden, config.dropout)
        self.output = nn.Linear(config.hidden[-1], n_classes)
        self.majority, self.one_frame = config.vote == "majority", config.training_frames == "one"

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.frames(x)  # (batch, frames, hidden[-1])
        if self.training and self.one_frame:
            drawn = torch.randint(hidden.shape[1], (hidden.shape[0], 1), device=hidden.device)
            chosen = torch.arange(hidden.shape[1], device=hidden.device) == drawn
            return self.output((hidden * chosen[:, :, None].to(hidden.dtype)).sum(1))
        if self.training or not self.majority:
            return self.output(hidden.mean(1))  # the layer is linear: the mean of the frames' logits
        logits = self.output(hidden).float()  # (batch, frames, n_classes)
        votes = functional.one_hot(logits.argmax(2), logits.shape[2]).sum(1)
        return ((votes + logits.mean(1).softmax(1)) / (logits.shape[1] + 1)).log()
