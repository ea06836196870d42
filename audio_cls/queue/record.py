"""What a trial carries besides its parameters and its curve: one typed record, read from and written to Optuna's user attributes.

This is the only module that knows the attributes' names. They are those that earlier versions wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = [
    "ABANDONED",
    "FAILED",
    "INTERRUPTED",
    "OF_ONE_ATTEMPT",
    "REFUSED",
    "TrialRecord",
    "attributes",
    "config_of",
    "experiment_text",
    "is_begun",
    "is_finished",
    "plain",
    "record_of",
    "root_of",
    "row_state",
]

FAILED, INTERRUPTED, ABANDONED, REFUSED = "failed", "interrupted", "abandoned", "refused"
OF_ONE_ATTEMPT = ("worker", "outcome", "reason", "traceback", "deaths", "inherited_epochs")
"""Attributes that the next attempt at a configuration does not inherit."""


@dataclass(frozen=True)
class TrialRecord:
    """The attributes of one trial, that is of one attempt at a configuration. What is absent has its default.

    Whose it is:
        config: index of the configuration; None for a trial that another program asked for.
        ready: whether its parameters are all drawn.
        worker: the identity of the process that runs it.
        root_trial, resumed_from: the numbers of the first attempt, and of the one that this continues from.
        attempt: 0 for the first one. inherited_epochs: length of the curve that it started with.
        resume_reason: why there is this further attempt. deaths: of its workers in a row, without a new epoch.
        outcome: how it ended, `complete`, `pruned`, `failed`, `interrupted`, `abandoned` or `refused`. reason: why.

    What it ran:
        experiment: as JSON text. overrides: the keys in which it differs from the base; changes: those beyond its parameters.
        sources: digests of the files that declare its own parts. mlflow_run_id: of its run.
        folder: where its checkpoint lies, relative to the workspace.

    The result of it: metrics of the best epoch, of the last one, facts (what a comparison rests on), cost, the figures of a model that
        learned nothing, findings about its predictions, why its best and last epoch have collapsed; traceback and failure (the file with all of it) where it failed.

    Revival: no_prune exempts it from pruning; revived, pruned_epochs and pruned_reason say what was revived; begun_as are the digests
        of the experiments that it started as, own_epochs the budget then.

    Of cells (see `cells`): cell, the rest of the configuration. adopted_from: the study and trial whose result was taken over.
    """

    config: int | None = None
    ready: bool = False
    worker: str | None = None
    root_trial: int | None = None
    resumed_from: int | None = None
    attempt: int = 0
    inherited_epochs: int = 0
    resume_reason: str = ""
    deaths: int = 0
    outcome: str = ""
    reason: str = ""

    experiment: Any = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    mlflow_run_id: str | None = None
    carried_run_id: str | None = None
    folder: str = ""

    metrics: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    collapsed: Mapping[str, str] = field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int | None = None
    accumulate: int | None = None
    traceback: str = ""
    failure: str = ""

    no_prune: bool = False
    revived: bool = False
    pruned_epochs: int | None = None
    pruned_reason: str = ""
    begun_as: tuple[str, ...] = ()
    own_epochs: int | None = None

    carried_from: Mapping[str, Any] = field(default_factory=dict)
    adopted_from: Mapping[str, Any] = field(default_factory=dict)
    cell: Mapping[str, Any] = field(default_factory=dict)

    value: float | None = None
    """The trial's own value where it is known; no attribute."""

    @classmethod
    def of(cls, attrs: Mapping[str, Any], value: float | None = None) -> TrialRecord:
        """Read the user attributes of a trial; those of other programs are left out."""
        found: dict[str, Any] = {}
        for name, make in _readers().items():
            if attrs.get(name) is not None:
                found[name] = make(attrs[name]) if make else attrs[name]
        return cls(**found, value=value)

    def attributes(self) -> dict[str, Any]:
        """Return the user attributes that differ from an empty record, as plain JSON."""
        empty = TrialRecord()
        names = (f.name for f in fields(self) if f.name != "value")
        return attributes(**{n: getattr(self, n) for n in names if getattr(self, n) != getattr(empty, n)})


@cache
def _readers() -> dict[str, Any]:
    """Return how each attribute is read: numbers must be numbers, so that damage is noticed; lists become tuples."""
    kinds = {"int | None": int, "int": int, "bool": bool, "str": str, "tuple[str, ...]": tuple}
    return {f.name: kinds.get(str(f.type)) for f in fields(TrialRecord) if f.name != "value"}


def attributes(**values: Any) -> dict[str, Any]:
    """Return user attributes to write, as plain JSON; each name must be one of `TrialRecord`'s."""
    if unknown := values.keys() - _readers().keys():
        raise TypeError(f"a trial carries no {', '.join(sorted(unknown))}")
    return {name: plain(value) for name, value in values.items()}


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Read the record of a trial."""
    return TrialRecord.of(trial.user_attrs, trial.values[0] if trial.values else None)


def config_of(trial: FrozenTrial) -> int | None:
    """Return the index of a trial's configuration; None for a trial that another program asked for."""
    config = trial.user_attrs.get("config")
    return None if config is None else int(config)


def root_of(trial: FrozenTrial) -> int:
    """Return the number of a configuration's first attempt."""
    return int(trial.user_attrs.get("root_trial", trial.number))


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial came to an end of its own: complete, pruned, or failed for a reason that is in its configuration."""
    if trial.state.name == "FAIL":
        return trial.user_attrs.get("outcome") in (FAILED, REFUSED)
    return trial.state.name in ("COMPLETE", "PRUNED")


def is_begun(trial: FrozenTrial) -> bool:
    """Whether a trial's parameters are settled: drawn by us, or given by whoever enqueued it."""
    return bool(trial.user_attrs.get("ready")) or "fixed_params" in trial.system_attrs


def row_state(trial: FrozenTrial) -> str:
    """Return the state of a configuration, by its latest attempt: COMPLETE, PRUNED, FAILED, RUNNING or WAITING (to continue)."""
    if trial.state.is_finished() and not is_finished(trial):
        return "WAITING"
    return "FAILED" if trial.state.name == "FAIL" else trial.state.name


def experiment_text(experiment: Any) -> str:
    """Return a stored experiment as JSON text; some versions stored it as a dictionary."""
    return experiment if isinstance(experiment, str) else json.dumps(experiment)


def plain(value: Any) -> Any:
    """Convert to what JSON keeps: numbers of NumPy become Python's, what JSON does not know becomes text."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, tuple):
        value = list(value)
    try:
        json.dumps(value)
    except TypeError:
        return str(value)
    return value
