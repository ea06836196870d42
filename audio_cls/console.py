"""Tables and progress: rich where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["console", "is_interactive", "progress", "table"]

PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


def is_interactive() -> bool:
    """Whether somebody can be asked: standard input and error are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def console() -> Any:
    """A rich console on standard output."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """Print a table; numbers are right-aligned, and the columns named in `right`."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        numeric = i in right or (bool(rows) and all(isinstance(r[i], (int, float)) for r in rows))
        out.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        out.add_row(*(escape(_cell(v)) for v in row))
    console().print(out)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "" if value is None else str(value)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar as a function `(done, total, text)`; without a terminal, a line now and then."""
    out = console()
    if not out.is_terminal:
        began = time.monotonic()
        said: tuple[float, tuple[int, int, str] | None] = (began, None)

        def plain(done: int, total: int, text: str = "") -> None:
            nonlocal said
            now = time.monotonic()
            if (done >= total > 0 or now - said[0] >= PLAIN_EVERY) and said[1] != (done, total, text):
                said = now, (done, total, text)
                print(f"{what}: {done}/{total} {text} ({now - began:.0f} s)".replace("  ", " "), flush=True)

        yield plain
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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=out,
    ) as bar:
        task = bar.add_task(what, total=None)

        def tell(done: int, total: int, text: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{what} {text}".strip())

        yield tell
