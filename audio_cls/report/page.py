"""A one-file HTML page of prose, figures and tables that needs no network and no server.

plotly.js is in the page once, compressed (about 2 MB instead of 4.8), and is unpacked by the browser. That works from
a file, from a server, and inside the sandboxed frame in which MLflow shows an artifact. All text is escaped.
"""

from __future__ import annotations

import base64
import functools
import gzip
import html
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

__all__ = ["Cards", "Html", "Section", "Table", "findings", "format_number", "render_page"]


@dataclass(frozen=True)
class Html:
    """Markup that is put into the page as it is: the caller answers for its being escaped."""

    markup: str


@dataclass(frozen=True)
class Cards:
    """A few headline figures: label -> value; `chosen` is the label of the one that stands out. `beside` holds what some are to be
    compared with, which is below them in small, led by `beside_name`."""

    values: Mapping[str, Any]
    chosen: str = ""
    beside: Mapping[str, float] = field(default_factory=dict)
    beside_name: str = "baseline"


@dataclass(frozen=True)
class Table:
    """A table that sorts on a click on a heading and copies as tab-separated text with all digits.

    columns: headings.
    rows: one sequence for each row: str, bool, int, float (NaN is shown as a dash), or None (empty).
    caption: one line above it.
    digits: decimals of floats as shown.
    significant: headings of the columns in which floats have so many significant digits instead (p values, learning rates).
    dim: indices of rows that are shown greyed.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    digits: int = 3
    significant: Sequence[str] = ()
    dim: Sequence[int] = ()


@dataclass(frozen=True)
class Section:
    """A heading and what is below it: prose (str, escaped; a blank line parts paragraphs), figures, tables, cards. What is
    `folded` shows its heading alone until it is opened, or printed."""

    heading: str
    content: Sequence[str | Html | Cards | Table | go.Figure] = field(default=())
    folded: bool = False


def findings(sentences: Sequence[str]) -> list[Html]:
    """Return what is wrong, to stand at the top of a page; nothing if there are no sentences."""
    items = "".join(f"<li>{_escape(line)}</li>" for line in sentences)
    return [Html(f'<ul class="findings">{items}</ul>')] if items else []


def render_page(title: str, sections: Sequence[Section], path: str | Path | None = None) -> str:
    """Return the page as text; also written to `path` (all of it or nothing) when one is given.

    Args:
        title: of the page.
        sections: in order; a contents list links to them.
        path: where to write it, its folder being there.
    """
    anchors = _anchors([section.heading for section in sections])
    contents = "".join(
        f'<li><a href="#{anchor}">{_escape(section.heading)}</a></li>' for anchor, section in zip(anchors, sections)
    )
    body = "\n".join(_render_section(anchor, section) for anchor, section in zip(anchors, sections))
    has_figures = any(isinstance(part, go.Figure) for section in sections for part in section.content)
    packed = f'<script type="text/plain" id="plotly-gz">{_packed_plotly()}</script>\n' if has_figures else ""
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{_asset("page.css")}</style>\n'
        f"</head>\n<body>\n<main>\n<h1>{_escape(title)}</h1>\n"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n{body}\n</main>\n'
        f"{packed}<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )
    if path is not None:
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    return page


def format_number(value: float, digits: int = 3) -> str:
    """Return a number for reading: `digits` decimals, or as many significant digits where those would hide it; NaN is
    a dash.
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or 10.0**-digits <= abs(value) < 1e5:
        return f"{value:.{digits}f}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def _render_section(anchor: str, section: Section) -> str:
    heading = f'<h2 id="{anchor}">{_escape(section.heading)}</h2>'
    content = "\n".join(_render(part) for part in section.content)
    if section.folded:
        return f"<section>\n<details>\n<summary>{heading}</summary>\n{content}\n</details>\n</section>"
    return f"<section>\n{heading}\n{content}\n</section>"


def _render(part: str | Html | Cards | Table | go.Figure) -> str:
    if isinstance(part, str):
        return "\n".join(f"<p>{_escape(text)}</p>" for text in re.split(r"\n\s*\n", part.strip()))
    if isinstance(part, Html):
        return part.markup
    if isinstance(part, Cards):
        return _render_cards(part)
    if isinstance(part, Table):
        return _render_table(part)
    return _render_figure(part)


def _render_figure(figure: go.Figure) -> str:
    # "<" cannot end the script element when it is written as an escape, and JSON reads the same
    data = figure.to_json().replace("<", "\\u003c")
    height = int(figure.layout.height or 400)
    return (
        f'<div class="figure waiting" style="height:{height}px"><p>drawing ...</p>'
        f'<script type="application/json">{data}</script></div>'
    )


def _render_cards(cards: Cards) -> str:
    items = "".join(
        f"<div{' class=chosen' if label == cards.chosen else ''}>"
        f"<dt>{_escape(label)}</dt><dd>{_escape(_shown(value, 3))}</dd>{_beside(cards, label)}</div>"
        for label, value in cards.values.items()
    )
    return f'<dl class="cards">{items}</dl>'


def _beside(cards: Cards, label: str) -> str:
    if label not in cards.beside:
        return ""
    return f"<dd class=beside>{_escape(cards.beside_name)} {_escape(_shown(cards.beside[label], 3))}</dd>"


def _render_table(table: Table) -> str:
    width = len(table.columns)
    for index, row in enumerate(table.rows):
        if len(row) != width:
            raise ValueError(f"row {index} of the table {table.caption!r} has {len(row)} cells for {width} columns")
    numeric = [
        any(_is_number(row[k]) for row in table.rows)
        and all(row[k] is None or _is_number(row[k]) for row in table.rows)
        for k in range(width)
    ]
    head = "".join(
        f'<th scope="col"{" class=n" if is_number else ""}><button type="button">{_escape(name)}</button></th>'
        for name, is_number in zip(table.columns, numeric)
    )
    forms = [f".{table.digits}g" if name in table.significant else "" for name in table.columns]
    rows = "\n".join(
        f"<tr{' class=dim' if index in table.dim else ''}>"
        + "".join(_render_cell(v, n, table.digits, form) for v, n, form in zip(row, numeric, forms))
        + "</tr>"
        for index, row in enumerate(table.rows)
    )
    return (
        f'<div class="table"><div class="bar"><span class="caption">{_escape(table.caption)}</span>'
        f'<button type="button" class="copy" title="copy as tab-separated text">copy</button></div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_escape(table.caption or "table")}">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div></div>"
    )


def _render_cell(value: Any, numeric_column: bool, digits: int, form: str = "") -> str:
    if form and isinstance(value, float | np.floating) and math.isfinite(value):
        shown = format(float(value), form).replace("-", "−")
    else:
        shown = _escape(_shown(value, digits))
    if not numeric_column:
        return f"<td{' class=long' if len(shown) > 40 else ''}>{shown}</td>"
    plain = value.item() if isinstance(value, np.generic) else value
    raw = "" if plain is None else repr(plain).replace("inf", "Infinity")  # as JavaScript reads it
    return f'<td class="n" data-v="{raw}">{shown}</td>'


def _shown(value: Any, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return format_number(float(value), digits)
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _anchors(headings: Sequence[str]) -> list[str]:
    """Return an id for each heading: its words, with a number where two are equal."""
    taken: list[str] = []
    for heading in headings:
        word = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"
        anchor, number = word, 2
        while anchor in taken or anchor == "plotly-gz":
            anchor, number = f"{word}-{number}", number + 1
        taken.append(anchor)
    return taken


def _asset(name: str) -> str:
    return resources.files("audio_cls.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _packed_plotly() -> str:
    """plotly.js, gzip and base64: half a second, once in a process."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)).decode()
