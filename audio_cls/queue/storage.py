"""Studies in a database: created, resumed, listed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection

from audio_cls.core.errors import UserError, choices
from audio_cls.queue.databases import Heartbeat, LockBusy, StudyStorage, open_storage
from audio_cls.queue.work import IDENTITY, SEARCH, Work, kind_of

__all__ = [
    "IDENTITY",
    "TOTAL",
    "Heartbeat",
    "LockBusy",
    "StudyStorage",
    "damage_as_user_error",
    "load_study",
    "open_storage",
    "open_study",
    "patiently",
    "study_ids",
    "study_names",
]

TOTAL = "total"  # the attribute of a study that holds the total last asked for
T = TypeVar("T")


def open_study(work: Work, storage: StudyStorage, *, extra: Mapping[str, Any] | None = None) -> optuna.Study:
    """Create the study of some work, or take it up; one made by `optuna create-study` is resumed as well.

    `extra` joins the identity (the data's digest, the metric's version).

    Raises:
        UserError: when the study optimises in the other direction, holds another kind of work, or was started by a different
            declaration.
    """
    identity = {**work.identity(), **(extra or {})}
    with storage.lock(work.name):
        try:
            study = optuna.create_study(
                storage=storage.backend,
                study_name=work.name,
                direction=work.direction,
                sampler=work.make_sampler(),
                pruner=work.make_pruner(),
                load_if_exists=True,
            )
        except StorageInternalError as error:
            raise UserError(f"{storage.shown} does not answer: {error.__cause__ or error}") from None
        wanted = StudyDirection.MAXIMIZE if work.direction == "maximize" else StudyDirection.MINIMIZE
        if study.directions != [wanted]:
            found = ", ".join(d.name.lower() for d in study.directions)
            raise UserError(
                f"study {work.name!r} in {storage.shown} has the direction {found}, the declaration asks for "
                f"{work.direction}: give the declaration another name, or the direction {found}"
            )
        stored = study.user_attrs.get(IDENTITY)
        if stored is None:
            study.set_user_attr(IDENTITY, identity)
            return study
        if kind_of(study.user_attrs) != work.kind:
            raise UserError(
                f"{work.name!r} in {storage.shown} is a study of the kind {kind_of(study.user_attrs)}, the declaration is of "
                f"the kind {work.kind}: give it another name"
            )
        if missing := {k: v for k, v in (extra or {}).items() if k not in stored}:
            study.set_user_attr(IDENTITY, {**stored, **missing})
    if changes := work.changes_since(stored, extra):
        again = "begin a new version of the study (`study run --new-version`: what is comparable is carried over), "
        raise UserError(
            f"study {work.name!r} in {storage.shown} was begun by another declaration, and its trials would not be "
            "comparable. What changed:\n  "
            + "\n  ".join(changes)
            + f"\nUndo the change, {again if work.kind == SEARCH else ''}or give it another name."
        )
    return study


def load_study(name: str, storage: StudyStorage) -> optuna.Study:
    """Load a study by its name, to read from it; `open_study` also gives it its sampler and pruner.

    Raises:
        UserError: when there is no such study, or it is damaged.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage.backend, sampler=optuna.samplers.RandomSampler())
    except KeyError:
        raise UserError(f"no study {name!r} in {storage.shown}. {choices(name, study_names(storage))}") from None
    with damage_as_user_error(name):
        identity = study.user_attrs.get(IDENTITY)
        if identity is not None:
            for key in ("metric", "direction"):
                assert isinstance(identity[key], str), key
    return study


@contextlib.contextmanager
def damage_as_user_error(name: str) -> Iterator[None]:
    """Say of whatever the stored values of a study lead to that the study is damaged, and what to do.

    Raises:
        UserError: in the place of a `KeyError`, `TypeError`, ... raised within.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"study {name!r} is damaged: its stored values do not hold together ({type(error).__name__}: {error}). "
            f"`audio-cls study remove {name}` takes it out of the database; its runs and checkpoints stay"
        ) from error


def patiently(call: Callable[[], T], *, seconds: float = 60.0, give_up: Callable[[], bool] = lambda: False) -> T:
    """Call, and call again with growing pauses while the database is away or its disk is full, for `seconds` at most."""
    deadline = time.monotonic() + seconds
    pause = 0.2
    while True:
        try:
            return call()
        except (StorageInternalError, sa.exc.DBAPIError):
            if time.monotonic() + pause > deadline or give_up():
                raise
            time.sleep(pause)
            pause = min(pause * 2, 5.0)


def study_ids(storage: StudyStorage) -> dict[str, int]:
    """Return the database's id of each study by name, those that are being written (`study.writing.write_study`) among them.

    Nothing that a study holds is read, so that a damaged one hides no other.
    """
    with storage.backend.engine.connect() as connection:
        rows = connection.execute(sa.text("select study_name, study_id from studies order by study_id"))
        return {str(row.study_name): int(row.study_id) for row in rows}


def study_names(storage: StudyStorage, kind: str | None = SEARCH) -> list[str]:
    """Return the studies of a kind in a storage, of all kinds for None, in order of their names; without those being written."""
    backend = storage.backend
    found = sorted((n, i) for n, i in study_ids(storage).items() if "~" not in n)
    return [n for n, i in found if kind is None or _kind(backend, i) == kind]


def _kind(backend: Any, study_id: int) -> str:
    try:
        return kind_of(backend.get_study_user_attrs(study_id))
    except ValueError:  # a damaged study is listed where it was looked for most
        return SEARCH
