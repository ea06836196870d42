"""What a queue works on: a search, whose next configuration is drawn, or a list of cells, each given beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from audio_cls.core.config import Component

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

__all__ = ["IDENTITY", "SEARCH", "Direction", "Kind", "Work", "kind_of"]

Direction = Literal["maximize", "minimize"]
Kind = Literal["search", "ablation", "folds", "confirmation"]
SEARCH: Literal["search"] = "search"
IDENTITY = "audio_cls"  # the attribute of an Optuna study that holds its identity


class Work(Protocol):
    """Configurations to be run, kept in one Optuna study.

    `drawn` tells whether the sampler makes new configurations until a total is reached; else all are enqueued beforehand, and
    a mistake in one (a `UserError`) refuses that one and leaves the others running.
    """

    @property
    def name(self) -> str:
        """The Optuna study's name."""

    @property
    def kind(self) -> Kind: ...
    @property
    def drawn(self) -> bool: ...
    @property
    def metric(self) -> str: ...
    @property
    def direction(self) -> Direction: ...

    def identity(self) -> dict[str, Any]:
        """Return what makes it this work, as plain JSON: stored when the study is created, compared when it is resumed."""

    def changes_since(self, stored: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> list[str]:
        """Describe how the identity, with `extra`, differs from a stored one: a line for each difference."""

    def make_sampler(self) -> BaseSampler:
        """Return the sampler that draws configurations."""

    def make_pruner(self) -> BasePruner:
        """Return the pruner; one with a method `explain(study, trial)` says why it stops a trial."""

    def draw(self, trial: optuna.Trial) -> tuple[dict[str, Any], Component]:
        """Return the overrides and the experiment of a trial, drawing the parameters that it lacks.

        Raises:
            UserError: for a space or a configuration that does not hold.
        """


def kind_of(attrs: Mapping[str, Any]) -> str:
    """Return the kind of a study from its user attributes. Searches carry none, nor do studies of other programs."""
    identity = attrs.get(IDENTITY)
    return str(identity.get("kind", SEARCH)) if isinstance(identity, Mapping) else SEARCH
