"""Features of rows that are no waveforms: vectors of a sequence, columns of a picture. Computed as a batch is gathered."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.features import FeatureExtractor, Features
from audio_cls.components.normaliser import IMAGENET, Normalisation
from audio_cls.core.config import ConfigError

if TYPE_CHECKING:
    from audio_cls.core.payload import Payload

__all__ = ["BEGIN", "END", "PADDING", "REAL", "Frames", "Pixels", "RowExtractor", "RowFeatures"]

REAL, PADDING, BEGIN, END = range(4)
"""What stands at a frame: a row of the clip, nothing, or a marker before its first or after its last row."""
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class RowExtractor(FeatureExtractor):
    """Stored rows (batch, frames, *row) to features.

    Attributes:
        row: shape of a row.
        margin: frames of markers before and after each clip.
        n_bins: of the statistics that a normaliser takes: values of a vector, or channels.
    """

    def __init__(self, payload: Payload, n_bins: int, *, stored: bool = False, margin: int = 0) -> None:
        super().__init__(hop_length=1, n_bins=n_bins)
        self.row, self.margin = payload.row, margin
        self.scale, self.offset = (1.0, 0.0) if stored else (payload.scale, payload.offset)

    def frames(self, n_samples: int) -> int:
        """Return the number of frames that a clip of so many rows gives, with its markers."""
        return n_samples + 2 * self.margin

    def values(self, rows: Tensor) -> Tensor:
        """Return stored rows as float32 numbers of the same shape."""
        return rows.float().mul_(self.scale).add_(self.offset)

    def shape(self, n_rows: int) -> tuple[int, ...]:
        """Return the shape of the features of one clip, without the batch axis."""
        raise NotImplementedError

    def statistics_rows(self, rows: Tensor) -> Tensor:
        """Return stored rows (rows, *row) as what statistics are taken of: (m, n_bins) float32."""
        raise NotImplementedError

    def filler_values(self) -> tuple[float, float, float] | None:
        """Return the value of all numbers of a frame of padding, of a begin and of an end marker, before normalisation; None for
        features whose frames are not told apart.
        """
        return None

    def forward(self, rows: Tensor, place: Tensor | None = None) -> Tensor:
        """Return features of rows (batch, frames, *row); `place` (batch, frames) says what stands at each frame, none: rows."""
        raise NotImplementedError


class RowFeatures(Features):
    """Features of rows that are no waveforms: they are built for what the corpus holds."""

    def build(self, sample_rate: int) -> NoReturn:
        """Refuse to be built for waveforms.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"features.kind={self.kind} takes a corpus of {self.input_domain}s, no waveforms or audio files"
        )

    def build_for(self, payload: Payload) -> RowExtractor:
        """Return an extractor for rows of a corpus.

        Raises:
            ConfigError: for settings that these rows cannot meet.
        """
        raise NotImplementedError


class Frames(RowFeatures, kind="frames"):
    """The vectors of a sequence, (batch, 1, n_values, frames).

    Padding is 0 before normalisation. A clip can be marked by a frame before and one after it, of one value each.
    """

    input_domain: ClassVar[str] = "sequence"
    output_domain: ClassVar[str] = "sequence"

    normalise: Normalisation = "band"
    """Subtract mean and divide by standard deviation of the training clips: by value of the vector, over all values, or not at all."""
    dequantise: bool = True
    """Turn stored values into numbers by the corpus's scale and offset; false keeps what is stored, such as 0 to 255."""
    markers: tuple[float, float] | None = None
    """Values of a frame before and a frame after each clip, such as -1 and -2; none adds no frames."""

    def build_for(self, payload: Payload) -> RowExtractor:
        return _FramesExtractor(self, payload)


class Pixels(RowFeatures, kind="pixels"):
    """Pictures as an image network takes them, (batch, channels, height, width), values from 0 to 1 before normalisation.

    Padding is black. With `size` each window is resized (bilinear, with anti-aliasing) to a square, as networks that were
    trained on ImageNet expect.
    """

    input_domain: ClassVar[str] = "image"
    output_domain: ClassVar[str] = "image"

    normalise: Literal["channel", "imagenet", "global", "none"] = "channel"  # type: ignore[assignment]
    """Mean and standard deviation of the training clips by channel or over all values, those of ImageNet, or none."""
    size: int | None = Field(default=None, ge=8, le=2048)
    """Height and width of the picture; none keeps the pixels as they are packed."""
    channels: Literal[1, 3] | None = None
    """3 repeats grey, 1 takes the luminance of colours; none keeps what is packed."""

    def build_for(self, payload: Payload) -> RowExtractor:
        channels = self.channels or payload.row[0]
        if self.normalise == "imagenet" and channels != len(IMAGENET[0]):
            raise ConfigError(
                "features.normalise=imagenet: the mean and deviation of ImageNet are those of three channels, these pictures have 1: "
                "set features.channels=3"
            )
        return _PixelsExtractor(self, payload, channels)


class _FramesExtractor(RowExtractor):
    def __init__(self, config: Frames, payload: Payload) -> None:
        margin = 0 if config.markers is None else 1
        super().__init__(payload, payload.row[0], stored=not config.dequantise, margin=margin)
        self.markers = config.markers or (0.0, 0.0)

    def filler_values(self) -> tuple[float, float, float]:
        return (0.0, *self.markers)

    def shape(self, n_rows: int) -> tuple[int, ...]:
        return (1, self.n_bins, self.frames(n_rows))

    def statistics_rows(self, rows: Tensor) -> Tensor:
        return self.values(rows)

    @torch.no_grad()
    def forward(self, rows: Tensor, place: Tensor | None = None) -> Tensor:
        values = self.values(rows)
        if place is not None:
            for kind, value in ((PADDING, 0.0), (BEGIN, self.markers[0]), (END, self.markers[1])):
                values.masked_fill_((place == kind)[:, :, None], value)
        return values.transpose(1, 2).unsqueeze(1)


class _PixelsExtractor(RowExtractor):
    def __init__(self, config: Pixels, payload: Payload, channels: int) -> None:
        super().__init__(payload, channels)
        self.size, self.stored_channels = config.size, payload.row[0]

    def shape(self, n_rows: int) -> tuple[int, ...]:
        return (self.n_bins, self.size, self.size) if self.size else (self.n_bins, self.row[1], n_rows)

    def statistics_rows(self, rows: Tensor) -> Tensor:
        return self._channels(self.values(rows)).transpose(1, 2).reshape(-1, self.n_bins)

    def _channels(self, x: Tensor) -> Tensor:
        """Turn (n, stored channels, ...) into (n, channels, ...)."""
        if self.n_bins == self.stored_channels:
            return x
        if self.n_bins == 3:
            return x.expand(-1, 3, *x.shape[2:])
        weights = x.new_tensor(_LUMINANCE).view(1, 3, *[1] * (x.dim() - 2))
        return (x * weights).sum(1, keepdim=True)

    @torch.no_grad()
    def forward(self, rows: Tensor, place: Tensor | None = None) -> Tensor:
        x = self.values(rows)  # (batch, frames, channels, height)
        if place is not None:
            x.masked_fill_((place != REAL)[:, :, None, None], 0.0)
        x = self._channels(x.permute(0, 2, 3, 1))
        if self.size is None:
            return x.contiguous()
        size = (self.size, self.size)
        return torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
