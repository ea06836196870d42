"""Opening MLflow: settings before its import, a database that is created once, and paths that follow a moved folder."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from audio_cls.core.errors import UserError
from audio_cls.core.snapshots import is_writable, readable_copy, scratch_folder
from audio_cls.core.workspace import Workspace, fsync_folder

__all__ = [
    "REQUEST_SECONDS",
    "Breaker",
    "Refused",
    "copy_to_read",
    "create_experiment",
    "database_uri",
    "import_mlflow",
    "is_conflict",
    "is_final",
    "open_client",
    "relocate",
]

CONNECT_SECONDS = 2.0  # to find out that a server cannot be reached
REQUEST_SECONDS = 10  # for a server that takes the connection and then hangs
ROOT_TAG = "audio_cls.root"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
_PATHS = (  # every place where MLflow 3.17 keeps the absolute path of an artifact
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
# The request itself can never succeed, whoever repeats it; all else (locks, disks, networks, credentials) may pass.
_FINAL_CODES = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_STATE",
    "NOT_IMPLEMENTED",
}
_log = logging.getLogger("audio_cls.tracking")


def import_mlflow() -> Any:
    """MLflow, imported with telemetry off, bounded requests and without its progress bars and banners.

    A setting that the user has made in the environment wins. Requests are not repeated by MLflow: a repeated creation
    could make two runs, so repeating is left to the outbox, which looks first.
    """
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.store.tracking.sqlalchemy_store"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it prints a traceback for each lock; we warn once
    return mlflow


def database_uri(path: Path) -> str:
    return f"sqlite:///{path}"


def open_client(workspace: Workspace, uri: str | None) -> Any:
    """Return an `MlflowClient` on the workspace's own database (created or relocated where needed), or on the server
    at `uri`.

    In a read-only workspace it is a client on a copy of the database, to read from.
    """
    mlflow = import_mlflow()
    if uri is not None:
        return mlflow.MlflowClient(tracking_uri=uri)
    if not is_writable(workspace.mlflow_db):
        return mlflow.MlflowClient(tracking_uri=database_uri(copy_to_read(workspace)))
    with workspace.lock("mlflow", timeout=120):  # concurrent first use of a fresh database breaks MLflow's migrations
        if not workspace.mlflow_db.exists():
            _create(workspace)
        relocate(workspace)
        return mlflow.MlflowClient(tracking_uri=database_uri(workspace.mlflow_db))


def copy_to_read(workspace: Workspace) -> Path:
    """Return a copy of a read-only workspace's mlflow.db, its paths as the workspace lies now; empty if there is none."""
    if workspace.mlflow_db.exists():
        copy = readable_copy(workspace.mlflow_db)
    else:
        copy = scratch_folder() / workspace.mlflow_db.name
    if not copy.exists():
        _new_database(copy, copy.parent)
    _relocate(copy, str(workspace.root))
    return copy


def create_experiment(client: Any, workspace: Workspace, uri: str | None, name: str, tags: dict[str, str]) -> str:
    """Create an experiment; in the workspace its artifacts go to `mlruns/ID`, whatever the current folder is."""
    if uri is not None:
        return str(client.create_experiment(name, tags=tags))
    from mlflow.entities import ExperimentTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(database_uri(workspace.mlflow_db), str(workspace.artifacts))
    return str(store.create_experiment(name, tags=[ExperimentTag(k, v) for k, v in tags.items()]))


def _create(workspace: Workspace) -> None:
    """Make the database beside its place and move it there whole: a kill on the way leaves none, not half of one."""
    workspace.artifacts.mkdir(parents=True, exist_ok=True)
    for old in workspace.root.glob(".mlflow.db.*.tmp*"):
        old.unlink(missing_ok=True)
    temporary = workspace.root / f".mlflow.db.{secrets.token_hex(4)}.tmp"
    try:
        _new_database(temporary, workspace.artifacts)
        os.replace(temporary, workspace.mlflow_db)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(workspace.root)


def _new_database(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(database_uri(path), str(artifacts)).engine.dispose()


def relocate(workspace: Workspace) -> int:
    """Where the folder has moved, rewrite the absolute artifact paths in mlflow.db; returns the rows changed.

    MLflow stores where artifacts lie as absolute paths: in a copied folder it would list none, and a run that continues would
    write into the old place. The folder in which the database last stood is kept in the database itself, and read from the
    default experiment where it is not; all is changed in one transaction. Call it under the workspace's lock.
    """
    new = str(workspace.root)
    rows, old = _relocate(workspace.mlflow_db, new)
    if rows:
        _forget_places()
        _log.warning(
            "the workspace has moved from %s to %s: %d artifact paths in mlflow.db now follow it", old, new, rows
        )
    return rows


def _relocate(database: Path, new: str) -> tuple[int, str | None]:
    """Rewrite the paths for the root `new`: the number of rows changed, and the root they had."""
    con = sqlite3.connect(database, timeout=60, isolation_level=None)
    try:
        tables = {name for (name,) in con.execute("select name from sqlite_master where type = 'table'")}
        if not {"experiments", "experiment_tags"} <= tables:
            raise UserError(f"{database} is no MLflow database: it has no table of experiments. Move it away.")
        tag = con.execute("select experiment_id, value from experiment_tags where key = ?", (ROOT_TAG,)).fetchone()
        old = tag[1] if tag else _first_root(con)
        if tag and old == new:
            return 0, old
        home = con.execute("select min(experiment_id) from experiments").fetchone()[0]
        con.execute("begin immediate")
        rows = 0
        if old is not None and old != new:
            for table, column in _PATHS:
                if table not in tables:
                    continue
                for prefix in ("", "file://"):
                    was, now = prefix + old, prefix + new
                    rows += con.execute(
                        f"update {table} set {column} = ? || substr({column}, ?) "
                        f"where {column} = ? or substr({column}, 1, ?) = ?",
                        (now, len(was) + 1, was, len(was) + 1, was + "/"),
                    ).rowcount
        if home is not None:
            con.execute("delete from experiment_tags where key = ?", (ROOT_TAG,))
            con.execute(
                "insert into experiment_tags (key, value, experiment_id) values (?, ?, ?)", (ROOT_TAG, new, home)
            )
        con.execute("commit")
    finally:
        con.close()  # rolls back what was not committed
    return rows, old


def _forget_places() -> None:
    """MLflow remembers in each process where a run's artifacts are, by the run's id alone: a process that had the workspace
    open in its old place would continue writing there."""
    utils = sys.modules.get("mlflow.tracking._tracking_service.utils")
    places = getattr(utils, "_artifact_repos_cache", None)
    if places is not None:
        places.clear()


def _first_root(con: sqlite3.Connection) -> str | None:
    """Return the folder of a database that we have not seen before: where MLflow put the first experiment's `mlruns/ID`."""
    for number, location in con.execute(
        "select experiment_id, artifact_location from experiments order by experiment_id"
    ):
        path = (location or "").removeprefix("file://")
        if path.startswith("/") and path.endswith(f"/mlruns/{number}"):
            return str(path.removesuffix(f"/mlruns/{number}"))
    return None


class Refused(Exception):
    """An operation that can never succeed."""

    error_code = "INVALID_STATE"


def is_final(error: Exception) -> bool:
    """Whether repeating the operation cannot help (else it is kept and sent later)."""
    return getattr(error, "error_code", None) in _FINAL_CODES


def is_conflict(error: Exception) -> bool:
    """Whether another process was faster with the same row (MLflow looks first and then inserts, in two steps)."""
    return "IntegrityError" in str(error) or "UNIQUE constraint" in str(error) or "duplicate key" in str(error)


class Breaker:
    """Keeps a failing server from slowing a trial: after a failure nothing is tried for `seconds`, doubling to ten times.

    One attempt costs at most `CONNECT_SECONDS` for a server that cannot be reached, `REQUEST_SECONDS` for one that hangs
    (and 20 s for a local database that another program has locked, MLflow's own limit). With attempts 30 to 300 s apart, a
    long outage takes less than 1 % of a trial's time, a locked database less than 7 %.
    """

    def __init__(self, uri: str | None, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._delay, self._closed_until, self._fresh_until = seconds, 0.0, 0.0
        self._address = _address(uri) if uri else None

    @property
    def remote(self) -> bool:
        """Whether there is a server that can be asked for a connection."""
        return self._address is not None

    def allows(self) -> bool:
        """Whether to try now; a server that has not answered lately is first asked for a connection."""
        now = time.monotonic()
        if now < self._closed_until:
            return False
        if self._address is not None and now >= self._fresh_until and not _connects(*self._address):
            self.failed()
            return False
        return True

    def worked(self) -> None:
        self._delay, self._fresh_until = self.seconds, time.monotonic() + self.seconds

    def failed(self) -> None:
        self._closed_until, self._fresh_until = time.monotonic() + self._delay, 0.0
        self._delay = min(2 * self._delay, 10 * self.seconds)


def _address(uri: str) -> tuple[str, int] | None:
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.split("+")[0])
    if not parts.hostname or not port:
        return None
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return None  # only the proxy can be reached from here
    return parts.hostname, port


def _connects(host: str, port: int) -> bool:
    answer: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
            answer.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)  # a name server that hangs knows no time limit
    thread.start()
    thread.join(CONNECT_SECONDS + 0.2)
    return bool(answer)
