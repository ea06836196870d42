"""Whether the runs of a suite were trained by one version of the training rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio_cls.training.rules import CORRECTIONS, RULES, corrections

if TYPE_CHECKING:
    from audio_cls.ablation.contract import Planned
    from audio_cls.ablation.declaration import Cell
    from audio_cls.ablation.record import Recorded

__all__ = ["TrainedOtherwise", "trained_otherwise"]


@dataclass(frozen=True)
class TrainedOtherwise:
    """A run that other training rules changed: its (arm, cell), what was corrected in it, and what should have been."""

    place: tuple[str, Cell]
    found: str
    expected: str


def trained_otherwise(
    planned: Mapping[tuple[str, Cell], Planned], begun: Mapping[tuple[str, Cell], Recorded]
) -> TrainedOtherwise | None:
    """Return a run that no version of the training rules has in common with the others; None where one version fits all."""

    def expected(place: tuple[str, Cell], rules: int) -> str:
        return corrections(planned[place].experiment, planned[place].n_train, rules)

    found = {place: record.facts.get(CORRECTIONS, "") for place, record in begun.items()}
    if any(all(text == expected(place, rules) for place, text in found.items()) for rules in range(RULES + 1)):
        return None
    for place, text in found.items():
        if text != expected(place, RULES):
            return TrainedOtherwise(place, text or "nothing", expected(place, RULES) or "nothing")
    return None
