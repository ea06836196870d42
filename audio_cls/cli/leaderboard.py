"""The leaderboard of a search, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from audio_cls.cli.console import NARROWEST
from audio_cls.core.formatting import duration, printable
from audio_cls.queue.status import BEST_EPOCH, StudyStatus, number_text
from audio_cls.queue.worker import reason_kind

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["leaderboard"]


ROWS = 10
"""Rows that are shown of a search; a grid is a table and is shown whole."""


def leaderboard(status: StudyStatus, limit: int | None = None, width: int = 80) -> Table:
    """The best complete configurations, then pruned ones, as a table for a terminal of `width` columns; `limit` rows at most,
    `ROWS` unless given. Of a grid all rows, failed ones with the kind of their failure.

    The parameters that vary get a column each where the terminal is wide enough, else they share one.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    grid = status.sampler == "grid"
    states = ("COMPLETE", "PRUNED", "FAILED") if grid else ("COMPLETE", "PRUNED")
    rows = [r for r in status.rows if r.state in states][: limit or (None if grid else ROWS)]
    names = sorted({name for row in rows for name in row.params})
    varying = [n for n in names if len({str(row.params.get(n)) for row in rows}) > 1] or names
    head = ("trial", "state", status.metric, "epochs", "time")
    cells = [
        [
            str(r.number),
            f"failed: {reason_kind(r.reason)}" if r.state == "FAILED" else r.state_text,
            number_text(r.value),
            str(r.epochs),
            duration(r.seconds),
        ]
        for r in rows
    ]
    shown = {n: [number_text(r.params[n]) if n in r.params else "" for r in rows] for n in varying}
    fixed = sum(max(len(h), *(len(c[i]) for c in cells), 0) + 3 for i, h in enumerate(head)) if cells else 0
    wanted = sum(max(len(_short_name(n, varying)), *(len(v) for v in shown[n])) + 3 for n in varying) if cells else 0
    table = Table(
        title=f"{status.name}: {status.metric} ({status.direction}), {BEST_EPOCH}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in head:
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    in_columns = fixed + wanted <= width
    together = [
        ", ".join(f"{_short_name(n, varying)} {shown[n][i]}" for n in varying if shown[n][i]) for i in range(len(rows))
    ]
    if in_columns:
        for name in varying:
            table.add_column(escape(printable(_short_name(name, varying))), no_wrap=True)
    else:  # wraps between words, never within one
        longest = max((len(word) for text in together for word in text.split()), default=1)
        table.add_column("parameters", min_width=min(longest, max(NARROWEST, width - fixed - 2)), overflow="ellipsis")
    for i, row in enumerate(rows):
        tail = [shown[n][i] for n in varying] if in_columns else [together[i]]
        texts = [escape(printable(text)) for text in (*cells[i], *tail)]
        table.add_row(*texts, style="dim" if row.state != "COMPLETE" else None)
    for item in status.published:
        if item.is_of(status.metric):
            name = f"published{': ' if item.name else ''}{item.name}"
            table.add_row("", escape(printable(name)), number_text(item.value), style="dim")
    return table


def _short_name(name: str, among: Sequence[str]) -> str:
    """The last part of a dotted name where it is enough to tell it apart."""
    last = name.rsplit(".", 1)[-1]
    return last if sum(n.rsplit(".", 1)[-1] == last for n in among) == 1 else name
