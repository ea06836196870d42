"""`study remove`: a study leaves the database. Its runs and checkpoints stay unless they are asked to go with it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from audio_cls.core.errors import UserError, choices
from audio_cls.core.formatting import count
from audio_cls.core.trust import remove_imported
from audio_cls.core.workspace import Workspace
from audio_cls.queue.lease import is_dead
from audio_cls.queue.places import trial_folder
from audio_cls.queue.storage import StudyStorage, study_ids, study_names
from audio_cls.study.transfer.exporting import RUN
from audio_cls.tracking import Tracker
from audio_cls.tracking.copy import discard

__all__ = ["refuse_unknown", "remove_study"]


def refuse_unknown(where: StudyStorage, name: str) -> None:
    """Raises `UserError` where there is no study of that name."""
    if name not in study_ids(where):
        raise UserError(f"no study {name!r} in {where.shown}. {choices(name, study_names(where))}")


def remove_study(workspace: Workspace, name: str, where: StudyStorage, *, with_runs: bool = False) -> list[str]:
    """Remove a study, a damaged one too, and the Python files that were imported with it.

    Its checkpoints are moved to `checkpoints/removed/`, so that a new study of the name does not take them for its own.

    Args:
        with_runs: remove its MLflow runs (but those that another study counts as well), their models (but registered ones) and its
            checkpoints, too.

    Returns:
        What was done, in lines.

    Raises:
        UserError: for a name that is unknown, or a study that a worker runs.
    """
    said = [f"study {name} is removed from {where.shown}"]
    with where.lock(name):
        refuse_unknown(where, name)
        study_id = study_ids(where)[name]
        if running := list(_running(where, study_id)):
            listed = ", ".join(str(number) for number in running)
            raise UserError(
                f"study {name!r}: a worker runs trial {listed}. Stop its workers first (Ctrl-C; they checkpoint and leave)"
            )
        runs = _runs(where, study_id)
        where.backend.delete_study(study_id)
    remove_imported(workspace, name)
    if with_runs:
        kept = discard(Tracker(workspace), runs)
        said.append(f"deleted in MLflow, models included: {count(len(runs), 'run')}")
        if kept:
            said.append(f"registered models stay, with their files: {', '.join(kept)} (audio-cls models)")
    elif runs:
        said.append(f"its {len(runs)} runs stay in MLflow")
    return [*said, *_clear_checkpoints(workspace, name, with_runs)]


def _clear_checkpoints(workspace: Workspace, name: str, delete: bool) -> Iterator[str]:
    folder = trial_folder(workspace, name, 0, 0).parents[1]
    if not folder.is_dir():
        return
    if delete:
        shutil.rmtree(folder)
        yield "its checkpoints are deleted"
        return
    target = workspace.checkpoints / "removed" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target = _free(target)
    folder.rename(target)
    yield f"its checkpoints are kept in {target}"


def _free(path: Path) -> Path:
    """Return the path, or with a number where it is taken."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _running(where: StudyStorage, study_id: int) -> Iterator[int]:
    """Return the trials that a worker of ours runs, or may run on another machine. Read without the values, which may
    be damaged.
    """
    query = """
        select trials.trial_id, trials.number, attributes.value_json from trials
        join trial_user_attributes attributes on attributes.trial_id = trials.trial_id and attributes."key" = 'worker'
        where trials.study_id = :study and trials.state = 'RUNNING' order by trials.number
    """
    with where.backend.engine.connect() as connection:
        rows = connection.execute(sa.text(query), {"study": study_id}).all()
    silent = set(where.backend._get_stale_trial_ids(study_id)) if rows else set()
    for trial_id, number, worker in rows:
        dead = is_dead(str(_value(worker)))
        if dead is False or (dead is None and trial_id not in silent):
            yield number


def _runs(where: StudyStorage, study_id: int) -> list[str]:
    """Return the ids of a study's runs in MLflow, its trials' first, without those that another study's trials name."""
    trials = """
        select trials.study_id, attributes.value_json from trials
        join trial_user_attributes attributes on attributes.trial_id = trials.trial_id and attributes."key" = :key
    """
    studies = """select study_id, value_json from study_user_attributes where "key" = :key"""
    with where.backend.engine.connect() as connection:
        found = [
            *connection.execute(sa.text(trials), {"key": RUN}),
            *connection.execute(sa.text(studies), {"key": RUN}),
        ]
    others = {_value(text) for owner, text in found if owner != study_id}
    mine = dict.fromkeys(_value(text) for owner, text in found if owner == study_id)
    return [run for run in mine if isinstance(run, str) and run not in others]


def _value(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
