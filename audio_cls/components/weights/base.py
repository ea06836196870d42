"""The settings of a model's initial weights: drawn at random, or taken from a file by a naming scheme.

A scheme says how a publisher names the tensors of a file. To add one, subclass `FileWeights` with a `kind` and say in `names` what
its tensors are called in our model.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from audio_cls.components.features import Features
from audio_cls.components.panns_features import SAMPLE_RATES, PannsLogMel
from audio_cls.core.config import Component, ConfigError

__all__ = ["PACKAGE", "Efficientnet", "FileWeights", "Own", "Panns", "Random", "Torchvision", "Weights"]

PACKAGE = "package:"
"""How an address begins that names a file of an installed Python package: `package:NAME` or `package:NAME/PATH`."""


def _hex_digits(value: Any) -> Any:
    """Return a SHA-256 in lower case, without the prefix that some sites print.

    Raises:
        ValueError: for text that is none.
    """
    if not isinstance(value, str):
        return value
    digits = value.strip().lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError("expected the 64 hexadecimal digits that sha256sum prints for the file")
    return digits


Sha256 = Annotated[str, BeforeValidator(_hex_digits)]


class Weights(Component, family=True):
    """Where training begins: random weights, or those of a file."""

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ConfigError: naming the key.
        """


class Random(Weights, kind="none"):
    """Random weights, as the model draws them."""


class FileWeights(Weights):
    """Weights of a file, the settings that all naming schemes share.

    A model's blocks are its layers in the order in which it registers them (`components.weights.blocks`); the last one is the head,
    all others are the backbone. At least 90 % of the backbone must be found in the file.
    """

    file: str | None = None
    """Path, http(s) address, or package:NAME for the weights inside an installed Python package; safetensors or a PyTorch file."""
    sha256: Sha256 | None = None
    """SHA-256 of the file; required for an address, computed for a file."""
    first_layer: Literal["sum", "mean", "repeat", "refuse"] = "sum"
    """Where the file's first layer takes other channels: sum keeps its answer to equal channels, mean averages, repeat tiles, refuse stops."""
    head: Literal["new", "loaded"] = "new"
    """The output layer starts anew, or is loaded as well (the classes must be the same)."""
    frozen: Literal["all"] | Annotated[int, Field(ge=0)] = 0
    """Blocks from the input on that are not trained; all leaves the head alone."""
    lr_factor: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of the backbone, as a factor of the head's."""
    lr_decay: float = Field(default=1.0, gt=0, le=1)
    """Further factor for each block further from the head (layer-wise decay)."""

    @property
    def is_address(self) -> bool:
        return self.file is not None and urlsplit(self.file).scheme in ("http", "https")

    def left_out_of_digest(self) -> frozenset[str]:
        """Return `file`, once the hash says what is in it: the same weights in another place are the same experiment."""
        return frozenset({"file"} if self.sha256 else ())

    def check(self) -> None:
        """Refuse a scheme without a file, an address of another kind, and one without its hash.

        Raises:
            ConfigError: naming the key.
        """
        if not self.file and not self.sha256:
            raise ConfigError(
                f"model.weights={self.kind} needs model.weights.file: a path, an http(s) address, or package:NAME"
            )
        scheme, separator, _ = (self.file or "").partition("://")
        if separator and not self.is_address:
            raise ConfigError(
                f"model.weights.file={self.file}: addresses of {scheme}:// are not read. Allowed: a path, an http(s) address, or package:NAME"
            )
        if self.is_address and not self.sha256:
            raise ConfigError(
                f"model.weights.file={self.file}: set model.weights.sha256 as well, so that what arrives can be checked"
            )

    def names(self, in_file: Collection[str]) -> dict[str, str]:
        """Return what the tensors of a file are called in our model, by their names there; what is left out is no part of it."""
        return {name: name for name in in_file}

    def trained_on(self, sample_rate: int) -> tuple[int, Features] | None:
        """Return the sample rate in Hz and the features that these weights were trained on; None where any will do.

        Args:
            sample_rate: of the corpus, which is returned where there are weights for it.
        """
        return None


class Own(FileWeights, kind="own"):
    """A checkpoint of audio_cls (`weights/best.safetensors` of a run, `best-*` or `last.safetensors`), or tensors named as in our model.

    The normalisation of the features is not taken over: it is computed from the training clips.
    """

    def names(self, in_file: Collection[str]) -> dict[str, str]:
        prefix = ""
        if all(name.startswith(("model.", "normaliser.")) for name in in_file):
            prefix = "model."
        # last.safetensors: averaged weights are the ones that are evaluated
        whole = ("model.model.", "model.normaliser.", "ema.", "optimizer.", "snapshots.")
        if all(name.startswith(whole) for name in in_file):
            prefix = "ema.model." if any(name.startswith("ema.") for name in in_file) else "model.model."
        return {name: name.removeprefix(prefix) for name in in_file if name.startswith(prefix)}


class Panns(FileWeights, kind="panns"):
    """The published files of PANNs (Kong et al. 2020), with features=panns_log_mel. Their spectrogram layers are left out."""

    def names(self, in_file: Collection[str]) -> dict[str, str]:
        front_end = ("spectrogram_extractor.", "logmel_extractor.")
        return {name: name for name in in_file if not name.startswith(front_end)}

    def trained_on(self, sample_rate: int) -> tuple[int, Features] | None:
        rate = sample_rate if sample_rate in SAMPLE_RATES else SAMPLE_RATES[0]
        return rate, PannsLogMel().fitted(rate, clip_seconds=10.0)


class Torchvision(FileWeights, kind="torchvision"):
    """The names of torchvision's models."""


class Efficientnet(FileWeights, kind="efficientnet"):
    """The names of the packages `efficientnet_pytorch` and `efficientnet_lite_pytorch`: ours with leading underscores."""

    def names(self, in_file: Collection[str]) -> dict[str, str]:
        return {name: ".".join(part.removeprefix("_") for part in name.split(".")) for name in in_file}
