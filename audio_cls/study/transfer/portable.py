"""A study as plain values, and plain values as a study that appears at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from audio_cls.core.errors import UserError
from audio_cls.queue.record import ABANDONED, FAILED, INTERRUPTED, config_of, is_begun
from audio_cls.study.writing import with_attrs

__all__ = ["study_from_json", "study_to_json"]

_OF_THE_PLACE = ("artifacts:", "hb:")  # system attributes that mean nothing elsewhere


def study_to_json(study: optuna.Study) -> dict[str, Any]:
    """Return a study as JSON values: everything but running workers. Running trials are told as interrupted, to be
    queued again.
    """
    trials = [_settled(t) for t in study.get_trials(deepcopy=False)]
    return {
        "name": study.study_name,
        "direction": study.direction.name,
        "attrs": dict(study.user_attrs),
        "trials": [_trial_to_json(t) for t in trials],
    }


def study_from_json(data: Mapping[str, Any], where: str) -> list[FrozenTrial]:
    """Return the trials of a study; raises `UserError` when they do not hold together."""
    try:
        trials = [_trial_from_json(t) for t in data["trials"]]
        StudyDirection[data["direction"]]
        if [t.number for t in trials] != list(range(len(trials))):
            raise ValueError("its trials are not numbered from 0 on")
        if not isinstance(data["name"], str) or not isinstance(data["attrs"], dict):
            raise ValueError("no name or no attributes")
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{where}: study.json does not hold together ({type(error).__name__}: {error})") from None
    return trials


def _settled(trial: FrozenTrial) -> FrozenTrial:
    if trial.state != TrialState.RUNNING:
        return trial
    if config_of(trial) is None:
        return with_attrs(
            trial, state=TrialState.FAIL, outcome=FAILED, reason="abandoned: exported while it ran elsewhere"
        )
    begun = is_begun(trial)
    return with_attrs(
        trial, state=TrialState.FAIL, outcome=INTERRUPTED if begun else ABANDONED, reason="exported while it ran"
    )


def _trial_to_json(t: FrozenTrial) -> dict[str, Any]:
    return {
        "number": t.number,
        "state": t.state.name,
        "value": t.value,
        "start": t.datetime_start and t.datetime_start.isoformat(),
        "end": t.datetime_complete and t.datetime_complete.isoformat(),
        "params": t.params,
        "distributions": {k: json.loads(distribution_to_json(d)) for k, d in t.distributions.items()},
        "user_attrs": t.user_attrs,
        "system_attrs": {k: v for k, v in t.system_attrs.items() if not k.startswith(_OF_THE_PLACE)},
        "curve": sorted(t.intermediate_values.items()),
    }


def _trial_from_json(data: Mapping[str, Any]) -> FrozenTrial:
    start, end = (datetime.fromisoformat(data[k]) if data[k] else None for k in ("start", "end"))
    distributions = {k: json_to_distribution(json.dumps(d)) for k, d in data["distributions"].items()}
    for key, value in data["params"].items():
        distributions[key].to_internal_repr(value)  # raises ValueError for what is no value of it
    return FrozenTrial(
        number=int(data["number"]),
        state=TrialState[data["state"]],
        value=None if data["value"] is None else float(data["value"]),
        datetime_start=start,
        datetime_complete=end,
        params=dict(data["params"]),
        distributions=distributions,
        user_attrs=dict(data["user_attrs"]),
        system_attrs=dict(data["system_attrs"]),
        intermediate_values={int(step): float(value) for step, value in data["curve"]},
        trial_id=-1,
    )
