"""The base class of augmentations: a config that builds a batched operation, which draws from a given generator."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from pydantic import AfterValidator
from torch import Tensor

from audio_cls.core.config import Component, ComponentSet

__all__ = [
    "Augment",
    "Augmentation",
    "Augmenter",
    "Mixer",
    "Range",
    "Stage",
    "chosen",
    "device_generator",
    "spread",
    "uniform",
]

Stage = Literal["waveform", "waveform_mix", "features", "mix"]
"""The stages of augmentation, in the order of the chain: waveforms one by one, waveforms mixed with their targets, features
one by one (after normalisation), features mixed with their targets."""


class Augmenter(Protocol):
    """Changes a batch, each clip by itself: same shape, dtype and device, the input left as it was."""

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor: ...


class Mixer(Protocol):
    """Mixes the clips of a batch and their soft targets (batch, n_classes)."""

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]: ...


class Augmentation(Component, family=True):
    """A change of training data that leaves its label true (or changes it likewise).

    `domain` says what it takes: "waveform" (batch, samples), "spectrogram" (batch, 1, n_bins, frames), "sequence" (batch, 1,
    n_values, frames), "image" (batch, channels, height, width), or "mix" for an operation on inputs and their targets.
    `domains` names all domains of features that it makes sense for, where that is more than `domain`; one that mixes makes
    sense for any unless it names some. Within a stage lower `order` comes first.
    """

    domain: ClassVar[str] = ""
    domains: ClassVar[tuple[str, ...]] = ()
    order: ClassVar[int] = 50
    needs_bands: ClassVar[bool] = False
    """Whether the rows of a spectrogram must be frequency bands in order, which cepstral coefficients are not."""
    stands_alone: ClassVar[bool] = True
    """Whether what `build` returns can be applied as it is; else it must first be given other parts of the experiment."""

    @property
    def stage(self) -> Stage:
        """Where in the chain it is applied, see `Stage`."""
        if self.domain in ("waveform", "mix"):
            return self.domain  # type: ignore[return-value] # one of the two
        return "features"

    @classmethod
    def takes(cls, domain: str) -> bool:
        """Whether the operation makes sense for features of a domain."""
        return domain in cls.domains if cls.domains else cls.domain in (domain, "mix")

    def refusal(self, values: str) -> str | None:
        """Return why the operation has no meaning for a corpus of such values (`Payload.values`); None if it has."""
        return None

    @abstractmethod
    def build(self, sample_rate: int, hop_length: int) -> Any:
        """Return an `Augmenter`, or a `Mixer` where `stage` is "waveform_mix" or "mix".

        The generator that it is called with lives on the CPU: what is drawn for each clip is then the same on every device.

        Args:
            sample_rate: of the waveforms, in Hz.
            hop_length: samples from one frame of the features to the next.
        """
        raise NotImplementedError


class Augment(ComponentSet):
    """The augmentations of an experiment, each kind at most once."""

    of: ClassVar[type[Component]] = Augmentation

    @property
    def ops(self) -> tuple[Augmentation, ...]:
        """The members, in the order in which they are applied."""
        return tuple(item for item in self.items if isinstance(item, Augmentation))


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"a range goes from low to high, found {value[0]:g} before {value[1]:g}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


def uniform(low: float, high: float, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return float32 draws from [low, high), on the CPU."""
    return torch.rand(size, generator=generator) * (high - low) + low


def chosen(p: float, batch: int, generator: torch.Generator) -> Tensor:
    """Return which clips of a batch are changed, (batch,) bool on the CPU; always draws `batch` numbers."""
    return torch.rand(batch, generator=generator) < p


def spread(values: Tensor, x: Tensor) -> Tensor:
    """Return one value a clip, (batch,), in the dtype, on the device and with the number of axes of a batch, for broadcasting."""
    return values.to(x.device, x.dtype).view(-1, *[1] * (x.dim() - 1))


def device_generator(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """Return a generator on `device`, seeded by one draw from `generator`: for noise in bulk, too large to be sent
    there.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.Generator(device=device).manual_seed(seed)
