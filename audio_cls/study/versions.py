"""Versions of a study: what a changed declaration begins, with the trials that still count.

The declaration's name stays; its first study has that name, the later ones `NAME.v2`, `NAME.v3`, ... and say so in an attribute
(a study that somebody named so is none). A declaration resumes the version that was started by it, so that undoing a change goes
on with the version before it.

A trial is carried over when its value would be the same in the new version: the data, the metric, its code and the direction
are the same, the new space takes its parameters, and makes of them the very experiment that was run. A change of the base
that a trial's experiment shows carries nothing over.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.queue.queue import Tally
from audio_cls.queue.record import attributes, record_of, root_of
from audio_cls.queue.storage import IDENTITY, StudyStorage, load_study, study_ids, study_names
from audio_cls.study.declaration import TRAINING, Study, identity_changes
from audio_cls.study.writing import tidy_leftovers, with_attrs, write_study
from audio_cls.training.rules import FORMER

__all__ = ["VERSION", "NewVersion", "begin_version", "newest_version", "resolve_version", "stored_identity", "versions"]

VERSION = "version_of"  # user attribute of a study: the declared name, for all versions but the first
SAME = ("metric", "direction", "data", "metric_version")
COUNTED = (
    "ready",
    "outcome",
    "reason",
    "experiment",
    "overrides",
    "cost",
    "baseline",
    "findings",
    "collapsed",
    "best_epoch",
    "epochs",
)


Settle = Callable[[Study, Mapping[str, Any] | None], Study]


@dataclass
class NewVersion:
    """A version that was started. `carried` maps the new numbers to (old root, old number); `left` counts, by reason, the others."""

    study: Study
    before: str
    changes: list[str]
    carried: dict[int, tuple[int, int]] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)

    def describe(self) -> list[str]:
        """Return what changed and what was carried over, as lines."""
        head = f"study {self.study.name}: a new version of {self.before}, with {len(self.carried)} of its trials carried over"
        changed = ["changed:", *(f"  {line}" for line in self.changes)]
        return [head, *changed, *(f"{count} not carried over: {why}" for why, count in sorted(self.left.items()))]


def versions(name: str, storage: StudyStorage) -> list[str]:
    """Return the studies that a declaration of this name has started, oldest first."""
    found = study_names(storage)
    later = [n for n in found if _version_of(n, storage) == name]
    return ([name] if name in found else []) + sorted(later, key=lambda n: (len(n), n))


def newest_version(name: str, storage: StudyStorage) -> str:
    """Return the newest of `versions`, or the name itself."""
    return (versions(name, storage) or [name])[-1]


def stored_identity(name: str, storage: StudyStorage) -> dict[str, Any] | None:
    """Return the identity that a study was created with; None for no such study, or one that audio_cls did not create."""
    return _attrs(name, storage).get(IDENTITY) if name in study_ids(storage) else None


def resolve_version(
    declared: Study,
    storage: StudyStorage,
    extra: Mapping[str, Any] | None = None,
    settle: Settle = lambda declared, stored: declared,
) -> Study:
    """Return the declaration under the name of the version that it started; of the newest where it started none.

    `settle(declared, identity)` chooses what the declaration leaves to the data as the study with that identity has it.
    """
    found = versions(declared.name, storage)
    for name in reversed(found):
        stored = _attrs(name, storage).get(IDENTITY)
        if stored is not None and not identity_changes(stored, settled := settle(declared, stored), extra):
            return replace(settled, name=name)
    newest = _attrs(found[-1], storage).get(IDENTITY) if found else None
    return replace(settle(declared, newest), name=found[-1] if found else declared.name)


def begin_version(
    declared: Study,
    storage: StudyStorage,
    extra: Mapping[str, Any] | None = None,
    prepare: Callable[[NewVersion], object] = lambda _: None,
    settle: Settle = lambda declared, stored: declared,
) -> NewVersion | None:
    """Begin a new version of a study that was started by another declaration; None if it was started by this one, or by none.

    `prepare` is called before the new study is there, for what must be in place by then.

    Raises:
        LockBusy: when the study's lock was not had in time.
    """
    extra = extra or {}
    with storage.lock(declared.name):
        found = versions(declared.name, storage)
        if not found:
            return None
        current = resolve_version(declared, storage, extra, settle)
        stored = _attrs(current.name, storage).get(IDENTITY)
        declared = settle(declared, None)
        if stored is None or not (
            changes := identity_changes(stored, current, extra) + _rules_changed(stored, declared)
        ):
            return None
        taken = study_ids(storage)
        number = len(found) + 1
        while f"{declared.name}.v{number}" in taken:
            number += 1
        made = NewVersion(replace(declared, name=f"{declared.name}.v{number}"), current.name, changes)
        identity = {**declared.identity(), **extra}
        trials = _carry(load_study(current.name, storage), stored, identity, made)
        tidy_leftovers(storage, made.study.name)
        prepare(made)
        attrs = {IDENTITY: identity, VERSION: declared.name, "version_before": current.name}
        write_study(storage, made.study.name, declared.direction.upper(), attrs, trials)
    return made


def _version_of(name: str, storage: StudyStorage) -> Any:
    try:
        return _attrs(name, storage).get(VERSION)
    except ValueError:  # a damaged study is no version of another
        return None


def _attrs(name: str, storage: StudyStorage) -> dict[str, Any]:
    backend = storage.backend
    return backend.get_study_user_attrs(backend.get_study_id_from_name(name))


def _carry(
    before: optuna.Study, stored: Mapping[str, Any], identity: Mapping[str, Any], made: NewVersion
) -> list[FrozenTrial]:
    differ = [k for k in SAME if stored.get(k) != identity.get(k)]
    same_pruner = stored.get("pruner") == identity.get("pruner")
    out: list[FrozenTrial] = []
    for _, trial in sorted(Tally.of(before.get_trials(deepcopy=False)).latest.items()):
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            made.left["not finished, or failed"] += 1
        elif differ:
            made.left[f"{' and '.join(differ)} changed: values cannot be compared"] += 1
        elif record_of(trial).changes:
            made.left["revived to a larger budget than the study's"] += 1
        elif trial.state == TrialState.PRUNED and not same_pruner:
            made.left["pruned by a rule that is no longer the study's"] += 1
        else:
            fixed = FixedTrial(dict(trial.params))
            why = _unfit(made.study, fixed, trial, int(stored.get(TRAINING, FORMER)))
            if why:
                made.left[why] += 1
                continue
            number = len(out)
            made.carried[number] = (root_of(trial), trial.number)
            out.append(_carried(trial, fixed, number, before.study_name))
    return out


def _rules_changed(stored: Mapping[str, Any], declared: Study) -> list[str]:
    """Return what the present training rules would change in the base of a study that began by former ones, as a line."""
    settled, began = declared.settled, int(stored.get(TRAINING, FORMER))
    if settled is None or settled.corrected(declared.base, began) == settled.corrected(declared.base, settled.training):
        return []
    return [f"training rules: {began} -> {settled.training}: {settled.corrected(declared.base, settled.training)}"]


def _trained_otherwise(study: Study, experiment: Component, training: int) -> str | None:
    """Return which training rules changed since a trial was trained by a version of them; None where that does not matter."""
    settled = study.settled
    if settled is None or settled.corrected(experiment, training) == settled.corrected(experiment, settled.training):
        return None
    return f"trained by former rules (now corrected: {settled.corrected(experiment, settled.training)})"


def _unfit(study: Study, fixed: FixedTrial, trial: FrozenTrial, training: int) -> str | None:
    """Return why a trial's value, trained by a version of the training rules, says nothing about the new space; None when it does."""
    stored = record_of(trial).experiment
    if not stored:
        return "no experiment is stored with it"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna only warns of a value outside the space; it is looked at below
        try:
            experiment = study.experiment(study.overrides(fixed))
        except UserError as error:
            return f"the new space does not take its parameters ({error.__cause__ or error})"
    for name, distribution in fixed.distributions.items():
        if not distribution._contains(distribution.to_internal_repr(trial.params[name])):
            return f"{name} lies outside the new space"
    base: Component = study.base
    try:
        was = type(base).from_json(stored)
    except UserError:
        return "its experiment does not parse any more"
    if was.digest() == experiment.digest():
        return _trained_otherwise(study, experiment, training)
    keys = ", ".join(list(was.diff(experiment))[:3])
    return f"its experiment would be another one ({keys})"


def _carried(trial: FrozenTrial, fixed: FixedTrial, number: int, before: str) -> FrozenTrial:
    """Return the trial as one of the new version. A complete one keeps its run in MLflow; a pruned one, if it is ever
    revived, gets one of its own, so that no two studies write into one run.
    """
    attrs = {k: trial.user_attrs[k] for k in COUNTED if k in trial.user_attrs}
    record = record_of(trial)
    if record.mlflow_run_id is not None:
        complete = trial.state == TrialState.COMPLETE
        attrs |= attributes(**{"mlflow_run_id" if complete else "carried_run_id": record.mlflow_run_id})
    attrs |= attributes(config=number, carried_from={"study": before, "trial": trial.number})
    if record.revived:
        attrs |= attributes(revived=True)
    plain = with_attrs(trial, number=number)
    plain.user_attrs = attrs
    plain.system_attrs = {}
    plain.params = {k: trial.params[k] for k in fixed.distributions}
    plain.distributions = dict(fixed.distributions)
    return plain
