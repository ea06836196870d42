"""A random choice among the augmentations of an experiment; and all of them, built, by the stage at which they are applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augment, Augmentation, Augmenter, Mixer, Stage
from audio_cls.core.config import ConfigError
from audio_cls.core.errors import choices

__all__ = ["Built", "Choose", "ChosenOps", "build_augment", "chosen_members"]


class Choose(Augmentation, kind="choose"):
    """Apply `k` of several augmentations to each clip, drawn at random, in their usual order.

    They are members of the same experiment (`augment.noise`, ...) and each keeps its own probability: where all have p = 1, exactly
    `k` are applied. The other augmentations come after these and apply to all clips.
    """

    domain: ClassVar[str] = "waveform"
    domains: ClassVar[tuple[str, ...]] = ("waveform", "spectrogram", "sequence", "image", "embedding")
    order: ClassVar[int] = 0
    stands_alone: ClassVar[bool] = False

    k: int = Field(default=1, ge=1)
    """How many are applied to a clip."""
    among: tuple[str, ...] = ()
    """Kinds to choose among, all of waveforms or all of features; without any, all of the experiment's that change waveforms."""

    @property
    def stage(self) -> Stage:
        """That of the first kind in `among`."""
        kind = Augmentation.members().get(self.among[0]) if self.among else None
        return "waveform" if kind is None or kind.domain == "waveform" else "features"

    def build(self, sample_rate: int, hop_length: int) -> ChosenOps:
        """Return an `Augmenter` that changes nothing until it is given its `ops`."""
        return ChosenOps(self.k)


@dataclass
class ChosenOps:
    """The augmenter of `Choose`. ops: what it chooses among, in order."""

    k: int
    ops: tuple[Augmenter, ...] = ()

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        rank = torch.rand(len(x), len(self.ops), generator=generator).argsort(1).argsort(1)
        for number, op in enumerate(self.ops):
            rows = (rank[:, number] < self.k).nonzero().flatten()
            if len(rows):
                where = rows.to(x.device)
                x = x.index_copy(0, where, op(x[where], generator))
        return x


def chosen_members(choose: Choose, augment: Augment) -> tuple[Augmentation, ...]:
    """Return the members of a set that `choose` chooses among, in order.

    Raises:
        ConfigError: for a kind that is not there or is no change of single clips, for kinds of two stages, for too large a `k`.
    """
    where = "augment.choose.among"
    present = {op.kind: op for op in augment.ops if op.kind != choose.kind}
    for kind in choose.among:
        if kind not in Augmentation.members():
            raise ConfigError(f"{where}: {kind!r} is no augmentation. {choices(kind, Augmentation.members())}")
        if kind not in present:
            raise ConfigError(
                f"{where}: {kind!r} is not in this experiment: add augment.{kind}=on, or take it out of the list"
            )
        if present[kind].stage != choose.stage:
            raise ConfigError(
                f"{where}: {kind!r} is applied to {_WORDS[present[kind].stage]}, expected {_WORDS[choose.stage]}: one choice is "
                "among augmentations that change single clips, all of waveforms or all of features"
            )
    named = choose.among or tuple(kind for kind, op in present.items() if op.stage == "waveform")
    if choose.k > len(set(named)):
        raise ConfigError(
            f"augment.choose.k={choose.k}: there are {len(set(named))} augmentations to choose among "
            f"({', '.join(sorted(set(named))) or 'none that changes waveforms'})"
        )
    return tuple(op for op in augment.ops if op.kind in named)


_WORDS: dict[Stage, str] = {
    "waveform": "single waveforms",
    "waveform_mix": "waveforms that are mixed",
    "features": "features of single clips",
    "mix": "features that are mixed",
}


@dataclass
class Built:
    """The augmentations of an experiment, built. members: each with its config; then what is applied at each stage, in order."""

    members: list[tuple[Augmentation, Any]]
    waveform: list[Augmenter] = field(default_factory=list)
    waveform_mix: list[Mixer] = field(default_factory=list)
    features: list[Augmenter] = field(default_factory=list)
    mix: list[Mixer] = field(default_factory=list)


def build_augment(augment: Augment, sample_rate: int, hop_length: int) -> Built:
    """Build every member of a set, and give those that are chosen among to the one that chooses.

    Args:
        sample_rate, hop_length: as of `Augmentation.build`.

    Raises:
        ConfigError: as `chosen_members`.
    """
    built = Built([(config, config.build(sample_rate, hop_length)) for config in augment.ops])
    inside: set[str] = set()
    for config, op in built.members:
        if isinstance(config, Choose):
            inside = {member.kind for member in chosen_members(config, augment)}
            op.ops = tuple(other for member, other in built.members if member.kind in inside)
    for config, op in built.members:
        if config.kind not in inside:
            getattr(built, config.stage).append(op)
    return built
