"""Databases of studies: SQLite made safe for several processes, or PostgreSQL for several machines.

Optuna's SQLite storage pops a queued trial by reading and then writing, so that two processes run it twice, and most
processes that open a fresh file together crash. Here every transaction takes the write lock at its start, a file is created
by one process at a time, and whatever must be done by one process at once is done under `StudyStorage.lock`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import sqlite3
import time
import urllib.parse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage

from audio_cls.core.errors import UserError, choices
from audio_cls.core.locks import LockBusy, file_lock
from audio_cls.core.masking import encode_user, mask, mask_address
from audio_cls.core.snapshots import is_writable, readable_copy

__all__ = ["Heartbeat", "LockBusy", "StudyStorage", "open_storage"]

SQLITE_TIMEOUT = 60.0  # seconds to wait for another process's transaction


@dataclass(frozen=True)
class Heartbeat:
    """How often a running trial shows life, and after how long a silence it is given to another worker. Seconds."""

    interval: int = 15
    grace: int = 120

    @classmethod
    def usual(cls) -> Heartbeat:
        """Return the defaults, or AUDIO_CLS_HEARTBEAT=INTERVAL,GRACE, which must be the same for all workers of a study."""
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
            file_lock(self.lock_file, timeout)
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
    with file_lock(lock_file, SQLITE_TIMEOUT):
        try:
            backend = _storage(f"sqlite:///{path}", {"connect_args": {"timeout": SQLITE_TIMEOUT}}, heartbeat)
        except sa.exc.DatabaseError as error:
            raise UserError(f"{path} is no usable study database: {error.orig}") from None

    @sa.event.listens_for(backend.engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are started below, not by the driver at the first write
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
    """Return the tables of an SQLite file, read without writing anything beside it; none if another process just
    writes to it.

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
