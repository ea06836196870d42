"""The base class of models: a config that states its input domains and builds an `nn.Module` that returns logits."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from audio_cls.components.weights.base import Random, Weights
from audio_cls.core.config import Component, ConfigError

__all__ = ["Model", "maps_of", "parameter_count", "refuse_shape"]


class Model(Component, family=True):
    """A classifier.

    `input_domains` are what it takes: "spectrogram" and "image" (batch, channels, height, width), "sequence" (batch, 1, n_values,
    frames), "waveform" (batch, samples), "embedding" (batch, n_features). A model with `closed_form` is fitted at once by its module's `fit_closed_form` instead of by
    gradient steps.
    """

    added_fields = frozenset({"weights"})
    input_domains: ClassVar[tuple[str, ...]] = ()
    closed_form: ClassVar[bool] = False

    weights: Weights = Random()
    """Where training begins: none is random weights, the others are naming schemes of files of pretrained weights."""

    @classmethod
    def summary(cls) -> str:
        """Return the first paragraph of the docstring and the input domains."""
        return f"{super().summary()} Takes: {', '.join(cls.input_domains)}.".strip()

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return a module whose forward takes (batch, *input_shape) and gives logits (batch, n_classes).

        Initial weights are drawn from PyTorch's global generator; the caller seeds it.

        Raises:
            ConfigError: for an input shape that the model cannot take.
        """
        raise NotImplementedError


def parameter_count(module: nn.Module, *, frozen: bool = False) -> int:
    """Return the number of trainable parameters; with `frozen` of all."""
    return sum(p.numel() for p in module.parameters() if frozen or p.requires_grad)


def refuse_shape(model: Model, input_shape: tuple[int, ...], needs: str) -> ConfigError:
    """Return the error for a shape that a model cannot take: `needs` says which it could."""
    return ConfigError(
        f"model.kind={model.kind} cannot take inputs of shape {tuple(input_shape)} (without batch): it needs {needs}"
    )


def maps_of(model: Model, input_shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """`input_shape` as (channels, height, width), refused unless height and width are at least `smallest`."""
    if len(input_shape) != 3 or input_shape[0] < 1 or min(input_shape[1:]) < smallest:
        raise refuse_shape(
            model,
            input_shape,
            f"(channels, n_bins, frames) or (channels, height, width), both at least {smallest} for its pooling",
        )
    channels, height, width = input_shape
    return channels, height, width
