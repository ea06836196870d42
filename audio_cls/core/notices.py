"""Messages, progress and questions of the rooms. The installed display decides where they are shown.

The command line installs one that prints. Without one (the package used from a program of your own) lines go to the logger
`audio_cls`, progress is not shown, and questions are answered with no.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from audio_cls.core.formatting import printable

__all__ = ["Display", "Progress", "QueueProgress", "confirm", "display", "follow_queue", "install", "is_interactive", "progress", "say", "shown"]  # fmt: skip

_logger = logging.getLogger("audio_cls")


class Progress(Protocol):
    """Shows the progress of a piece of work: called with `(done, total, text)` for the whole, `phase` for a part of it."""

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """Show that `done` of `total` are finished."""

    def phase(self, name: str, done: int, total: int) -> None:
        """Show the progress of one phase of the work; it is forgotten when it is complete."""


class QueueProgress(Protocol):
    """Shows the progress of a queue of runs, from its status."""

    def say(self, text: str) -> None:
        """Show one line."""

    def update(self, status: Any, phases: str = "") -> None:
        """Show a status (`queue.status.StudyStatus`); `phases` says what the workers do besides training."""


class _Silent:
    """Progress that is not shown."""

    def __call__(self, done: int, total: int, text: str = "") -> None:
        pass

    def phase(self, name: str, done: int, total: int) -> None:
        pass


class _Logged:
    """A queue's progress of which only the lines are kept, in the log."""

    def say(self, text: str) -> None:
        say(text)

    def update(self, status: Any, phases: str = "") -> None:
        pass


class Display:
    """Receives what rooms tell. This one logs lines, shows no progress and answers questions with no."""

    def say(self, text: str, *, err: bool = False) -> None:
        """Show one line; `err` marks what is not the command's result."""
        _logger.info("%s", printable(text))

    def progress(self, what: str) -> AbstractContextManager[Progress]:
        """Return the progress of a piece of work named `what`."""
        return _yield(_Silent())

    def follow_queue(self) -> AbstractContextManager[QueueProgress]:
        """Return the progress of a queue of runs."""
        return _yield(_Logged())

    def confirm(self, question: str) -> bool:
        """Ask whether to continue; no where nobody can be asked."""
        return False


@contextmanager
def _yield(value: Any) -> Iterator[Any]:
    yield value


_installed = Display()
console: Callable[[], Display] | None = None
"""Makes the display of the console; set by the public face, which is above it."""


def display() -> Display:
    """Return the display that is installed."""
    return _installed


def install(shown: Display) -> Display:
    """Install a display for this process. Returns the one that it replaces."""
    global _installed
    before, _installed = _installed, shown
    return before


@contextmanager
def shown(progress: bool) -> Iterator[None]:
    """Show what a call of the public face tells: on the console where no display is installed, or not at all."""
    wanted = _installed
    if not progress:
        wanted = Display()
    elif type(_installed) is Display and console is not None:
        wanted = console()
    before = install(wanted)
    try:
        yield
    finally:
        install(before)


def say(text: object = "", *, err: bool = False) -> None:
    """Tell one line to the installed display."""
    _installed.say(str(text), err=err)


def progress(what: str) -> AbstractContextManager[Progress]:
    """Return the progress of a piece of work, shown by the installed display: `with progress("packing") as show: show(1, 10)`."""
    return _installed.progress(what)


def follow_queue() -> AbstractContextManager[QueueProgress]:
    """Return the progress of a queue of runs, shown by the installed display."""
    return _installed.follow_queue()


def confirm(question: str) -> bool:
    """Ask whether to continue. False where nobody can be asked."""
    return _installed.confirm(question)


def is_interactive() -> bool:
    """Return whether somebody can be asked: standard input and error are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
