"""One-dimensional CNNs on the raw waveform: M3, M5, M11 and M18."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from audio_cls.components.models.base import Model, refuse_shape
from audio_cls.components.models.initial_weights import draw_convolutions_by_fan_out

__all__ = ["WaveformCnn"]

_POOL, _STRIDE = 4, 4
# channels of the convolutions of each group; each group but the last is followed by max-pooling
_LAYOUTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "m3": ((256,), (256,), ()),
    "m5": ((128,), (128,), (256,), (512,), ()),
    "m11": ((64,), (64,) * 2, (128,) * 2, (256,) * 3, (512,) * 2),
    "m18": ((64,), (64,) * 4, (128,) * 4, (256,) * 4, (512,) * 4),
}


class WaveformCnn(Model, kind="waveform_cnn"):
    """CNN on the raw waveform: M3 has 220,682, M5 558,090, M11 1,784,202 and M18 3,679,882 parameters for 10 classes. Dai et al., "Very deep
    convolutional neural networks for raw waveforms", 2017, table 1.

    A convolution of 80 samples and stride 4, then convolutions of 3, each without bias, with BatchNorm and ReLU, max-pooling by 4
    between groups, the mean over time, dropout and a linear layer. Published for 4 s at 8 kHz: at a higher sample rate the first
    filters span less time; resample to 8 kHz, or lengthen them by `kernel`.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("waveform",)

    layout: Literal["m3", "m5", "m11", "m18"] = "m5"
    """Number of weighted layers, with the published widths."""
    kernel: int = Field(default=80, ge=4)
    """Samples of the first filters."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before the output layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        groups = _LAYOUTS[self.layout]
        shortest = _STRIDE * _POOL ** (len(groups) - 1)
        if len(input_shape) != 1 or input_shape[0] < shortest:
            raise refuse_shape(self, input_shape, f"(samples,), at least {shortest} of them for its pooling")
        return _WaveformCnn(self, groups, n_classes)


class _WaveformCnn(nn.Module):
    def __init__(self, config: WaveformCnn, groups: tuple[tuple[int, ...], ...], n_classes: int) -> None:
        super().__init__()
        channels = groups[0][0]
        padding = (config.kernel - _STRIDE + 1) // 2  # one output for each full stride
        layers: list[nn.Module] = [
            nn.Conv1d(1, channels, config.kernel, _STRIDE, padding, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
        ]
        for group in groups[1:]:
            layers.append(nn.MaxPool1d(_POOL))
            for width in group:
                layers += [
                    nn.Conv1d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm1d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(channels, n_classes)
        draw_convolutions_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks(x.unsqueeze(1))  # (batch, 512, samples / 1024)
        return self.output(self.dropout(features.mean(2)))
