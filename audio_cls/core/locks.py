"""Locks between processes, on files. The operating system releases them when their holder dies."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

from audio_cls.core.errors import UserError

__all__ = ["LockBusy", "file_lock", "try_lock"]

POLL_SECONDS = 0.005


class LockBusy(UserError):
    """A lock was not had in time. `holder` is the process that has it, in words."""

    def __init__(self, message: str, holder: str = "another process") -> None:
        super().__init__(message)
        self.holder = holder


def try_lock(fd: int) -> bool:
    """Lock an open file unless another process holds it; False then. Closing the file releases the lock."""
    return lock_descriptor(fd, blocking=False)


@contextlib.contextmanager
def file_lock(path: Path, timeout: float | None = None, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a file, which stays and names its last holder. Not re-entrant, also not between threads.

    Args:
        timeout: seconds to wait for it; None to wait as long as it takes.
        waiting: called once when the lock must be waited for.

    Raises:
        LockBusy: when another process still holds it after `timeout` seconds, naming that process.
        OSError: when the file cannot be opened.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not try_lock(fd):
            if waiting:
                waiting()
                waiting = None
            if deadline is not None and time.monotonic() > deadline:
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
                raise LockBusy(f"{path} is held by {holder} for more than {timeout:g} s", holder)
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(OSError):  # only for the message above: a full disk must not stop who would free it
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {platform.node()}".encode(), 0)
        try:
            yield
        finally:
            unlock_descriptor(fd)
    finally:
        os.close(fd)
