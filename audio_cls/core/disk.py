"""Detect a full disk, wait for space, and report it. A full disk costs no epoch and no trial."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterator

from audio_cls.core.errors import UserError

__all__ = ["DiskFull", "is_disk_full", "save_patiently"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_POSTGRESQL_FULL = "53100"
PAUSE_SECONDS = 2.0


class DiskFull(UserError):
    """There was no room for a file for longer than we wait."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it came from, is a lack of room: of a file system, a quota, SQLite or PostgreSQL."""
    return any(
        isinstance(e, DiskFull)
        or (isinstance(e, OSError) and e.errno in _FULL)
        or (isinstance(e, sqlite3.Error) and "disk is full" in str(e))
        or getattr(e, "sqlstate", None) == _POSTGRESQL_FULL
        for e in _causes(error)
    )


def save_patiently(save: Callable[[], None], seconds: float, give_up: Callable[[], bool]) -> None:
    """Call `save`, and again while the disk is full, for `seconds` at most or until `give_up()`.

    Raises:
        DiskFull: when there was no room in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            save()
            return
        except OSError as error:
            if not is_disk_full(error):
                raise
            if time.monotonic() >= deadline or give_up():
                raise DiskFull(f"disk full: {error}") from error
            time.sleep(min(PAUSE_SECONDS, max(0.05, deadline - time.monotonic())))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [one.__cause__, one.__context__, getattr(one, "orig", None)]
