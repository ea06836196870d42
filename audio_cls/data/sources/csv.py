"""A CSV file that lists clips: path, label or labels, and optionally id, fold, split, group, start, end."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from audio_cls.core.errors import UserError, choices
from audio_cls.data.manifest import LARGEST_NUMBER, Clip, Faults, Manifest, display_name, natural_key, split_name
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.known import refuse_unreadable

__all__ = ["CsvTable", "Row", "read_rows", "read_table"]

Row = tuple[int, dict[str, str]]  # (line of the file, cells by column)
_NAMES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "audio"),
    "label": ("label", "class", "category"),
    "labels": ("labels", "tags", "classes"),
    "id": ("id", "clip_id"),
    "fold": ("fold",),
    "split": ("split", "subset"),
    "group": ("group", "recording", "speaker"),
    "start": ("start", "onset", "start_seconds"),
    "end": ("end", "offset", "end_seconds"),
}
_SEPARATORS = (";", "|", ",")


class CsvTable(Source, kind="csv"):
    """A CSV file that lists clips, or a folder with such a file; see `read_table` for its columns."""

    order: ClassVar[int] = 30
    looks_for: ClassVar[str] = "a CSV file or one named meta.csv, manifest.csv or alone in its folder"
    classes: tuple[str, ...] | None = None
    """The allowed labels, in order; none takes all that occur, sorted."""
    task: str | None = None
    """multiclass or multilabel; none as the rows tell."""
    name: str | None = None
    """Of the data set; none takes the file's or its folder's."""
    audio_root: Path | str | None = None
    """Where relative paths start; none at the CSV's folder."""
    families: tuple[str, ...] = ()
    """CLASS=FAMILY for classes that belong to families, for family_map: dog=animals,rain=nature. A class may have several."""

    def detect(self, path: Path) -> bool:
        refuse_unreadable(path)
        return _find(path) is not None

    def read(self, path: Path) -> Manifest:
        made = read_table(path, classes=self.classes, task=self.task, name=self.name, audio_root=self.audio_root)
        return replace(made, families=_families(self.families, made.classes))


def read_table(
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    task: str | None = None,
    name: str | None = None,
    audio_root: Path | str | None = None,
) -> Manifest:
    """Read a CSV manifest.

    Columns (aliases in brackets): `path` [file, filename, ...], relative to the CSV's folder; `label` [class, category],
    one name taken as it stands, or `labels` [tags], several in a field separated by `;`, `|` or `,` (the first of these
    that occurs in the column, so labels that hold commas need `;` or `|`); optionally `fold` (whole number), `split`
    (train, val, test and their usual spellings), `group`, `start` and `end` in seconds, `id`. Other columns are ignored.
    Any row with several labels, or with none in a `labels` column, makes the set multilabel.

    Args:
        root: the CSV file, or a folder that holds meta.csv, manifest.csv or one CSV file alone.
        classes: the allowed labels, in order; others make their clip a bad one. None takes all that occur, sorted.
        task: "multiclass" or "multilabel"; None as the rows tell.
        name: of the data set; None takes the file's or its folder's.
        audio_root: where relative paths start, instead of the CSV's folder.

    Raises:
        UserError: a missing column or a cell that makes no sense, by file and row.
    """
    path = _find(root)
    if path is None:
        raise UserError(f"{root}: neither a CSV file nor a folder with meta.csv, manifest.csv or a single CSV file")
    columns, rows = read_rows(path, raw=_NAMES["path"])
    at = {key: next((c for n in names for c in columns if c.lower() == n), None) for key, names in _NAMES.items()}
    if at["path"] is None or (at["label"] is None and at["labels"] is None):
        raise UserError(
            f"{path}, row 1: columns 'path' and 'label' (or 'labels') are needed, found {', '.join(columns)}"
        )
    base = path.parent if audio_root is None else Path(audio_root)
    several = at["label"] is None
    label_column = str(at["labels"] if several else at["label"])
    separator = next((s for s in _SEPARATORS if several and any(s in cells[label_column] for _, cells in rows)), None)
    faults, clips = Faults(path), []
    for number, cells in rows:

        def cell(key: str, cells: dict[str, str] = cells) -> str:
            return cells[column] if (column := at[key]) else ""

        if not cell("path"):
            faults.add("the path is empty", number)
            continue
        clip_path = base / cell("path")
        if not _is_text(cell("path")) and not os.path.lexists(clip_path):
            faults.add(
                f"not UTF-8 text: {display_name(cell('path'))!r}, and no file has these bytes as its name", number
            )
        text = cells[label_column]
        labels = tuple(part.strip() for part in (text.split(separator) if separator else [text]) if part.strip())
        if not labels and not several:
            faults.add("the label is empty", number)
        start, end = _seconds(cell("start"), "start", number, faults), _seconds(cell("end"), "end", number, faults)
        if start is not None and end is not None and end <= start:
            faults.add(f"the end {end:g} s is not after the start {start:g} s", number)
        part = "" if start is None and end is None else f"[{cell('start')}:{cell('end')}]"
        clips.append(
            Clip(
                id=cell("id") or display_name(cell("path")) + part,
                path=clip_path,
                labels=tuple(dict.fromkeys(labels)),
                fold=_whole(cell("fold"), "fold", number, faults),
                split=_split(cell("split"), number, faults),
                group=cell("group") or None,
                start=start,
                end=end,
                row=number,
            )
        )
    faults.check()
    found = "multilabel" if any(len(c.labels) != 1 for c in clips) else "multiclass"
    named = (
        tuple(classes) if classes is not None else tuple(sorted({n for c in clips for n in c.labels}, key=natural_key))
    )
    default = display_name(path.parent.resolve().name if path.stem in ("meta", "manifest") else path.stem)
    return Manifest(name or default, tuple(clips), named, task or found, f"csv:{display_name(path.name)}", root=base)


def read_rows(path: Path, required: Sequence[str] = (), raw: Sequence[str] = ()) -> tuple[list[str], list[Row]]:
    """Return the columns and rows of a CSV file (UTF-8; comma, semicolon or tab), cells stripped, blank lines left out.

    Columns named in `raw` (in lower case) hold names of files, which may be any bytes: what is not UTF-8 there is kept as
    surrogates.

    Raises:
        UserError: not readable, no rows, a required column missing, or rows that have more or fewer cells than the header.
    """
    faults, rows = Faults(path), list[Row]()
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=header.count)
            lines = _numbered(csv.reader(file, delimiter=delimiter, strict=True))
            columns = [c.strip() for c in next(lines, (1, []))[1]]
            if not all(map(_is_text, columns)):
                raise UserError(f"{path}, row 1: not UTF-8 text: {', '.join(map(display_name, columns))}")
            missing = [c for c in required if c not in columns]
            if missing:
                raise UserError(
                    f"{path}, row 1: the column {missing[0]!r} is missing. Found: {', '.join(columns) or 'nothing'}"
                )
            twice = sorted({c for c in columns if columns.count(c) > 1})
            if twice:
                raise UserError(f"{path}, row 1: the column {twice[0]!r} stands twice")
            for number, cells in lines:
                if len(cells) != len(columns):
                    faults.add(
                        f"{len(cells)} cells, the header has {len(columns)} (a field that holds the separator needs quotes)",
                        number,
                    )
                elif odd := next(
                    (k for k, c in zip(columns, cells, strict=True) if not _is_text(c) and k.lower() not in raw), None
                ):
                    faults.add(
                        f"not UTF-8 text in the column {odd!r}: {display_name(dict(zip(columns, cells, strict=True))[odd])!r}",
                        number,
                    )
                else:
                    rows.append((number, dict(zip(columns, (c.strip() for c in cells), strict=True))))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except csv.Error as error:
        raise UserError(f"{path}, row {rows[-1][0] + 1 if rows else 1}: not CSV: {error}") from None
    faults.check()
    if not rows:
        raise UserError(f"{path}: no rows below the header")
    return columns, rows


def _is_text(cell: str) -> bool:
    """Whether a cell was UTF-8: other bytes are surrogates now."""
    return cell.isascii() or not any("\ud800" <= c <= "\udfff" for c in cell)


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    last = 0
    for cells in reader:
        number, last = last + 1, reader.line_num  # type: ignore[attr-defined]
        if any(c.strip() for c in cells):
            yield number, cells


def _families(pairs: Sequence[str], classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return class -> its families, from texts CLASS=FAMILY.

    Raises:
        UserError: for a text without a family, or of an unknown class.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in pairs:
        name, _, family = (part.strip() for part in text.rpartition("="))
        if not name or not family:
            raise UserError(f"families: expected CLASS=FAMILY, such as dog=animals, found {text!r}")
        if name not in classes:
            raise UserError(f"families: {name!r} is no class. {choices(name, classes)}")
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), family)))
    return found


def _find(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in (".csv", ".tsv") else None
    if not path.is_dir():
        return None
    for name in ("meta.csv", "manifest.csv"):
        if (path / name).is_file():
            return path / name
    alone = sorted(p for p in path.glob("*.csv") if p.is_file())
    return alone[0] if len(alone) == 1 else None


def _seconds(text: str, what: str, row: int, faults: Faults) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        faults.add(f"the {what} {text!r} is not a time in seconds, 0 or more", row)
        return None
    return value


def _whole(text: str, what: str, row: int, faults: Faults) -> int | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer() or not 0 <= value <= LARGEST_NUMBER:
        faults.add(f"the {what} {text!r} is not a whole number from 0 to {LARGEST_NUMBER}", row)
        return None
    return int(value)


def _split(text: str, row: int, faults: Faults) -> str | None:
    if not text:
        return None
    name = split_name(text)
    if name is None:
        faults.add(f"the split {text!r} is unknown. {choices(text, ('train', 'validation', 'val', 'test'))}", row)
    return name
