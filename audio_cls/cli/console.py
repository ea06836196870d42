"""The command line's display: tables, progress and questions, with rich on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import isnan
from typing import Any

import click

from audio_cls.core.formatting import duration, printable
from audio_cls.core.notices import Display, Progress, QueueProgress, is_interactive

__all__ = ["Bars", "ConsoleDisplay", "console", "progress", "say", "table"]

PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal
PIPE_WIDTH = 100_000  # columns: what goes to a file or a program is never broken
NARROWEST = 12  # columns that a text is cut down to, not further


def say(text: object = "", *, err: bool = False) -> None:
    """Print a line, its control characters escaped."""
    click.echo(printable(str(text)), err=err)


def console(err: bool = False) -> Any:
    """A rich console on standard output, or standard error; as wide as it takes where that is no terminal."""
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=False, stderr=err)
    return out if out.is_terminal else Console(highlight=False, soft_wrap=False, width=PIPE_WIDTH, stderr=err)


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    right: Sequence[int] = (),
    dim: Sequence[int] = (),
) -> None:
    """Print a table; numbers are right-aligned, and the columns named in `right`; the rows named in `dim` are greyed.

    No word is broken: where the terminal is too narrow, texts wrap between words, then long texts are cut with an ellipsis,
    then columns go into a second table below, which repeats the first column.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    out = console()
    numeric = [
        i in right or (bool(rows) and all(isinstance(r[i], (int, float)) for r in rows)) for i in range(len(columns))
    ]
    cells = [[printable(_cell(v)) for v in row] for row in rows]
    out.print(Text(printable(title), style="bold"), soft_wrap=True)
    for group in _groups(columns, cells, numeric, out.width):
        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, width, cut in group:
            drawn.add_column(
                escape(columns[i]),
                justify="right" if numeric[i] else "left",
                overflow="ellipsis" if cut else "fold",
                no_wrap=cut or numeric[i],
                width=width,
            )
        for index, row in enumerate(cells):
            drawn.add_row(*(escape(row[i]) for i, _, _ in group), style="dim" if index in dim else None)
        out.print(drawn)


def _groups(
    columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], width: int
) -> list[list[tuple[int, int, bool]]]:
    """Which columns stand in one table: (column, its width, whether its words are cut to that)."""
    from rich.cells import cell_len

    texts = [[columns[i], *(row[i] for row in cells)] for i in range(len(columns))]
    whole = [max((cell_len(line) for text in column for line in text.split("\n")), default=1) for column in texts]
    words = [max((cell_len(word) for text in column for word in text.split()), default=1) for column in texts]
    need = [full if number else word for full, word, number in zip(whole, words, numeric, strict=True)]
    least = [n if number else min(n, NARROWEST) for n, number in zip(need, numeric, strict=True)]
    groups: list[list[int]] = []
    for i in range(len(columns)):
        if not groups or _total([least[j] for j in (*groups[-1], i)]) > width:
            groups.append([0, i] if groups and i else [i])
        else:
            groups[-1].append(i)
    out = []
    for group in groups:
        widths = {i: need[i] for i in group}
        while _total(list(widths.values())) > width:  # words are too long: the longest is cut
            widest = max((i for i in group if widths[i] > least[i]), key=lambda i: widths[i], default=None)
            if widest is None:
                break
            widths[widest] -= 1
        while _total(list(widths.values())) < width:  # room is left: to the text that takes most lines
            fullest = max((i for i in group if widths[i] < whole[i]), key=lambda i: whole[i] / widths[i], default=None)
            if fullest is None:
                break
            widths[fullest] += 1
        out.append([(i, max(1, w), w < need[i]) for i, w in widths.items()])
    return out


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 3 * (len(widths) - 1) + 2  # as rich draws them: three columns between, one at each edge


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if isnan(value):
            return "undefined"
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return "" if value is None else str(value)


class Bars:
    """Shows how far a command is: called with `(done, total, text)` for the whole, `phase(name, done, total)` for a part of it.

    On a terminal these are two bars, the lower one while a part is under way; elsewhere plain lines, one every
    `PLAIN_EVERY` seconds at most, with an estimate of what is left.
    """

    def __init__(
        self, what: str, bar: Any = None, clock: Callable[[], float] = time.monotonic, err: bool = False
    ) -> None:
        self._what, self._bar, self._clock, self._err = what, bar, clock, err
        self._began = self._said_at = clock()
        self._said: tuple[int, int, str] | None = None
        self._start: dict[str, tuple[float, int]] = {}  # when each part was first heard of, and how far it was then
        self._main: Any = None
        self._part: Any = None
        self._phase = ""

    def __call__(self, done: int, total: int, text: str = "") -> None:
        if self._bar is not None:
            if self._main is None:
                self._main = self._bar.add_task(self._what, total=total, completed=done)
            description = printable(f"{self._what} {text}".strip())
            self._bar.update(self._main, completed=done, total=total, description=description)
            return
        finished = done >= total > 0
        if (finished or self._due()) and self._said != (done, total, text):
            self._said = done, total, text
            self._line(f"{done}/{total} {text}".strip(), "" if finished else self._left("", done, total))
        else:
            self._left("", done, total)

    def phase(self, name: str, done: int, total: int) -> None:
        """How far one phase of the work is; forgotten when it is complete."""
        if self._bar is not None:
            self._phase_bar(name, done, total)
            return
        left = self._left(name, done, total)
        if done >= total:
            self._start.pop(name, None)
        elif self._due():
            self._line(f"{name} {done}/{total}", left)

    def _phase_bar(self, name: str, done: int, total: int) -> None:
        if self._part is None:
            self._part = self._bar.add_task(printable(name), total=total)
        if name != self._phase:
            self._bar.reset(self._part, total=total, description=printable(name), visible=True)
            self._phase = name
        self._bar.update(self._part, completed=done, total=total, visible=done < total)

    def _due(self) -> bool:
        return self._clock() - self._said_at >= PLAIN_EVERY

    def _left(self, name: str, done: int, total: int) -> str:
        """An estimate of the time left, by the pace since this part was first heard of."""
        began, first = self._start.setdefault(name, (self._clock(), done))
        if done <= first or done >= total:
            return ""
        return f", about {duration((self._clock() - began) * (total - done) / (done - first))} left"

    def _line(self, text: str, left: str) -> None:
        self._said_at = self._clock()
        print(
            printable(f"{self._what}: {text} ({self._said_at - self._began:.0f} s{left})"),
            flush=True,
            file=sys.stderr if self._err else None,
        )


class _Silent:
    def __call__(self, done: int, total: int, text: str = "") -> None:
        pass

    def phase(self, name: str, done: int, total: int) -> None:
        pass


@contextmanager
def silent(what: str) -> Iterator[Any]:
    """A display that shows nothing."""
    yield _Silent()


@contextmanager
def progress(what: str, err: bool = False) -> Iterator[Bars]:
    """Return the `Bars` of what is under way: bars on a terminal, else a line now and then; on standard error with `err`."""
    out = console(err)
    if not out.is_terminal:
        yield Bars(what, err=err)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=out,
    ) as bar:
        yield Bars(what, bar)


class ConsoleDisplay(Display):
    """Prints what rooms tell, and asks on a terminal. `app.main` installs it."""

    def say(self, text: str, *, err: bool = False) -> None:
        say(text, err=err)

    def progress(self, what: str) -> AbstractContextManager[Progress]:
        return progress(what)

    def follow_queue(self) -> AbstractContextManager[QueueProgress]:
        from audio_cls.cli.queue_progress import Progress as Searching

        return Searching()

    def confirm(self, question: str) -> bool:
        return is_interactive() and click.confirm(question, default=False, err=True)
