"""Recurrent networks over frames: LSTM or GRU, read at the last frame of the clip."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from audio_cls.components.models.base import Model
from audio_cls.components.models.frame_mlp import frames_of
from audio_cls.components.models.real_frames import RealFrames, last_real_frame

__all__ = ["Rnn"]


class Rnn(Model, kind="rnn"):
    """LSTM or GRU layers over frames, read at the last frame of the clip: 150,530 parameters for frames of 128 values and 2 classes, 121,474
    with cell=gru (Hochreiter and Schmidhuber, 1997; Cho et al., 2014; sizes of a student project on AudioSet's embeddings).

    `layers` recurrent layers of `hidden` units with dropout between them, a linear layer of `head` units with ReLU, a linear layer.
    With `features.kind=frames` the output is that of the clip's last row, whatever padding and end marker follow it (`pooling=mean`: the mean
    over its rows). Use data.pad=end, so that no padding comes before the clip. For spectrograms it is that of the window's last frame.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("sequence", "spectrogram")

    cell: Literal["lstm", "gru"] = "lstm"
    """Long short-term memory, or gated recurrent units."""
    hidden: int = Field(default=64, ge=1)
    """Units of each recurrent layer."""
    layers: int = Field(default=3, ge=1)
    """Recurrent layers."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Between recurrent layers."""
    head: int = Field(default=512, ge=1)
    """Units of the linear layer before the output."""
    pooling: Literal["last", "mean"] = "last"
    """What the head takes: the output at the clip's last frame, or its mean over the clip's frames."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        return _Rnn(self, frames_of(self, input_shape), n_classes)


class _Rnn(nn.Module):
    def __init__(self, config: Rnn, n_values: int, n_classes: int) -> None:
        super().__init__()
        kind = nn.LSTM if config.cell == "lstm" else nn.GRU
        sizes = [n_values, *[config.hidden] * (config.layers - 1)]
        self.real = RealFrames(n_values)
        # a layer each: dropout inside cuDNN draws from a state of its own, which a run that is continued would not have
        self.layers = nn.ModuleList(kind(size, config.hidden, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(nn.Linear(config.hidden, config.head), nn.ReLU(inplace=True))
        self.output = nn.Linear(config.head, n_classes)
        self.mean = config.pooling == "mean"

    def forward(self, x: Tensor) -> Tensor:
        frames = x.flatten(1, 2)  # (batch, n_values, frames)
        real = self.real(frames)
        out = frames.transpose(1, 2).contiguous()
        for i, layer in enumerate(self.layers):
            out, _ = layer(self.dropout(out) if i else out)  # (batch, frames, hidden)
        weights = (real if self.mean else last_real_frame(real)).to(out.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        return self.output(self.head((out * weights.unsqueeze(2)).sum(1)))
