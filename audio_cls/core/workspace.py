"""Where a project's results live: two databases, artifacts, corpora, checkpoints, the outbox and reports, in one folder.

The folder can be copied or moved as a whole. What must not be done by two processes at once is done under `Workspace.lock`;
what must not be half written is written by `atomic_write`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audio_cls.core.errors import UserError
from audio_cls.core.locks import LockBusy, file_lock
from audio_cls.core.masking import mask_address
from audio_cls.core.snapshots import is_writable

__all__ = ["TRACKING_VARIABLE", "WORKSPACE_VARIABLE", "Workspace", "atomic_write", "fsync_folder"]

WORKSPACE_VARIABLE = "AUDIO_CLS_WORKSPACE"
TRACKING_VARIABLE = "AUDIO_CLS_TRACKING"


@dataclass(frozen=True)
class Workspace:
    """A project's folder. Nothing is created before it is needed.

    `tracking` is the address of an MLflow server that runs are recorded on; None for the folder's own `mlflow.db`.
    """

    root: Path
    tracking: str | None = None

    def __post_init__(self) -> None:
        root = Path(self.root).expanduser().resolve()
        if "?" in str(root):  # a database address cannot tell it from the start of its options
            raise UserError(f"the workspace {str(root)!r} has a question mark in its path: rename the folder")
        if root.exists() and not root.is_dir():
            raise UserError(f"the workspace {str(root)!r} is a file: expected a folder (it is created when absent)")
        object.__setattr__(self, "root", root)
        object.__setattr__(self, "tracking", self.tracking or None)
        if self.tracking and not re.match(r"https?://[^/\s]", self.tracking):
            raise UserError(
                f"--tracking {mask_address(self.tracking)!r} is no MLflow server. Allowed: http://HOST:PORT, https://HOST, or "
                "nothing for the workspace's own mlflow.db"
            )

    @classmethod
    def find(cls, start: Path | str | None = None, tracking: str | None = None) -> Workspace:
        """Return the folder given, else the one that AUDIO_CLS_WORKSPACE names, else the current one; the MLflow
        server given (the empty text is none), else AUDIO_CLS_TRACKING's.
        """
        folder = start if start is not None else os.environ.get(WORKSPACE_VARIABLE) or Path.cwd()
        return cls(Path(folder), os.environ.get(TRACKING_VARIABLE) if tracking is None else tracking)

    @classmethod
    def of(cls, place: Workspace | Path | str | None) -> Workspace:
        """Return a workspace as it is, or the one in a folder, or the one that `find` finds."""
        return place if isinstance(place, Workspace) else cls.find(place)

    def environment(self) -> dict[str, str]:
        """Return what makes `Workspace.find` of a process that we start find this: no address is in its
        command line.
        """
        return {WORKSPACE_VARIABLE: str(self.root), TRACKING_VARIABLE: self.tracking or ""}

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written here, as on a share that is mounted read-only."""
        return not is_writable(self.root / "new")

    def check_writable(self, command: str) -> None:
        """Refuse a command that writes here, before it begins.

        Raises:
            UserError: when the workspace is read-only.
        """
        if self.read_only:
            raise UserError(
                f"the workspace {self.root} is read-only, and `{command}` writes there: name another with --workspace DIR, "
                "or copy the folder"
            )

    @property
    def mlflow_db(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def optuna_db(self) -> Path:
        return self.root / "optuna.db"

    @property
    def artifacts(self) -> Path:
        return self.root / "mlruns"

    @property
    def corpora(self) -> Path:
        return self.root / "corpora"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def sources(self) -> Path:
        """Copies of the files that declared parts of the user's own, as they ran here."""
        return self.root / ".sources"

    @property
    def weights(self) -> Path:
        """Copies of files of pretrained weights, named by their SHA-256."""
        return self.root / "weights"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @contextlib.contextmanager
    def lock(self, name: str, timeout: float = 60.0) -> Iterator[None]:
        """Hold an exclusive lock on `name` between processes of this machine (and threads of this one); the operating
        system releases it when its holder dies. Not re-entrant.

        Raises:
            UserError: when another process still holds it after `timeout` seconds, naming that process.
        """
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"a lock's name is made of letters, digits, '_', '-' and '.', got {name!r}")
        path = self.root / ".locks" / f"{name}.lock"
        with contextlib.ExitStack() as held:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(file_lock(path, timeout))
            except LockBusy as busy:
                raise UserError(
                    f"waited {timeout:g} s for the lock {name!r} of the workspace {self.root}: it is held by {busy.holder}. "
                    "Wait for it to end, or end it if it hangs."
                ) from None
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                raise UserError(f"the workspace {self.root} cannot be written to: {error}") from None
            yield


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Write a file so that a reader, and a machine that loses power, sees the old content or the new, never a part.

    Text is written as UTF-8. Missing folders are made. On failure the old content stays and no temporary file is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is not, before that)."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
