"""A CNN for small data sets of sounds: stages of convolutions, each pooled before its BatchNorm."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn import functional

from audio_cls.components.models.base import Model, maps_of, refuse_shape
from audio_cls.components.models.cnn import GridAverage

__all__ = ["DeepCnn"]

_MODULATION_UNITS = 64  # of the modulation branch, before the head
_SPECTRUM_FLOOR = 1e-3  # added to the power of modulation, which is about 1 for noise
_SPECTRUM_SCALE, _SPECTRUM_OFFSET = (
    0.3,
    1.0,
)  # bring the logarithm of that power to a mean near 0 and a deviation near 1
_CONTRAST_FLOOR = 0.1  # added to a band's deviation over the clip, in units of the training deviation


class DeepCnn(Model, kind="deep_cnn"):
    """Stages of 3x3 convolutions, pooled before BatchNorm and ReLU: 755,978 parameters for one input channel and 10 classes.

    The convolutions of a stage have the same width and no bias; the last one of a stage is max-pooled, then comes BatchNorm, then
    ReLU: on a CPU this costs a third less than pooling after them, since both run on the pooled map. The first convolution has a
    kernel of its own, long in time, because pooling takes away fast modulation. The head adds the maximum and the mean over time,
    keeps `bands` frequency bands apart, and goes through dropout, a hidden linear layer with ReLU, dropout and a linear layer.

    With `contrast` the network also sees each band less its mean over the clip, divided by its deviation over the clip, as a second
    input channel. That does not change with the level or the frequency response of a recording (frequency-wise instance normalisation:
    Kim et al., "Domain generalization with relaxed instance frequency-wise normalization for multi-device acoustic scene
    classification", Interspeech 2022).

    With `modulation` a branch of two convolutions sees the modulation spectrum: the logarithm of the power of each normalised band's
    Fourier transform over the clip, by band and modulation frequency (Greenberg and Kingsbury, "The modulation spectrogram", ICASSP
    1997). It tells periodic sounds from noise of the same spectrum: a helicopter's blades, 8 to 14 a second, from rain. All inputs
    must then be as long as those that the model was built for.
    """

    added_fields = frozenset({"modulation"})
    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram",)

    widths: tuple[PositiveInt, ...] = Field(default=(24, 48, 96, 192), min_length=1)
    """Channels of each stage."""
    convolutions: tuple[PositiveInt, ...] = Field(default=(1, 2, 2, 2), min_length=1)
    """Convolutions in each stage; one number for all stages or one for each."""
    pool_bands: tuple[PositiveInt, ...] = Field(default=(2,), min_length=1)
    """Max-pooling over frequency after each stage, 1 for none; one number for all stages or one for each."""
    pool_frames: tuple[PositiveInt, ...] = Field(default=(4, 2, 2, 2), min_length=1)
    """Max-pooling over time after each stage, 1 for none; one number for all stages or one for each."""
    first_kernel: tuple[PositiveInt, PositiveInt] = (5, 7)
    """Bands and frames of the first convolution's kernel, odd."""
    contrast: bool = True
    """Whether a second input channel holds the bands normalised over the clip."""
    modulation: int = Field(default=0, ge=0)
    """Channels of the first of two convolutions over the modulation spectrum, half of the second's; 0 for no such branch."""
    bands: int = Field(default=4, ge=1)
    """Frequency bands that the head keeps apart."""
    hidden: int = Field(default=128, ge=1)
    """Units of the hidden layer."""
    dropout: float = Field(default=0.4, ge=0, lt=1)
    """Before the hidden layer."""
    hidden_dropout: float = Field(default=0.2, ge=0, lt=1)
    """After the hidden layer."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        stages = len(self.widths)
        for name in ("convolutions", "pool_bands", "pool_frames"):
            found = len(getattr(self, name))
            if found not in (1, stages):
                words = {"name": name, "found": found, "expected": f"1 or {stages}" if stages > 1 else "1"}
                raise PydanticCustomError("length", "{name}: {found} values found, expected {expected}", words)
        if any(size % 2 == 0 for size in self.first_kernel):
            raise PydanticCustomError("odd", "first_kernel: expected odd numbers")
        return self

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        pools = list(zip(self._for_each(self.pool_bands), self._for_each(self.pool_frames), strict=True))
        shrink = math.prod(p for p, _ in pools), math.prod(p for _, p in pools)
        channels, n_bins, frames = maps_of(self, input_shape, 1)
        if n_bins // shrink[0] < self.bands or frames < shrink[1]:
            raise refuse_shape(
                self,
                input_shape,
                f"at least {self.bands * shrink[0]} bins, to keep model.bands={self.bands} after its pooling, and {shrink[1]} frames",
            )
        if self.modulation and (n_bins < 16 or frames < 8):
            raise refuse_shape(self, input_shape, "at least 16 bins and 8 frames for its modulation branch")
        return _DeepCnn(self, (channels, n_bins, frames), pools, n_classes)

    def _for_each(self, values: tuple[int, ...]) -> tuple[int, ...]:
        return values * len(self.widths) if len(values) == 1 else values

    def layers(self, channels: int, pools: list[tuple[int, int]]) -> list[nn.Module]:
        """Return the convolutional layers for inputs of `channels` channels; `pools` are (bands, frames) of each stage."""
        made: list[nn.Module] = []
        for width, number, pool in zip(self.widths, self._for_each(self.convolutions), pools, strict=True):
            for last in [False] * (number - 1) + [True]:
                kernel = (3, 3) if made else self.first_kernel
                made.append(_PooledConvolution(channels, width, kernel, pool if last else (1, 1)))
                channels = width
        return made


class _DeepCnn(nn.Module):
    def __init__(
        self, config: DeepCnn, shape: tuple[int, int, int], pools: list[tuple[int, int]], n_classes: int
    ) -> None:
        super().__init__()
        channels, n_bins, frames = shape
        self.contrast = config.contrast
        self.layers = nn.Sequential(*config.layers(channels * (2 if config.contrast else 1), pools))
        rows = n_bins
        for pool, _ in pools:
            rows //= pool
        branch = _ModulationBranch(channels, frames, config.modulation, config.dropout) if config.modulation else None
        self.modulation = branch
        more = 0 if branch is None else _MODULATION_UNITS
        self.average = GridAverage((rows, 1), (config.bands, 1))
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.widths[-1] * config.bands + more, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.hidden_dropout),
        )
        self.output = nn.Linear(config.hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        more = []
        if self.contrast or self.modulation is not None:
            std, mean = torch.std_mean(x, dim=3, keepdim=True, correction=0)
            contrast = (x - mean) / (std + _CONTRAST_FLOOR)
            if self.modulation is not None:
                more = [self.modulation(contrast)]
            if self.contrast:
                x = torch.cat([x, contrast], dim=1).contiguous(memory_format=torch.channels_last)
        maps = self.layers(x)  # (batch, widths[-1], rows, columns)
        over_time = maps.mean(3, keepdim=True) + maps.amax(3, keepdim=True)
        bands = self.average(over_time).flatten(1)
        return self.output(self.head(torch.cat([bands, *(units.to(bands.dtype) for units in more)], dim=1)))


class _ModulationBranch(nn.Module):
    """Bands normalised over the clip, (batch, channels, n_bins, frames), to (batch, 64) values of their modulation spectra."""

    waves: Tensor

    def __init__(self, channels: int, frames: int, width: int, dropout: float) -> None:
        super().__init__()
        n = frames // 2
        phase = 2 * math.pi / frames * torch.outer(torch.arange(frames), torch.arange(1, n + 1)) % (2 * math.pi)
        window = torch.hann_window(frames)[:, None] / math.sqrt(frames)
        self.register_buffer("waves", torch.cat([phase.cos(), phase.sin()], dim=1) * window, persistent=False)
        self.convolutions = nn.Sequential(
            _PooledConvolution(channels, width, (3, 3), (4, 1)), _PooledConvolution(width, 2 * width, (3, 3), (4, 2))
        )
        self.units = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * width * (n // 2), _MODULATION_UNITS), nn.ReLU(inplace=True)
        )

    def forward(self, contrast: Tensor) -> Tensor:
        with torch.autocast(contrast.device.type, enabled=False):
            cosines, sines = (contrast.float() @ self.waves).chunk(2, dim=3)  # (batch, channels, n_bins, frames / 2)
            power = cosines.square() + sines.square()
            spectrum = (power + _SPECTRUM_FLOOR).log() * _SPECTRUM_SCALE + _SPECTRUM_OFFSET
        maps = self.convolutions(spectrum.contiguous(memory_format=torch.channels_last))
        return self.units((maps.mean(2) + maps.amax(2)).flatten(1))


class _PooledConvolution(nn.Module):
    """A convolution that keeps the size of its map, max-pooling, BatchNorm, ReLU."""

    def __init__(self, channels: int, width: int, kernel: tuple[int, int], pool: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(channels, width, kernel, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.pool != (1, 1):
            x = functional.max_pool2d(x, self.pool)
        return functional.relu(self.norm(x), inplace=True)
