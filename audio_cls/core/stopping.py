"""Stopping on request: signals, the death of the parent process, and the checks that long loops make.

`StopRequest` knows whether this process was asked to leave. A `Watch` carries that request, and the display, to every long
loop: features, normalisation, training, evaluation, results.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

__all__ = ["GRACE_SECONDS", "QUIET", "Abandoned", "Interrupted", "StopRequest", "Watch"]

GRACE_SECONDS = 60.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.1


class Abandoned(Exception):
    """Raised to leave in the middle of a phase; the message is the reason. The phase is run again later."""


class Interrupted(Exception):
    """Raised by what was asked to leave before its work was done; the message says how far it is and that the same command continues.

    The command line prints it and ends with code 130.
    """


class StopRequest:
    """A context in which SIGTERM, SIGINT and SIGHUP ask the process to leave instead of ending it. A second SIGINT ends it at
    once (without a `parent` a second SIGTERM does so too: a parent may send one after the kernel did).

    With `parent`, the end of that process asks as well: told by the kernel where it can (Linux), else noticed by
    looking. Outside the main thread, where signals cannot be caught, only `ask` and the parent count.

    A process that is asked may finish what is under way, an epoch for example, for `grace` seconds; then it is `overdue`.
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
        """Return why we should leave; None to continue."""
        if not self._asked.is_set() and self._parent is not None and os.getppid() != self._parent:
            self.ask("the supervisor is gone")
        return self._reason if self._asked.is_set() else None

    def overdue(self, phase: str = "the epoch") -> str | None:
        """Return why to leave at once, in the middle of `phase`; None while there is time. Cheap: no system call."""
        if self._asked_at is None or time.monotonic() - self._asked_at < self._grace:
            return None
        return f"{self._reason}, and {phase} took longer than {self._grace:g} s"

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past a request; True when there is one."""
        self._asked.wait(seconds)
        return self.reason() is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        ends = (signal.SIGINT,) if self._parent is not None else (signal.SIGINT, signal.SIGTERM)
        if number in ends and self._asked.is_set():
            raise KeyboardInterrupt
        self.ask(signal.Signals(number).name)


@dataclass(frozen=True)
class Watch:
    """What a long loop asks and reports. Without a `stop` nobody asks to leave, without `tell` nobody is told.

    `tell(phase, done, total)` is called with how far a phase is.
    """

    stop: StopRequest | None = None
    tell: Callable[[str, int, int], None] | None = None

    def step(self, phase: str, done: int, total: int, *, finish: bool = False) -> None:
        """Report how far `phase` is, and leave it when asked to: at once, or with `finish` once the grace is over.

        `finish` is for phases whose end saves work (the evaluation of an epoch); what would be computed again anyway
        (features) is left at once.

        Raises:
            Abandoned: with the reason.
        """
        if self.tell:
            self.tell(phase, done, total)
        if self.stop is None:
            return
        reason = self.stop.overdue(phase) if finish else self.stop.reason()
        if reason:
            at = "" if finish else f" ({phase}, {done} of {total})"
            raise Abandoned(f"interrupted: {reason}{at}")

    def should_stop(self) -> str | None:
        """Return why to leave after this epoch; None to continue."""
        reason = self.stop.reason() if self.stop else None
        return f"interrupted: {reason}" if reason else None

    def leave_now(self) -> str | None:
        """Return why to leave in the middle of an epoch; None to continue."""
        reason = self.stop.overdue() if self.stop else None
        return f"interrupted: {reason}" if reason else None

    def call(self, phase: str, function: Callable[[], Any]) -> Any:
        """Call a function that cannot ask by itself, and leave it running behind when the grace is over; its result.

        Raises:
            Abandoned: with the reason.
            Exception: what the function raises.
        """
        if self.stop is None:
            return function()
        outcome: list[tuple[Any, BaseException | None]] = []

        def work() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:
                outcome.append((None, error))

        thread = threading.Thread(target=work, name=phase, daemon=True)
        thread.start()
        while thread.is_alive():
            self.step(phase, 0, 1, finish=True)
            thread.join(_POLL_SECONDS)
        result, error = outcome[0]
        if error is not None:
            raise error
        return result


QUIET = Watch()
"""Asks nobody, tells nobody."""


def _die_with_parent(number: int) -> None:
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    except (OSError, AttributeError):  # not Linux: `reason` looks at the parent's id instead
        return
