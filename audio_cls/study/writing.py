"""Writing a whole study at once: one that is imported, merged or started as a new version."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from audio_cls.core.errors import UserError
from audio_cls.queue.storage import StudyStorage, study_ids

__all__ = ["tidy_leftovers", "with_attrs", "write_study"]


def write_study(
    storage: StudyStorage, name: str, direction: str, attrs: Mapping[str, Any], trials: Sequence[FrozenTrial],
    *, replaces: bool = False,
) -> None:  # fmt: skip
    """Make a whole study appear at once, under its name: it is written under another one, then renamed, in one transaction.

    `replaces`: it takes the place of the study of that name. Call it under the storage's lock.
    """
    backend, token = storage.backend, secrets.token_hex(4)
    fresh, old = f"{name}~new-{token}", f"{name}~old-{token}"
    study_id = backend.create_new_study([StudyDirection[direction]], fresh)
    try:
        for key, value in attrs.items():
            backend.set_study_user_attr(study_id, key, value)
        for trial in trials:
            backend.create_new_trial(study_id, template_trial=trial)
        rename = sa.text("update studies set study_name = :new where study_name = :old")
        with backend.engine.begin() as connection:
            if replaces:
                connection.execute(rename, {"new": old, "old": name})
            connection.execute(rename, {"new": name, "old": fresh})
    except BaseException as error:
        backend.delete_study(study_id)
        if isinstance(error, sa.exc.IntegrityError):
            raise UserError(f"study {name!r} was made by another process meanwhile; nothing was changed") from None
        raise
    if replaces:
        backend.delete_study(backend.get_study_id_from_name(old))


def tidy_leftovers(storage: StudyStorage, name: str) -> None:
    """Remove what a killed `write_study` left. Call it under the storage's lock."""
    for left, study_id in study_ids(storage).items():
        if re.fullmatch(re.escape(name) + r"~(new|old)-[0-9a-f]{8}", left):
            storage.backend.delete_study(study_id)


def with_attrs(
    trial: FrozenTrial, number: int | None = None, state: TrialState | None = None, **attrs: Any
) -> FrozenTrial:
    """Return a copy of a trial with some user attributes, number or state changed."""
    return FrozenTrial(
        number=trial.number if number is None else number,
        state=trial.state if state is None else state,
        value=trial.value if state in (None, trial.state) else None,
        datetime_start=trial.datetime_start or (datetime.now() if state == TrialState.FAIL else None),
        datetime_complete=trial.datetime_complete or (datetime.now() if state == TrialState.FAIL else None),
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={**trial.user_attrs, **attrs},
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
        trial_id=-1,
    )
