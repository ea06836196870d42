"""Reading SQLite databases that are in a read-only place: a consistent copy of each, in a temporary folder of this process.

SQLite cannot open a database in write-ahead mode, or one whose last writer was killed, without writing beside it. Another
machine may be writing to the original meanwhile: a copy that changed while it was made is made again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from audio_cls.core.errors import UserError

__all__ = ["is_writable", "readable_copy", "scratch_folder"]

ATTEMPTS, PAUSE_SECONDS = 50, 0.1
_BESIDE = ("", "-wal", "-journal")  # the database, and what SQLite may keep beside it
Signature = tuple[tuple[str, int, int], ...]
# Both are kept for as long as the process: a folder goes with its object.
_copies: dict[tuple[Path, Signature], tempfile.TemporaryDirectory[str]] = {}
_scratch: list[tempfile.TemporaryDirectory[str]] = []


def is_writable(path: Path) -> bool:
    """Whether a file can be written, or created, together with its siblings: SQLite writes beside its database."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def readable_copy(database: Path) -> Path:
    """Return a copy of a SQLite database as it is now; it is removed when this process ends.

    The same copy is returned as long as the original has not changed.

    Raises:
        UserError: where the database cannot be read, or is written to without a pause.
    """
    for _ in range(ATTEMPTS):
        signature = _signature(database)
        if (database, signature) not in _copies:
            try:
                folder = _copy(database, signature)
            except FileNotFoundError:  # its log has just been removed
                continue
            except (OSError, sqlite3.Error) as error:
                raise UserError(f"{database} cannot be read: {error}") from None
            if _signature(database) != signature:
                folder.cleanup()
                time.sleep(PAUSE_SECONDS)
                continue
            _copies[database, signature] = folder
        return Path(_copies[database, signature].name) / database.name
    raise UserError(f"{database} is read-only here, and another process writes to it all the time: try again later")


def scratch_folder() -> Path:
    """Return a new empty folder that is removed when this process ends."""
    _scratch.append(tempfile.TemporaryDirectory(prefix="audio_cls-"))
    return Path(_scratch[-1].name)


def _signature(database: Path) -> Signature:
    """Times of change and sizes of the database's files, by suffix."""
    found = []
    for suffix in _BESIDE:
        try:
            stat = os.stat(f"{database}{suffix}")
        except FileNotFoundError:
            continue
        found.append((suffix, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _copy(database: Path, signature: Signature) -> tempfile.TemporaryDirectory[str]:
    """Copy the files as they are; SQLite recovers the copy when it is opened."""
    folder = tempfile.TemporaryDirectory(prefix="audio_cls-")
    place = Path(folder.name) / database.name
    for suffix, _, _ in signature:  # the database before its log, which holds whatever the database may lack
        shutil.copyfile(f"{database}{suffix}", f"{place}{suffix}")
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("select count(*) from sqlite_master")
    return folder
