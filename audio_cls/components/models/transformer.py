"""A transformer encoder over frames or patches."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from audio_cls.components.models.base import Model, refuse_shape
from audio_cls.components.models.real_frames import RealFrames
from audio_cls.core.config import ConfigError

__all__ = ["Transformer"]


class Transformer(Model, kind="transformer"):
    """Transformer encoder over frames or patches: 1,203,074 parameters for sequences of 128 values and 2 classes, 1,195,914 for 64 bands
    and 10 classes. Vaswani et al., "Attention is all you need", 2017; patches as in Gong et al., "AST: audio spectrogram
    transformer", 2021.

    Each patch of `patch_bins` by `patch_frames` values becomes one vector of `width` numbers by a linear layer, and gets its position
    added. Layers of self-attention and a feed-forward network follow, each behind a LayerNorm and beside a residual connection
    (pre-norm); a last LayerNorm, the mean over the patches, dropout and a linear layer. Padding and markers of `features.kind=frames` are
    neither attended to nor averaged. Frames that are left over after the last
    whole patch are not seen. Cost grows with the square of the number of patches: for hundreds of frames take `patch_frames` 4 or
    more.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("sequence", "spectrogram")

    patch_frames: int = Field(default=1, ge=1)
    """Frames in a patch."""
    patch_bins: int | None = Field(default=None, ge=1)
    """Bands (values) in a patch; none takes all of them, so that a patch is a number of whole frames."""
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    """Of patches along time: sines and cosines, a learned vector each, or none. Along frequency they are learned."""
    width: int = Field(default=128, ge=2)
    """Numbers that stand for a patch."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; they share the width."""
    feedforward: int = Field(default=2048, ge=1)
    """Units of the hidden layer in each feed-forward network."""
    layers: int = Field(default=2, ge=1)
    """Encoder layers."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """On embedded patches, attention weights and the outputs of each part, and before the output layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        if len(input_shape) != 3 or min(input_shape) < 1 or input_shape[2] < self.patch_frames:
            needs = f"(channels, n_bins, frames), at least {self.patch_frames} frames for a patch"
            raise refuse_shape(self, input_shape, needs)
        if self.patch_bins is not None and input_shape[1] % self.patch_bins:
            n_bins = input_shape[1]
            allowed = ", ".join(str(i) for i in range(1, n_bins + 1) if n_bins % i == 0)
            raise ConfigError(
                f"model.patch_bins={self.patch_bins}: {n_bins} bands are no multiple of it. Allowed: {allowed}, or none"
            )
        if self.width % self.heads or self.width % 2:
            raise ConfigError(f"model.width={self.width}: must be even and a multiple of model.heads={self.heads}")
        return _Transformer(self, input_shape, n_classes)


class _Transformer(nn.Module):
    def __init__(self, config: Transformer, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.embed = _Patches(config, input_shape)
        self.layers = nn.ModuleList(
            _EncoderLayer(config.width, config.heads, config.feedforward, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens, real = self.embed(x)
        for layer in self.layers:
            tokens = layer(tokens, real)
        weights = (real / real.sum(1, keepdim=True)).to(tokens.dtype)  # (batch, tokens)
        return self.output(self.dropout((self.norm(tokens) * weights[:, :, None]).sum(1)))


class _Patches(nn.Module):
    """Turn maps (batch, channels, n_bins, frames) into embedded patches (batch, rows * columns, width) with their positions, and say
    which of them hold a real frame, bool (batch, rows * columns).
    """

    rows: nn.Parameter | None
    columns: nn.Parameter | None

    def __init__(self, config: Transformer, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, n_bins, frames = input_shape
        patch = (config.patch_bins or n_bins, config.patch_frames)
        n_rows, n_columns = n_bins // patch[0], frames // patch[1]
        self.real = RealFrames(n_bins)
        self.project = nn.Conv2d(channels, config.width, patch, stride=patch)
        self.rows = _position_table(n_rows, config.width) if n_rows > 1 else None
        self.columns = _position_table(n_columns, config.width) if config.positions == "learned" else None
        self.sinusoidal = config.positions == "sinusoidal"
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        real = self.real(x[:, 0])
        x = self.project(x)  # (batch, width, rows, columns)
        if self.rows is not None:
            x = x + self.rows[:, :, None]
        if self.columns is not None:
            x = x + self.columns[:, None, :]
        if self.sinusoidal:
            x = x + _sinusoids(x.shape[1], x.shape[3], x)[:, None, :]
        columns = real[:, : x.shape[3] * self.project.stride[1]].unflatten(1, (x.shape[3], -1)).any(2)
        columns = columns | ~columns.any(1, keepdim=True)  # a clip of nothing but padding: all of it
        return self.dropout(x.flatten(2).transpose(1, 2)), columns.repeat(1, x.shape[2])


class _EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with a LayerNorm before it and a residual connection around it.

    Attention is written out: the fused kernels of CUDA do not give the same gradient twice.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Return tokens (batch, tokens, width) anew; only those in `real`, bool (batch, tokens), are attended to."""
        tokens = tokens + self.dropout(self.out_proj(self._attend(self.norm1(tokens), real)))
        inner = self.dropout(torch.relu(self.linear1(self.norm2(tokens))))
        return tokens + self.dropout(self.linear2(inner))

    def _attend(self, tokens: Tensor, real: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.in_proj(tokens).chunk(3, 2)
        )  # (batch, heads, tokens, width / heads)
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        scores = scores.masked_fill(~real[:, None, None, :], torch.finfo(scores.dtype).min)
        return (self.dropout(scores.softmax(3)) @ value).transpose(1, 2).flatten(2)


def _position_table(n: int, width: int) -> nn.Parameter:
    """Return (width, n) learned positions, small at first."""
    return nn.Parameter(torch.randn(width, n) * 0.02)


def _sinusoids(width: int, n: int, like: Tensor) -> Tensor:
    """Return (width, n): sines, then cosines, of n positions at wavelengths from 2 pi to 20,000 pi (Vaswani et al., 2017)."""
    rates = torch.exp(torch.arange(width // 2, device=like.device) * (-math.log(10_000) / (width // 2)))
    angles = rates[:, None] * torch.arange(n, device=like.device)
    return torch.cat([angles.sin(), angles.cos()]).to(like.dtype)
