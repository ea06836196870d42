"""Figures that others have published, shown greyed beside ours and never part of a statistic.

published=[Published("accuracy", 0.662, arm="plain", n_clips=837, on="fold 10 (test)", source="notebook", chosen="by validation loss")]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from audio_cls.core.errors import UserError, choices
from audio_cls.metrics.base import check_metric, in_points, number_text, plain_name

__all__ = ["Published", "check_published", "published_lines", "stored_published"]


@dataclass(frozen=True)
class Published:
    """One figure as somebody published it.

    Attributes:
        metric: such as "accuracy" or "map"; our name of it.
        value: in the metric's own units: 0.662, not 66.2.
        arm: of the suite, that the figure belongs to; None for one that belongs to no arm, and in a study.
        label: what it is of, in a few words: a network, a row of a table. The arm's name where there is one.
        n_clips: on how many clips it was measured; None where that is not known.
        on: which clips these were.
        source: who published it, and where.
        chosen: how the epoch or the setting was chosen. A figure chosen on the clips that it is measured on is too high.

    Raises:
        UserError: for an unknown metric, or a value that is no figure of it.
    """

    metric: str
    value: float
    arm: str | None = None
    label: str = ""
    n_clips: int | None = None
    on: str = ""
    source: str = ""
    chosen: str = ""

    def __post_init__(self) -> None:
        what = f"published {self.metric} = {self.value!r}"
        check_metric(f"val/{plain_name(self.metric)}")
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not isfinite(self.value):
            raise UserError(f"{what}: expected a number")
        if in_points(self.metric) and not 0 <= self.value <= 1:
            raise UserError(f"{what}: expected a share from 0 to 1, such as 0.662 for 66.2 %")
        if self.n_clips is not None and (not isinstance(self.n_clips, int) or self.n_clips < 1):
            raise UserError(
                f"{what}: n_clips={self.n_clips!r}: expected a number of clips, or None where it is not known"
            )

    @property
    def name(self) -> str:
        """What the figure is of: its label, else its arm."""
        return self.label or self.arm or ""

    def is_of(self, metric: str) -> bool:
        """Whether it is a figure of a metric, whichever clips that is measured on."""
        return plain_name(self.metric) == plain_name(metric)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of an accuracy from its number of clips (Wilson 1927); None for other metrics, or without that number.

        It is about the clips alone: how much luck the choice of a seed or an epoch was is not in it.
        """
        if plain_name(self.metric) != "accuracy" or self.n_clips is None:
            return None
        from scipy.stats import binomtest

        found = binomtest(round(self.value * self.n_clips), self.n_clips).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    @property
    def number(self) -> str:
        """The figure with its interval, in points where the metric is told in them."""
        points = in_points(self.metric)
        text = number_text(self.value, points) if points else f"{self.value:.4g}"
        if self.interval is None:
            return text
        low, high = (number_text(end, points) for end in self.interval)
        return f"{text} [{low}, {high}]"

    @property
    def circumstances(self) -> str:
        """Where it was measured, how it was chosen and who says so, in a line."""
        clips = f"{self.n_clips:,} clips" if self.n_clips else ""
        measured = ", ".join(part for part in (self.on, clips) if part)
        parts = [measured and f"on {measured}", self.chosen and f"chosen {self.chosen}", self.source]
        return "; ".join(part for part in parts if part)


def published_lines(items: Iterable[Published]) -> list[str]:
    """Return what is known of published figures, a line for those of the same clips and source."""
    together: dict[str, dict[str, list[str]]] = {}
    for item in items:
        figures = together.setdefault(item.circumstances, {}).setdefault(item.name, [])
        figures.append(f"{plain_name(item.metric)} {item.number}")
    return [
        f"published, in no statistic{f' ({where})' if where else ''}: "
        + "; ".join(f"{f'{name}: ' if name else ''}{', '.join(figures)}" for name, figures in found.items())
        for where, found in together.items()
    ]


def check_published(where: str, given: Any, arms: Iterable[str] | None = None) -> tuple[Published, ...]:
    """Return published figures as a tuple.

    Args:
        where: the declaration, for messages.
        given: `Published` values, or dictionaries of their fields.
        arms: of the suite; None for a study.

    Raises:
        UserError: for anything else, and for an arm that the suite does not have.
    """
    if isinstance(given, (Published, Mapping)) or not isinstance(given, Iterable):
        raise UserError(f"{where}: published={given!r}: expected a list of Published(metric, value, ...)")
    found = tuple(_parse(where, item) for item in given)
    known = None if arms is None else list(arms)
    for item in found:
        if item.arm is not None and known is None:
            raise UserError(f"{where}: published: a study has no arms, found arm={item.arm!r}: give it as label=...")
        if item.arm is not None and known is not None and item.arm not in known:
            raise UserError(f"{where}: published: arm={item.arm!r} is none of its arms. {choices(item.arm, known)}")
    return found


def stored_published(given: Sequence[Published]) -> list[dict[str, Any]]:
    """Return published figures as plain JSON, as `check_published` takes them."""
    return [asdict(item) for item in given]


def _parse(where: str, item: Any) -> Published:
    if isinstance(item, Published):
        return item
    names = [field.name for field in fields(Published)]
    if not isinstance(item, Mapping):
        raise UserError(f"{where}: published: expected Published(metric, value, ...), found {item!r}")
    if unknown := [key for key in item if key not in names]:
        raise UserError(f"{where}: published: unknown key {unknown[0]!r}. {choices(str(unknown[0]), names)}")
    if missing := [key for key in ("metric", "value") if key not in item]:
        raise UserError(f"{where}: published: {', '.join(missing)} is missing in {dict(item)!r}")
    return Published(**item)
