"""Being asked to leave: signals, and the death of the process that started us."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

__all__ = ["GRACE_SECONDS", "StopRequest"]

GRACE_SECONDS = 60.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


class StopRequest:
    """A context in which SIGTERM, SIGINT and SIGHUP ask, instead of ending the process; a second SIGINT ends it.

    With `parent`, the end of that process asks as well: told by the kernel where it can (Linux), else noticed by
    looking. Outside the main thread, where signals cannot be caught, only `ask` and the parent count.

    Who is asked finishes what is under way, an epoch say, for `grace` seconds; then it is `overdue`.
    """

    def __init__(self, parent: int | None = None, grace: float = GRACE_SECONDS) -> None:
        self._parent = parent
        self._grace = grace
        self._asked_at: float | None = None
        self._asked = threading.Event()
        self._reason: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup
                self._before[number] = signal.signal(number, self._on_signal)
            if self._parent is not None:
                _die_with_parent(signal.SIGTERM)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before and self._parent is not None:
            _die_with_parent(0)

    def ask(self, reason: str) -> None:
        """Ask to leave, as a signal would."""
        self._reason = self._reason or reason
        self._asked_at = self._asked_at or time.monotonic()
        self._asked.set()

    def reason(self) -> str | None:
        """Why we should leave; None to go on."""
        if not self._asked.is_set() and self._parent is not None and os.getppid() != self._parent:
            self.ask("the supervisor is gone")
        return self._reason if self._asked.is_set() else None

    def overdue(self) -> str | None:
        """Why to leave at once, in the middle of what is under way; None while there is time. Cheap: no system call."""
        if self._asked_at is None or time.monotonic() - self._asked_at < self._grace:
            return None
        return f"{self._reason}, and the epoch took longer than {self._grace:g} s"

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past a request; True when there is one."""
        self._asked.wait(seconds)
        return self.reason() is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked.is_set():
            raise KeyboardInterrupt
        self.ask(signal.Signals(number).name)


def _die_with_parent(number: int) -> None:
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    except (OSError, AttributeError):  # not Linux: `reason` looks at the parent's id instead
        return
