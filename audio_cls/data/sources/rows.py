"""Rows of tables without a header, and the lines of lists of clips."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from audio_cls.core.errors import UserError
from audio_cls.data.manifest import Faults

__all__ = ["find_clip", "read_plain_rows"]


def read_plain_rows(path: Path, columns: Sequence[str], delimiter: str = "\t") -> list[tuple[int, dict[str, str]]]:
    """Return (line, cells by column) of a table without a header (UTF-8); cells are stripped, blank lines left out.

    Raises:
        UserError: the file cannot be read, a row has more or fewer cells than `columns`, or an empty first cell.
    """
    faults, rows = Faults(path), []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns) or not cells[0].strip():
                    faults.add(f"{len(cells)} cells, needed are {len(columns)}: {', '.join(columns)}", reader.line_num)
                    continue
                values = (cell.strip() for cell in cells)
                rows.append((reader.line_num, dict(zip(columns, values, strict=True))))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except csv.Error as error:
        raise UserError(f"{path}, row {reader.line_num}: {error}") from None
    faults.check()
    return rows


def find_clip(name: str, numbers: Mapping[str, int], row: int, faults: Faults) -> int | None:
    """Return the number of the clip that a list names (`numbers` by path, with forward slashes); without one, add a fault."""
    number = numbers.get(PurePosixPath(name.replace("\\", "/")).as_posix())
    if number is None:
        faults.add(f"it names {name!r}, and there is no such clip", row)
    return number
