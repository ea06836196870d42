"""Where studies live: SQLite made safe for several processes, or PostgreSQL for several machines.

Optuna's SQLite storage pops a queued trial by reading and then writing, so that two processes run it twice, and most
processes that open a fresh file together crash. Here every transaction takes the write lock at its start, a file is created
by one process at a time, and whatever must be done by one process at once is done under `StudyStorage.lock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import sqlite3
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from audio_cls.core.errors import UserError, choices
from audio_cls.core.masking import encode_user, mask, mask_address
from audio_cls.core.snapshots import is_writable, readable_copy
from audio_cls.study.declaration import PrunerConfig, SamplerConfig, Study, identity_changes
from audio_cls.study.pruners import build_pruner
from audio_cls.study.samplers import build_sampler

__all__ = [
    "Heartbeat",
    "LockBusy",
    "StudyStorage",
    "damage_told",
    "load_study",
    "open_storage",
    "open_study",
    "patiently",
    "study_ids",
    "study_names",
]

IDENTITY = "audio_cls"  # the study attribute that holds its identity
SQLITE_TIMEOUT = 60.0  # seconds to wait for another process's transaction
T = TypeVar("T")


@dataclass(frozen=True)
class Heartbeat:
    """How often a running trial shows life, and after how long a silence it is given to another worker. Seconds."""

    interval: int = 15
    grace: int = 120

    @classmethod
    def usual(cls) -> Heartbeat:
        """The defaults, or AUDIO_CLS_HEARTBEAT=INTERVAL,GRACE, which must be the same for all workers of a study."""
        text = os.environ.get("AUDIO_CLS_HEARTBEAT", "")
        if not text:
            return cls()
        try:
            interval, grace = (int(part) for part in text.split(","))
        except ValueError:
            interval, grace = 0, 0
        if interval < 1 or grace < 2 * interval:
            raise UserError(
                f"AUDIO_CLS_HEARTBEAT={text!r}: expected INTERVAL,GRACE in whole seconds, with a grace of two intervals or more"
            )
        return cls(interval, grace)


class LockBusy(UserError):
    """A study's lock was not had in time; says who holds it."""


@dataclass(frozen=True)
class StudyStorage:
    """A database of studies. `shown` is its URL without the password."""

    backend: RDBStorage
    shown: str
    heartbeat: Heartbeat
    lock_file: Path | None  # None: the database's own advisory locks

    @contextlib.contextmanager
    def lock(self, study: str, timeout: float = 30.0) -> Iterator[None]:
        """Alone among all processes that use the study. Goes with its holder; not re-entrant.

        Raises:
            LockBusy: when another process (a stopped one, say) holds it for longer than `timeout` seconds.
        """
        held = (
            _file_lock(self.lock_file, timeout)
            if self.lock_file
            else _advisory_lock(self.backend.engine, study, timeout)
        )
        with held:
            yield


def open_storage(where: str | Path, *, heartbeat: Heartbeat | None = None, must_exist: bool = False) -> StudyStorage:
    """Open `sqlite:///FILE`, a file's path, or `postgresql://...`, creating its tables where they are missing.

    Raises:
        UserError: for another kind of database, one that cannot be reached, or a missing file when it `must_exist`.

    A file that `must_exist` and cannot be written to is opened as a copy, to read from.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    heartbeat = heartbeat or Heartbeat.usual()
    text = str(where)
    if "://" not in text:
        return _open_sqlite(Path(text), heartbeat, must_exist)
    try:
        url = sa.engine.make_url(encode_user(text))
    except (sa.exc.ArgumentError, ValueError):
        raise UserError(
            f"--storage {mask_address(text)!r} is no database URL. Allowed: a file's path, sqlite:///FILE, postgresql://USER@HOST/NAME"
        ) from None
    dialect = url.get_backend_name()
    if dialect == "sqlite":
        if not url.database or url.database == ":memory:":
            raise UserError(
                f"--storage {mask_address(text)!r}: a study needs a file that its workers share, such as sqlite:///optuna.db"
            )
        return _open_sqlite(Path(url.database), heartbeat, must_exist)
    if dialect != "postgresql":
        raise UserError(
            f"--storage: {dialect!r} is no supported database. {choices(dialect, ('sqlite', 'postgresql'))}"
        )
    return _open_postgresql(url, heartbeat)


def open_study(
    declaration: Study, storage: StudyStorage, *, extra: Mapping[str, Any] | None = None, check: bool = True
) -> optuna.Study:
    """Create the declared study, or take it up; one made by `optuna create-study` is taken up as well.

    `extra` joins the identity (the data's digest, the metric's version). The sampler and the pruner are those that the study
    began with.

    Raises:
        UserError: when the study optimises in the other direction, or was begun by a different declaration (unless not `check`).
    """
    identity = {**declaration.identity(), **(extra or {})}
    with storage.lock(declaration.name):
        try:
            study = optuna.create_study(
                storage=storage.backend,
                study_name=declaration.name,
                direction=declaration.direction,
                load_if_exists=True,
            )
        except StorageInternalError as error:
            raise UserError(f"{storage.shown} does not answer: {error.__cause__ or error}") from None
        wanted = StudyDirection.MAXIMIZE if declaration.direction == "maximize" else StudyDirection.MINIMIZE
        if study.directions != [wanted]:
            found = ", ".join(d.name.lower() for d in study.directions)
            raise UserError(
                f"study {declaration.name!r} in {storage.shown} has the direction {found}, the declaration asks for "
                f"{declaration.direction}: give the declaration another name, or the direction {found}"
            )
        stored = study.user_attrs.get(IDENTITY)
        if stored is None:
            study.set_user_attr(IDENTITY, identity)
        elif missing := {k: v for k, v in (extra or {}).items() if k not in stored}:
            study.set_user_attr(IDENTITY, {**stored, **missing})
    if stored is not None and check and (changes := identity_changes(stored, declaration, extra)):
        raise UserError(
            f"study {declaration.name!r} in {storage.shown} was begun by another declaration, and its trials would not be "
            "comparable. What changed:\n  "
            + "\n  ".join(changes)
            + "\nUndo the change, begin a new version of the study (`study run --new-version`: what is comparable is carried over), "
            "or give the study another name."
        )
    return load_study(declaration.name, storage)


def load_study(name: str, storage: StudyStorage) -> optuna.Study:
    """A study by name, with the sampler and pruner that it began with.

    Raises:
        UserError: when there is no such study.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage.backend, sampler=optuna.samplers.RandomSampler())
    except KeyError:
        raise UserError(f"no study {name!r} in {storage.shown}. {choices(name, study_names(storage))}") from None
    with damage_told(name):
        identity = study.user_attrs.get(IDENTITY)
        if identity is not None:
            study.sampler = build_sampler(SamplerConfig.parse(identity["sampler"], f"study {name!r}: sampler"))
            study.pruner = build_pruner(PrunerConfig.parse(identity["pruner"], f"study {name!r}: pruner"))
    return study


@contextlib.contextmanager
def damage_told(name: str) -> Iterator[None]:
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


# -- SQLite -------------------------------------------------------------------------------------------------------


def _open_sqlite(path: Path, heartbeat: Heartbeat, must_exist: bool) -> StudyStorage:
    path = path.expanduser().resolve()
    if must_exist and not path.exists():
        raise UserError(f"no study database {str(path)!r}: nothing was searched here yet")
    if not path.parent.is_dir():
        raise UserError(f"--storage: no folder {str(path.parent)!r} for the study database {path.name!r}")
    _check_sqlite_file(path)
    shown = f"sqlite:///{path}"
    if not is_writable(path):
        if not must_exist:
            raise UserError(f"the study database {path} cannot be written to: it is read-only")
        path = readable_copy(path)
    # Where it lies depends on the database alone, so that two workspaces that share one exclude each other. It is in a folder of
    # its own, not FILE.lock: programs take a file of that name for a lock of theirs.
    lock_file = path.parent / ".locks" / f"{path.name}.lock"
    lock_file.parent.mkdir(exist_ok=True)
    with _file_lock(lock_file, SQLITE_TIMEOUT):
        try:
            backend = _storage(f"sqlite:///{path}", {"connect_args": {"timeout": SQLITE_TIMEOUT}}, heartbeat)
        except sa.exc.DatabaseError as error:
            raise UserError(f"{path} is no usable study database: {error.orig}") from None

    @sa.event.listens_for(backend.engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver at the first write
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")

    @sa.event.listens_for(backend.engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    backend.engine.dispose()  # connections made before the listeners stood
    return StudyStorage(backend, shown, heartbeat, lock_file)


def _check_sqlite_file(path: Path) -> None:
    """Look whether a file is a database of studies, or can become one, before anything is written in its folder.

    Raises:
        UserError: for a folder, a file of another kind, a database of something else, or a place that cannot be written to.
    """
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise UserError(f"--storage: {path} is no file: expected the study database, or a name for a new one")
    if path.exists() and path.stat().st_size > 0:
        tables = _tables(path)
        if tables and not any(name.startswith(("studies", "study_", "trial", "version_info")) for name in tables):
            raise UserError(
                f"{path} is no usable study database: it holds the tables of something else ({', '.join(tables[:3])}, ...). "
                "Name one that `study run` made, or a new file"
            )
    elif not os.access(path.parent, os.W_OK):
        raise UserError(f"--storage: {path.parent} cannot be written to: no study database can be made there")


SMALLEST_SQLITE = 512  # bytes
NO_SQLITE = "{} is no usable study database: it is no SQLite file. Name one that `study run` made, or a new file"


def _tables(path: Path) -> list[str]:
    """The tables of an SQLite file, read without writing anything beside it; none where another process just writes to it.

    It is never opened but by SQLite: to close such a file takes all locks away that this process has on it.

    Raises:
        UserError: for a file of another kind, or one that cannot be read.
    """
    if path.stat().st_size < SMALLEST_SQLITE:  # SQLite takes it for an empty one
        raise UserError(NO_SQLITE.format(path))
    uri = f"file:{urllib.parse.quote(str(path))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            rows = connection.execute("select name from sqlite_master where type = 'table' order by name").fetchall()
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise UserError(NO_SQLITE.format(path)) from None
        if "unable to open" in str(error):
            raise UserError(f"--storage: {path} cannot be read: {error}") from None
        return []
    return [name for (name,) in rows]


@contextlib.contextmanager
def _file_lock(path: Path, timeout: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout
    with open(path, "a+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise LockBusy(
                        f"{path} is held by {file.read().strip() or 'another process'} for more than {timeout:g} s"
                    ) from None
                time.sleep(0.005)
        with contextlib.suppress(OSError):  # a full disk must not stop who would free it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}")
            file.flush()
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


# -- PostgreSQL ---------------------------------------------------------------------------------------------------


def _open_postgresql(url: sa.engine.URL, heartbeat: Heartbeat) -> StudyStorage:
    shown = mask(url.render_as_string(hide_password=True))
    options = {"pool_pre_ping": True, "pool_size": 3, "connect_args": {"connect_timeout": 10}}
    text = url.render_as_string(hide_password=False)
    try:
        maker = sa.create_engine(text, poolclass=sa.pool.NullPool, connect_args=options["connect_args"])
        with _advisory_lock(maker, "creation of tables", SQLITE_TIMEOUT):
            backend = _storage(text, options, heartbeat)
    except ImportError as error:
        raise UserError(
            f"{shown}: the driver is missing ({error}). Install it with: pip install 'audio_cls[postgresql]'"
        ) from None
    except sa.exc.OperationalError as error:
        raise UserError(f"{shown} cannot be reached: {mask(str(error.orig).strip())}") from None
    return StudyStorage(backend, shown, heartbeat, None)


@contextlib.contextmanager
def _advisory_lock(engine: sa.engine.Engine, name: str, timeout: float) -> Iterator[None]:
    key = int.from_bytes(hashlib.sha256(f"audio_cls {name}".encode()).digest()[:8], "big", signed=True)
    deadline = time.monotonic() + timeout
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(sa.text("select pg_try_advisory_lock(:key)"), {"key": key}):
            if time.monotonic() > deadline:
                raise LockBusy(f"the lock of {name!r} is held by another process for more than {timeout:g} s")
            time.sleep(0.01)
        try:
            yield
        finally:
            connection.execute(sa.text("select pg_advisory_unlock(:key)"), {"key": key})


def _storage(url: str, engine_kwargs: dict[str, Any], heartbeat: Heartbeat) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(
            url,
            engine_kwargs=engine_kwargs,
            heartbeat_interval=heartbeat.interval,
            grace_period=max(heartbeat.grace, math.ceil(2 * heartbeat.interval)),
        )


def study_ids(storage: StudyStorage) -> dict[str, int]:
    """Return the database's id of each study by name, those that are being written (`study.writing.write_study`) among them.

    Nothing that a study holds is read, so that a damaged one hides no other.
    """
    with storage.backend.engine.connect() as connection:
        rows = connection.execute(sa.text("select study_name, study_id from studies order by study_id"))
        return {str(row.study_name): int(row.study_id) for row in rows}


def study_names(storage: StudyStorage) -> list[str]:
    """Return the studies in a storage, in order of their names; without those that are being written."""
    return sorted(n for n in study_ids(storage) if "~" not in n)
