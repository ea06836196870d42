"""One reader per published layout, and the choice of the reader for a path.

Each reader is a module with `read(root, **options) -> Manifest` and `detect(path) -> bool`. A reader trusts nothing: what
it cannot read raises a `UserError` that names file and row. Whether audio can be used is `prepare`'s business.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from audio_cls.core.errors import UserError, choices
from audio_cls.data.manifest import Manifest
from audio_cls.data.sources.known import refuse_names, refuse_unreadable

__all__ = ["LAYOUTS", "detect", "read"]

LAYOUTS = ("esc50", "synthetic", "csv", "audio_folder")  # in the order of detection: the most particular first


def read(path: Path | str, layout: str | None = None, **options: Any) -> Manifest:
    """Read a data set's clip table.

    Args:
        path: a folder, or a CSV file.
        layout: one of `LAYOUTS`; None finds out.
        options: the reader's own (`subset="esc10"` for esc50, ...).

    Raises:
        UserError: no such path, layout or option, or a fault in the data set's own tables.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    reader = _module(detect(path) if layout is None else layout)
    allowed = [name for name in inspect.signature(reader.read).parameters if name != "root"]
    for name in options:
        if name not in allowed:
            raise UserError(f"layout {_name(reader)!r} has no option {name!r}. {choices(name, allowed)}")
    manifest: Manifest = reader.read(path, **options)
    return manifest


def detect(path: Path) -> str:
    """Return the layout of a path.

    Raises:
        UserError: none fits; says what was looked for. Or it is a published layout that has no reader.
    """
    for layout in LAYOUTS:
        if layout == "csv":
            refuse_unreadable(path)
        elif layout == "audio_folder" and path.is_dir():
            refuse_names(path)
        if _module(layout).detect(path):
            return layout
    raise UserError(
        f"{path}: no known layout. Looked for meta/esc50.csv (esc50), generator.json (synthetic), a CSV file or one named "
        f"meta.csv, manifest.csv or alone in its folder (csv), and folders of audio files by class (audio_folder). "
        f"Say which with layout=...: {', '.join(sorted(LAYOUTS))}"
    )


def _module(layout: str) -> ModuleType:
    if layout not in LAYOUTS:
        raise UserError(f"{layout!r} is no layout. {choices(layout, LAYOUTS)}")
    return importlib.import_module(f"audio_cls.data.sources.{layout}")


def _name(module: ModuleType) -> str:
    return module.__name__.rsplit(".", 1)[-1]
