"""Check the outputs of a chain's parts when the chain is built, on a batch of two silent clips, before any data is read.

Every check runs without gradients, in evaluation mode and with the random state put back, so that later training
does not depend on whether it was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from audio_cls.components.row_features import RowExtractor
from audio_cls.core.config import Component, ConfigError

if TYPE_CHECKING:
    from audio_cls.components.augment import Augmentation
    from audio_cls.components.features import Features
    from audio_cls.components.losses import Loss
    from audio_cls.components.models import Model
    from audio_cls.components.sampling import Sampling

__all__ = ["check_augmentation", "check_features", "check_loss", "check_model", "check_sampling"]

BATCH = 2


def check_model(config: Model, module: Any, input_shape: tuple[int, ...], n_classes: int) -> None:
    """Refuse a model that does not turn (batch, *input_shape) into logits (batch, n_classes).

    Raises:
        ConfigError: naming the shape found and the one expected. What the model's own forward raises is passed on.
    """
    where = _where(config, "model")
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{where}: build gives a {type(module).__name__}, expected a torch.nn.Module")
    with _untouched(module):
        out = module(torch.zeros(BATCH, *input_shape))
    _expect(where, out, (BATCH, n_classes), "(batch, n_classes)", f"an input of {(BATCH, *input_shape)}")


def check_loss(config: Loss, module: Any, n_classes: int) -> None:
    """Refuse a loss that does not turn logits and targets (batch, n_classes) into one number.

    Raises:
        ConfigError: naming the shape found.
    """
    where = _where(config, "loss")
    if not callable(module):
        raise ConfigError(f"{where}: build gives a {type(module).__name__}, expected a torch.nn.Module")
    targets = torch.zeros(BATCH, n_classes)
    targets[:, 0] = 1
    with _untouched(module):
        out = module(torch.zeros(BATCH, n_classes), targets)
    _expect(where, out, (), "one number", f"logits and targets of {(BATCH, n_classes)}")


def check_features(config: Features, extractor: Any, n_samples: int, shape: tuple[int, ...]) -> None:
    """Refuse features whose extractor does not give `shape` for each waveform of `n_samples` samples.

    Raises:
        ConfigError: naming the shape found and the one that its `n_bins` and `frames` promise.
    """
    where = _where(config, "features")
    for name in ("n_bins", "hop_length", "frames"):
        if not isinstance(extractor, nn.Module) or not hasattr(extractor, name):
            raise ConfigError(f"{where}: build gives a {type(extractor).__name__}, expected a FeatureExtractor")
    given: tuple[int, ...] = (BATCH, n_samples)
    if isinstance(extractor, RowExtractor):
        given = (BATCH, extractor.frames(n_samples), *extractor.row)
    with _untouched(extractor):
        out = extractor(torch.zeros(given))
    words = "(batch, 1, n_bins, frames(n_samples))" if len(shape) == 3 else "(batch, n_bins)" if config.framewise is False else "(batch, samples)"  # fmt: skip
    _expect(where, out, (BATCH, *shape), words, f"{config.input_domain}s of {given}")


def check_augmentation(config: Augmentation, op: Any, n_samples: int, shape: tuple[int, ...], n_classes: int) -> None:
    """Refuse an augmentation that changes the shape of its batch (or, for one that mixes, of its targets).

    Raises:
        ConfigError: naming the shape found and the one expected.
    """
    where = _where(config, f"augment.{config.kind}")
    mixes = config.stage in ("waveform_mix", "mix")
    x = torch.zeros(BATCH, n_samples) if config.stage.startswith("waveform") else torch.zeros(BATCH, *shape)
    y = torch.zeros(BATCH, n_classes)
    random = torch.Generator().manual_seed(0)
    with _untouched(op):
        out = op(x.clone(), y.clone(), random) if mixes else op(x.clone(), random)
    given = f"a {config.domain} batch of {tuple(x.shape)}"
    if mixes:
        if not isinstance(out, tuple) or len(out) != 2:
            raise ConfigError(f"{where} gives a {type(out).__name__}, expected the batch and its targets (x, y)")
        _expect(f"{where}, targets", out[1], tuple(y.shape), "(batch, n_classes)", given)
        out = out[0]
    _expect(where, out, tuple(x.shape), "the shape of its batch", given)


def check_sampling(config: Sampling, order: Any, n_clips: int, seed: int) -> None:
    """Refuse a sampling whose first epoch is not a list of rows of the training clips.

    Raises:
        ConfigError: naming what it gives.
    """
    where = _where(config, "sampling")
    rows = np.asarray(order(seed, 0))
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ConfigError(f"{where}: an epoch is {rows.dtype} {rows.shape}, expected rows of clips: int64 (n,)")
    if len(rows) and (rows.min() < 0 or rows.max() >= n_clips):
        raise ConfigError(
            f"{where}: an epoch has the rows {rows.min()} to {rows.max()}, expected 0 to {n_clips - 1}: there are {n_clips} clips"
        )


def _where(config: Component, key: str) -> str:
    return f"{key} {type(config).__name__}" if key.startswith("augment") else f"{key}.kind={config.kind}"


def _expect(where: str, found: Any, shape: tuple[int, ...], words: str, given: str) -> None:
    if not isinstance(found, Tensor):
        raise ConfigError(f"{where} gives a {type(found).__name__} for {given}, expected a tensor of {shape}: {words}")
    if tuple(found.shape) != shape:
        raise ConfigError(f"{where}: {tuple(found.shape)} found, {shape} expected: {words}, for {given}")


@contextmanager
def _untouched(module: Any) -> Iterator[None]:
    """Without gradients, in evaluation mode; random state and training flags are put back."""
    parts = list(module.modules()) if isinstance(module, nn.Module) else []
    training = [part.training for part in parts]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for part in parts:
            part.training = False
        try:
            yield
        finally:
            for part, flag in zip(parts, training, strict=True):
                part.training = flag
